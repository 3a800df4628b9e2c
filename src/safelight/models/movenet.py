"""MoveNet Lightning: one person's 17 joints, from a MobileNetV2 with a feature pyramid."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 192  # pixels of the square that it sees
GRID = 48  # cells of a side, in which joints are found
JOINTS = 17
HEADS = {"heatmap": JOINTS, "regress": 2 * JOINTS, "center": 1, "offset": 2 * JOINTS}
# Stride of the first block, expansion, channels and number of blocks of each stage (MobileNetV2,
# arXiv 1801.04381, table 2).
_STAGES = (
    *((1, 1, 16, 1), (2, 6, 24, 2), (2, 6, 32, 3), (2, 6, 64, 4)),
    *((1, 6, 96, 3), (2, 6, 160, 3), (1, 6, 320, 1)),
)
_TAPS = (9, 5, 2)  # the last blocks at strides 16, 8 and 4
_FALLOFF = 1.8  # cells that are added to a joint's distance from where it is expected


class MoveNet(nn.Module):
    """MoveNet Lightning, single pose (Google 2021, Apache-2.0): a CenterNet over MobileNetV2 with
    batch normalisation folded in.

    `forward`: levels (1, 3, 192, 192) of RGB from 0 to 255 to (17, 3): each joint's place from the
    left and from the top in parts of a side, and how sure it is, 0 to 1, in COCO's order.
    """

    center_weight: Tensor  # (48, 48), which prefers the person in the middle

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, stride=2)
        self.blocks = nn.ModuleList(_blocks())
        self.top = nn.Conv2d(320, 1280, 1)
        self.laterals = nn.ModuleList(
            nn.Conv2d(inputs, width, 1)
            for inputs, width in ((1280, 64), (64, 64), (32, 32), (24, 24))
        )
        self.merges = nn.ModuleList(
            Separable(inputs, width) for inputs, width in ((64, 32), (32, 24), (24, 24))
        )
        self.heads = nn.ModuleDict({name: _Head(24, width) for name, width in HEADS.items()})
        self.register_buffer("center_weight", torch.ones(GRID, GRID))

    def forward(self, levels: Float[Tensor, "1 3 192 192"]) -> Float[Tensor, "17 3"]:
        """The joints of the person nearest to the middle."""
        features = self._features(levels / 127.5 - 1)  # (1, 24, 48, 48)
        maps = {name: head(features)[0] for name, head in self.heads.items()}
        center = int((maps["center"][0].sigmoid() * self.center_weight).argmax())
        row, column = divmod(center, GRID)
        expected = maps["regress"][:, row, column].reshape(JOINTS, 2) + torch.tensor(
            [row, column], device=levels.device
        )
        surety = maps["heatmap"].sigmoid()  # (17, 48, 48)
        near = surety / (_distances(expected) + _FALLOFF)
        cells = near.flatten(1).argmax(dim=1)  # (17,)
        rows, columns = cells // GRID, cells % GRID
        joint = torch.arange(JOINTS, device=levels.device)
        offsets = rearrange(maps["offset"], "(k two) h w -> k two h w", two=2)
        down, across = offsets[joint, :, rows, columns].unbind(dim=1)
        return torch.stack(
            [(columns + across) / GRID, (rows + down) / GRID, surety[joint, rows, columns]], dim=1
        )

    def _features(self, x: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 24 hf wf"]:
        x = F.relu6(self.stem(x))
        taps: dict[int, Tensor] = {}
        for place, block in enumerate(self.blocks):
            x = taps[place] = block(x)
        top, *laterals = self.laterals
        x = top(F.relu6(self.top(x)))  # (1, 64, 6, 6)
        for place, lateral, merge in zip(_TAPS, laterals, self.merges, strict=True):
            wider = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = F.relu(merge(wider + lateral(taps[place])))
        return x


class _Conv(nn.Conv2d):
    """A convolution of 3 x 3 with TensorFlow's padding: at stride 2 below and right alone."""

    def __init__(self, inputs: int, width: int, *, stride: int = 1, depthwise: bool = False):
        super().__init__(inputs, width, 3, stride=stride, groups=inputs if depthwise else 1)
        self.around = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.around))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, expansion: int, width: int, stride: int):
        super().__init__()
        inside = inputs * expansion
        self.expand = nn.Conv2d(inputs, inside, 1) if expansion > 1 else None
        self.depthwise = _Conv(inside, inside, stride=stride, depthwise=True)
        self.project = nn.Conv2d(inside, width, 1)
        self.adds = stride == 1 and inputs == width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d ho wo"]:
        inside = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inside)))
        return x + out if self.adds else out


class Separable(nn.Module):
    """A convolution of 3 x 3 of each channel, and one of 1 x 1 over the channels."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The features."""
        return self.pointwise(self.depthwise(x))


class _Head(nn.Module):
    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.separable = Separable(inputs, 96)
        self.out = nn.Conv2d(96, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.out(F.relu(self.separable(x)))


def _blocks() -> Iterator[_Bottleneck]:
    inputs = 32
    for stride, expansion, width, count in _STAGES:
        for place in range(count):
            yield _Bottleneck(inputs, expansion, width, 1 if place else stride)
            inputs = width


def _distances(places: Float[Tensor, "17 2"]) -> Float[Tensor, "17 48 48"]:
    """Of each cell from each place, in cells."""
    cells = torch.arange(GRID, device=places.device)
    down = cells[None, :, None] - places[:, 0, None, None]
    across = cells[None, None, :] - places[:, 1, None, None]
    return (down**2 + across**2).sqrt()
