"""Residual blocks, up- and downsampling for pictures and latents."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Picture = Float[Tensor, "b _ _ _"]  # a picture or latent whose channels and size may change


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with a skip; an embedding is added (or scales and shifts)
    between.

    `emb_dim=None` builds the autoencoders' block without an embedding. With `scale_shift` the
    embedding gives a scale and a shift of the second norm (Dhariwal and Nichol 2021, eq. 3) instead
    of a sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        eps: float,
        emb_dim: int | None = None,
        scale_shift: bool = False,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        width = out_channels * (2 if scale_shift else 1)
        self.time_emb_proj = nn.Linear(emb_dim, width) if emb_dim else None
        self.scale_shift = scale_shift
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.conv_shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Picture, emb: Float[Tensor, "b d"] | None = None) -> Picture:
        """(b, in, h, w) and (b, emb_dim) to (b, out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and emb is not None:
            projected = self.time_emb_proj(F.silu(emb))[:, :, None, None]  # (b, width, 1, 1)
            if self.scale_shift:
                scale, shift = projected.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h + projected)
        else:
            h = self.norm2(h)
        h = self.conv2(F.silu(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halves height and width by a strided convolution; `padding` 0 pads right and bottom only."""

    def __init__(self, channels: int, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.padding = padding

    def forward(self, x: Picture) -> Picture:
        """(b, c, h, w) to (b, c, h/2, w/2)."""
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, by 2 or to a given size, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Picture, size: tuple[int, int] | None = None) -> Picture:
        """(b, c, h, w) to (b, c, 2h, 2w), or to `size` where the skip it meets has an odd one."""
        size = size or (x.shape[-2] * 2, x.shape[-1] * 2)
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
