"""The tiny autoencoder: a distilled stand-in for a KL autoencoder, fast enough for previews.

Source: Ollin Boer Bohan's TAESD (github.com/madebyollin/taesd), which publishes no paper; parameter
names as in diffusers' `AutoencoderTiny`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.errors import SafelightError
from safelight.models.autoencoder import sliced
from safelight.nn.blocks import Picture

_BOUND = 3.0  # beyond which the decoder's latents are pressed


@dataclass(frozen=True)
class TinyConfig:
    """The shape of a tiny autoencoder.

    `encoder_blocks` count the residual blocks of each level from the finest to the coarsest,
    `decoder_blocks` from the coarsest to the finest. No `encoder_blocks` means no encoder, as
    previews need none. Latents are those of the U-Net itself, so that the scale is 1 in all
    published ones. Raises `ValueError` if its parts do not fit each other.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    encoder_width: int = 64
    decoder_width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self):
        for name in (
            "in_channels",
            "out_channels",
            "latent_channels",
            "encoder_width",
            "decoder_width",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be 1 or more, got {getattr(self, name)}.")
        levels = len(self.decoder_blocks)
        if not levels or len(self.encoder_blocks) not in (0, levels):
            raise ValueError(
                f"{len(self.encoder_blocks)} levels of encoder_blocks do not go with {levels} of "
                "decoder_blocks; give one or more levels, equally many."
            )
        if min(*self.encoder_blocks, *self.decoder_blocks, 0) < 0:
            raise ValueError("A level has less than no residual blocks.")
        if self.scaling_factor == 0:
            raise ValueError("scaling_factor should not be 0, which would erase every latent.")


class TinyAutoencoder(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] to latents (b, latent_channels, h/factor, w/factor) and
    back.
    """

    def __init__(self, config: TinyConfig):
        super().__init__()
        self.config = config
        self.slicing = False
        self.encoder = _Encoder(config) if config.encoder_blocks else None
        self.decoder = _Decoder(config)

    @property
    def factor(self) -> int:
        """How many pixels, in height and in width, one latent stands for."""
        return 2 ** (len(self.config.decoder_blocks) - 1)

    @property
    def last_layer(self) -> Tensor:
        """The weight that the decoder's output comes of."""
        return self.decoder.last.weight

    def encode(self, pixels: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Latents of pictures whose sides are multiples of `factor`.

        Raises `SafelightError` if there is no encoder.
        """
        if self.encoder is None:
            raise SafelightError(
                "This tiny autoencoder is a decoder alone and takes no pictures in; give one that "
                "has its encoder too."
            )
        return sliced(self.encoder, pixels, self.slicing)

    def decode(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c_out H W"]:
        """Pictures, about in [-1, 1], from unscaled latents."""
        return sliced(self.decoder, z, self.slicing)

    def scale(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Unscaled latents to those the U-Net sees."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """The inverse of `scale`."""
        return z / self.config.scaling_factor + self.config.shift_factor


class _Encoder(nn.Module):
    """A convolution, then levels of residual blocks, each but the first after a halving."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        width = config.encoder_width
        layers: list[nn.Module] = []
        for level, blocks in enumerate(config.encoder_blocks):
            layers.append(
                nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
                if level
                else nn.Conv2d(config.in_channels, width, 3, padding=1)
            )
            layers += [_Block(width) for _ in range(blocks)]
        layers.append(nn.Conv2d(width, config.latent_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Picture) -> Picture:
        """Pixels in [-1, 1], which the layers see in [0, 1]."""
        return self.layers((x + 1) / 2)


class _Decoder(nn.Module):
    """A convolution, then levels of residual blocks, each but the last before a doubling."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        width = config.decoder_width
        layers: list[nn.Module] = [
            nn.Conv2d(config.latent_channels, width, 3, padding=1),
            nn.ReLU(),
        ]
        for level, blocks in enumerate(config.decoder_blocks, start=1):
            layers += [_Block(width) for _ in range(blocks)]
            if level < len(config.decoder_blocks):
                layers.append(nn.Upsample(scale_factor=2))
                layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
        last = nn.Conv2d(width, config.out_channels, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)

    @property
    def last(self) -> nn.Conv2d:
        """The layer that gives pixels."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, z: Picture) -> Picture:
        """Latents to pixels in [-1, 1], which the layers make in [0, 1]."""
        return self.layers(torch.tanh(z / _BOUND) * _BOUND) * 2 - 1


class _Block(nn.Module):
    """Three convolutions with ReLU between, a skip, and ReLU."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Picture) -> Picture:
        return F.relu(self.conv(x) + x)
