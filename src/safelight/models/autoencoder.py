"""The KL autoencoder that compresses pictures into latents.

Source: Rombach et al. 2022, section 3.1; Esser et al. 2021 for the architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import PictureAttention
from safelight.nn.blocks import Downsample, Picture, ResBlock, Upsample
from safelight.nn.recompute import recomputed

_EPS = 1e-6


@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of a KL autoencoder. Tuples hold one entry a level, from the finest to the
    coarsest.

    Latents are used as `(z - shift_factor) * scaling_factor`, so that they have about unit
    variance. Raises `ValueError` if its parts do not fit each other.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    attention: tuple[bool, ...] = (False, False, False, False)
    mid_attention: bool = True
    norm_num_groups: int = 32
    quant_conv: bool = True
    post_quant_conv: bool = True
    sample_size: int | None = 512  # picture height and width it was trained at
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    force_upcast: bool = True  # whether float16 is too narrow for Stable Diffusion XL's weights

    def __post_init__(self):
        levels = len(self.block_out_channels)
        if not levels:
            raise ValueError("block_out_channels is empty; give each level's channels.")
        if len(self.attention) != levels:
            raise ValueError(
                f"attention has {len(self.attention)} entries for {levels} levels of "
                "block_out_channels; give one a level."
            )
        for name in (
            "in_channels",
            "out_channels",
            "latent_channels",
            "layers_per_block",
            "norm_num_groups",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be 1 or more, got {getattr(self, name)}.")
        for channels in self.block_out_channels:
            if channels < 1 or channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels has {channels}, which norm_num_groups = "
                    f"{self.norm_num_groups} does not divide."
                )
        if self.scaling_factor == 0:
            raise ValueError("scaling_factor should not be 0, which would erase every latent.")


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution over latents, each tensor (b, c, h, w)."""

    mean: Float[Tensor, "b c h w"]
    logvar: Float[Tensor, "b c h w"]

    def mode(self) -> Float[Tensor, "b c h w"]:
        """The most probable latent."""
        return self.mean

    def sample(self, noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A latent drawn with the given standard normal noise (Kingma and Welling 2014, eq. 10)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Float[Tensor, " b"]:
        """Divergence from the standard normal, summed over each latent, in nats."""
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))


class Autoencoder(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] to latents (b, latent_channels, h/factor, w/factor) and
    back.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.slicing = False
        latent = config.latent_channels
        self.encoder = Encoder(config, out_channels=2 * latent)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if config.quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if config.post_quant_conv else None

    @property
    def factor(self) -> int:
        """How many pixels, in height and in width, one latent stands for."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def last_layer(self) -> Tensor:
        """The decoder's last weight, whose gradients balance the adversarial loss."""
        return self.decoder.conv_out.weight

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> Gaussian:
        """The distribution of the unscaled latents of pictures whose sides are multiples of
        `factor`.
        """
        moments = sliced(self._moments, pixels, self.slicing)
        mean, logvar = moments.chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(-30, 20))

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out H W"]:
        """Pictures, about in [-1, 1], from unscaled latents."""
        return sliced(self._pixels, z, self.slicing)

    def scale(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Unscaled latents to those the U-Net sees."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The inverse of `scale`."""
        return z / self.config.scaling_factor + self.config.shift_factor

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass to save memory."""
        return self.encoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.encoder.gradient_checkpointing = on
        self.decoder.gradient_checkpointing = on

    def _moments(self, pixels: Tensor) -> Tensor:
        h = self.encoder(pixels)
        return h if self.quant_conv is None else self.quant_conv(h)

    def _pixels(self, z: Tensor) -> Tensor:
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))


class Encoder(nn.Module):
    """Convolution, levels of residual blocks that halve the picture, a middle with attention."""

    def __init__(self, config: AutoencoderConfig, out_channels: int):
        super().__init__()
        self.gradient_checkpointing = False
        channels = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _Level(
                config,
                [channels[max(i - 1, 0)]] + [width] * (config.layers_per_block - 1),
                width,
                attention=config.attention[i],
                resample=Downsample(width, padding=0) if i + 1 < len(channels) else None,
            )
            for i, width in enumerate(channels)
        )
        self.mid_block = _Middle(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[-1], _EPS)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, x: Picture) -> Picture:
        """(b, 3, H, W) to (b, out_channels, h, w)."""
        h = self.conv_in(x)
        for block in (*self.down_blocks, self.mid_block):
            h = recomputed(block, self.gradient_checkpointing)(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """The encoder mirrored, with one more residual block a level."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.gradient_checkpointing = False
        channels = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = _Middle(config)
        self.up_blocks = nn.ModuleList(
            _Level(
                config,
                [channels[max(i - 1, 0)]] + [width] * config.layers_per_block,
                width,
                attention=config.attention[::-1][i],
                resample=Upsample(width) if i + 1 < len(channels) else None,
            )
            for i, width in enumerate(channels)
        )
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[-1], _EPS)
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Picture) -> Picture:
        """(b, latent_channels, h, w) to (b, 3, H, W)."""
        h = self.conv_in(z)
        for block in (self.mid_block, *self.up_blocks):
            h = recomputed(block, self.gradient_checkpointing)(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class _Level(nn.Module):
    """Residual blocks, each followed by attention where the level has it; then a change of size."""

    def __init__(
        self,
        config: AutoencoderConfig,
        inputs: list[int],
        channels: int,
        *,
        attention: bool,
        resample: nn.Module | None,
    ):
        super().__init__()
        groups = config.norm_num_groups
        self.resnets = nn.ModuleList(
            ResBlock(width, channels, groups=groups, eps=_EPS) for width in inputs
        )
        self.attentions = (
            nn.ModuleList(PictureAttention(channels, groups=groups, eps=_EPS) for _ in inputs)
            if attention
            else None
        )
        self.resampler = resample

    def forward(self, x: Picture) -> Picture:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x)
            if self.attentions is not None:
                x = self.attentions[i](x)
        return x if self.resampler is None else self.resampler(x)


class _Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest level."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        channels, groups = config.block_out_channels[-1], config.norm_num_groups
        self.resnets = nn.ModuleList(
            ResBlock(channels, channels, groups=groups, eps=_EPS) for _ in range(2)
        )
        attend = config.mid_attention
        self.attentions = (
            nn.ModuleList([PictureAttention(channels, groups=groups, eps=_EPS)]) if attend else None
        )

    def forward(self, x: Picture) -> Picture:
        x = self.resnets[0](x)
        if self.attentions is not None:
            x = self.attentions[0](x)
        return self.resnets[1](x)


def sliced(f: Callable[[Tensor], Tensor], x: Tensor, slicing: bool) -> Tensor:
    """`f(x)`, one image at a time if `slicing`, which bounds the memory that a batch takes."""
    if not slicing or len(x) == 1:
        return f(x)
    return torch.cat([f(x[i : i + 1]) for i in range(len(x))])
