"""Devices and precisions by their names."""

import pytest
import torch

from safelight.errors import SafelightError
from safelight.pipelines.load import has_device, load
from safelight.pipelines.precisions import precision_named


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "cuda", "cuda:0", "cuda:1"])
def test_devices_that_are_here(name):
    assert has_device(name)
    torch.device(name)  # torch knows the spelling


@pytest.mark.parametrize(
    "name",
    ["cpu:foo", "cpu:1", "cpu:", "cuda:2", "cuda:9", "cuda:-1", "cuda:01", "mps", "tpu", "", "CPU"],
)
def test_devices_that_are_not_here_are_told_beside_those_that_are(name, model_folder):
    assert not has_device(name)
    with pytest.raises(SafelightError) as caught:
        load(model_folder, device=name)
    assert str(caught.value) == (f"This machine has no device {name!r}; it has cpu, cuda, cuda:1.")


def test_precisions():
    assert precision_named("bfloat16") is torch.bfloat16
    with pytest.raises(SafelightError, match="Did you mean 'float32'"):
        precision_named("float3")
