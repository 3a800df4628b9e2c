"""The small network of those judges that say something of every pixel."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PixelNetwork(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with maps as large as the picture as output.

    It works on 2 x 2 pixels at a time; skips are added, which is cheaper than joining them.
    `channels` are those of each level, the finest first.
    """

    def __init__(self, channels: Sequence[int], outputs: int):
        super().__init__()
        first, *deeper = channels
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _block(12, first), _block(first, first))
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        width = first
        for out in deeper:
            self.down.append(nn.Sequential(_block(width, out, stride=2), _block(out, out)))
            self.up.insert(0, nn.Sequential(nn.Conv2d(out, width, 1), nn.Upsample(scale_factor=2)))
            width = out
        self.join = nn.ModuleList(_block(width, width) for width in channels[-2::-1])
        self.head = nn.Sequential(nn.Conv2d(first, 4 * outputs, 1), nn.PixelShuffle(2))

    def maps(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b o h w"]:
        """The maps of pictures in [-1, 1] whose sides are multiples of 2 per level."""
        x = self.stem(pixels)
        skips: list[Tensor] = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(up(x) + skips.pop())
        return self.head(x)


def at_size(pixels: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 side side"]:
    """Pictures in [-1, 1] of any size at the side that a judge was trained at; those that have it
    stay as they are.
    """
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
        nn.GroupNorm(min(8, out), out),
        nn.SiLU(),
    )
