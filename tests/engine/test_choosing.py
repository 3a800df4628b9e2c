import pytest
import torch

from safelight.engine import choosing
from safelight.engine.choosing import choose_engine
from safelight.errors import SafelightError


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(choosing, "has_openvino", lambda: True)


@pytest.mark.parametrize("multiplies", [True, False])
def test_auto_is_openvino_where_that_computes(installed, monkeypatch, multiplies):
    monkeypatch.setattr(choosing, "multiplies_bfloat16", lambda device: multiplies)
    in_half = "openvino" if multiplies else "torch"
    assert choose_engine("auto", "cpu", torch.float32) == "openvino"
    assert choose_engine("auto", "cpu", torch.bfloat16) == in_half
    assert choose_engine("auto", "cpu", torch.float16) == "torch"
    assert choose_engine("auto", "cuda:0", torch.float32) == "torch"
    assert choose_engine("torch", "cpu", torch.float32) == "torch"


@pytest.mark.parametrize(("device", "dtype"), [("cuda", torch.float32), ("cpu", torch.float16)])
def test_openvino_is_refused_where_it_does_not_compute(installed, device, dtype):
    with pytest.raises(SafelightError, match="computes on the CPU, in float32"):
        choose_engine("openvino", device, dtype)


def test_prepared_is_torch_on_the_cpu_in_float32_alone():
    assert choose_engine("prepared", "cpu", torch.float32) == "prepared"
    for device, dtype in (("cuda", torch.float32), ("cpu", torch.bfloat16)):
        with pytest.raises(SafelightError, match='"prepared" computes on the CPU, in float32'):
            choose_engine("prepared", device, dtype)


def test_without_openvino_auto_is_torch_and_its_name_is_refused():
    assert choose_engine("auto", "cpu", torch.float32) == "torch"
    with pytest.raises(SafelightError, match=r"pip install \"safelight\[openvino\]\""):
        choose_engine("openvino", "cpu", torch.float32)
