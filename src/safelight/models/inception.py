"""InceptionV3 as the Fréchet inception distance uses it, for weights that the user brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.features import FrozenNorm

Kernel = tuple[int, int]
_ONE, _THREE = (1, 1), (3, 3)


class InceptionFid(nn.Module):
    """InceptionV3 of 2015-12-05 (Szegedy et al. 2015), the network of FID (Heusel et al. 2017).

    `pooled`: pixels (b, 3, h, w) in [-1, 1] to (b, 2048). `forward`: to four maps with 64, 192, 768
    and 2048 channels. Any size is resized to 299 x 299, bilinearly and without antialiasing, as the
    published figures were made. Names are those of `pt_inception-2015-12-05-6726825d.pth`.

    Differs from torchvision's InceptionV3 because the original's average pools leave padding out,
    its last pool takes the maximum, and there are 1,008 classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, _THREE, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, _THREE)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, _THREE, padded=True)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, _ONE)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, _THREE)
        self.Mixed_5b = _mixed_5(192, pooled=32)
        self.Mixed_5c = _mixed_5(256, pooled=64)
        self.Mixed_5d = _mixed_5(288, pooled=64)
        self.Mixed_6a = _mixed_6a()
        self.Mixed_6b = _mixed_6(128)
        self.Mixed_6c = _mixed_6(160)
        self.Mixed_6d = _mixed_6(160)
        self.Mixed_6e = _mixed_6(192)
        self.Mixed_7a = _mixed_7a()
        self.Mixed_7b = _mixed_7(1280, _average)
        self.Mixed_7c = _mixed_7(2048, _maximum)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c hf wf"]]:
        """The feature maps, from fine to coarse, 73, 35, 17 and 8 pixels wide."""
        x = F.interpolate(pixels, size=(299, 299), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        first = _halve(x)  # (b, 64, 73, 73)
        second = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(first)))  # (b, 192, 35, 35)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(second))))
        third = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (b, 768, 17, 17)
        return [first, second, third, self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(third)))]

    def pooled(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """The last layer before the classes, averaged over the picture."""
        return self(pixels)[-1].mean(dim=(2, 3))


class ConvNorm(nn.Module):
    """Convolution, batch normalisation by its running statistics, ReLU."""

    def __init__(
        self, channels: int, out: int, kernel: Kernel, stride: int = 1, *, padded: bool = False
    ):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = FrozenNorm(out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        """The layer's output."""
        gain, bias = self.bn.gain_and_bias()
        weight = self.conv.weight * gain[:, None, None, None]
        return F.relu(F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding))


@dataclass(frozen=True)
class Layer:
    """One convolution of a branch: the end of its name, output channels, kernel and stride."""

    name: str
    out: int
    kernel: Kernel = _ONE
    stride: int = 1


@dataclass(frozen=True)
class Branch:
    """Convolutions one after the other; `ends` all take the last one's output, side by side."""

    layers: tuple[Layer, ...]
    ends: tuple[Layer, ...] = ()


class Mixed(nn.Module):
    """Branches beside one another and a pool, channels joined (Szegedy et al., figures 5 to 7)."""

    def __init__(
        self,
        channels: int,
        branches: Sequence[Branch],
        pool: Callable[[Tensor], Tensor],
        pooled: int | None,
    ):
        super().__init__()
        for branch in branches:
            width = channels
            for layer in branch.layers:
                self._add(width, layer)
                width = layer.out
            for layer in branch.ends:
                self._add(width, layer)
        self._branches = tuple(branches)
        self._pool = pool
        self.branch_pool = nn.Identity() if pooled is None else ConvNorm(channels, pooled, _ONE)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        """The branches' outputs, joined along the channels."""
        outputs: list[Tensor] = []
        for branch in self._branches:
            hidden = x
            for layer in branch.layers:
                hidden = self.get_submodule(f"branch{layer.name}")(hidden)
            ends = [self.get_submodule(f"branch{layer.name}")(hidden) for layer in branch.ends]
            outputs += ends or [hidden]
        return torch.cat([*outputs, self.branch_pool(self._pool(x))], dim=1)

    def _add(self, channels: int, layer: Layer) -> None:
        padded = layer.stride == 1
        conv = ConvNorm(channels, layer.out, layer.kernel, layer.stride, padded=padded)
        self.add_module(f"branch{layer.name}", conv)


def _mixed_5(channels: int, pooled: int) -> Mixed:
    branches = (
        Branch((Layer("1x1", 64),)),
        Branch((Layer("5x5_1", 48), Layer("5x5_2", 64, (5, 5)))),
        Branch((Layer("3x3dbl_1", 64), *(Layer(f"3x3dbl_{i}", 96, _THREE) for i in (2, 3)))),
    )
    return Mixed(channels, branches, _average, pooled)


def _mixed_6a() -> Mixed:
    double = (
        Layer("3x3dbl_1", 64),
        Layer("3x3dbl_2", 96, _THREE),
        Layer("3x3dbl_3", 96, _THREE, stride=2),
    )
    branches = (Branch((Layer("3x3", 384, _THREE, stride=2),)), Branch(double))
    return Mixed(288, branches, _halve, pooled=None)


def _mixed_6(width: int) -> Mixed:
    across, down = (1, 7), (7, 1)
    single = (
        Layer("7x7_1", width),
        Layer("7x7_2", width, across),
        Layer("7x7_3", 192, down),
    )
    double = (
        Layer("7x7dbl_1", width),
        Layer("7x7dbl_2", width, down),
        Layer("7x7dbl_3", width, across),
        Layer("7x7dbl_4", width, down),
        Layer("7x7dbl_5", 192, across),
    )
    branches = (Branch((Layer("1x1", 192),)), Branch(single), Branch(double))
    return Mixed(768, branches, _average, pooled=192)


def _mixed_7a() -> Mixed:
    sevens = (
        Layer("7x7x3_1", 192),
        Layer("7x7x3_2", 192, (1, 7)),
        Layer("7x7x3_3", 192, (7, 1)),
        Layer("7x7x3_4", 192, _THREE, stride=2),
    )
    threes = (Layer("3x3_1", 192), Layer("3x3_2", 320, _THREE, stride=2))
    return Mixed(768, (Branch(threes), Branch(sevens)), _halve, pooled=None)


def _mixed_7(channels: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    def crossed(name: str) -> tuple[Layer, ...]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    double = (Layer("3x3dbl_1", 448), Layer("3x3dbl_2", 384, _THREE))
    branches = (
        Branch((Layer("1x1", 320),)),
        Branch((Layer("3x3_1", 384),), crossed("3x3_2")),
        Branch(double, crossed("3x3dbl_3")),
    )
    return Mixed(channels, branches, pool, pooled=192)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)
