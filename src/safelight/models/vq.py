"""The vector-quantised autoencoder: latents are rows of a learned codebook.

Source: van den Oord et al. 2017; Esser et al. 2021; `VQModel` of diffusers for the layout.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from safelight.models.autoencoder import AutoencoderConfig, Decoder, Encoder, sliced


@dataclass(frozen=True)
class VQConfig:
    """The shape of a VQ autoencoder. Tuples hold one entry a level, from the finest to the
    coarsest.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 3
    codebook_size: int = 8192
    codebook_dim: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2
    attention: tuple[bool, ...] = (False, False, False)
    mid_attention: bool = True
    norm_num_groups: int = 32
    sample_size: int | None = 256
    scaling_factor: float = 1.0
    beta: float = 0.25  # weight of the commitment loss

    def __post_init__(self):
        self._coders()  # which checks what both have
        for name in ("codebook_size", "codebook_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be 1 or more, got {getattr(self, name)}.")

    def _coders(self) -> AutoencoderConfig:
        return AutoencoderConfig(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            latent_channels=self.latent_channels,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.layers_per_block,
            attention=self.attention,
            mid_attention=self.mid_attention,
            norm_num_groups=self.norm_num_groups,
            scaling_factor=self.scaling_factor,
        )


@dataclass(frozen=True)
class Quantized:
    """Quantised latents with straight-through gradients, the codebook loss, and the rows chosen."""

    z: Float[Tensor, "b c h w"]
    loss: Float[Tensor, ""]
    indices: Int64[Tensor, "b h w"]


class VQAutoencoder(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] to latents (b, codebook_dim, h/f, w/f) and back."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        self.slicing = False
        coders = config._coders()  # pyright: ignore[reportPrivateUsage]
        self.encoder = Encoder(coders, out_channels=config.latent_channels)
        self.decoder = Decoder(coders)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.latent_channels, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)
        nn.init.uniform_(self.codebook.weight, -1 / config.codebook_size, 1 / config.codebook_size)

    @property
    def factor(self) -> int:
        """How many pixels, in height and in width, one latent stands for."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def last_layer(self) -> Tensor:
        """The decoder's last weight, whose gradients balance the adversarial loss."""
        return self.decoder.conv_out.weight

    def encode(self, pixels: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Latents before quantisation, which is where diffusion models of this family work."""
        return sliced(lambda x: self.quant_conv(self.encoder(x)), pixels, self.slicing)

    def quantize(self, z: Float[Tensor, "b d h w"]) -> Quantized:
        """Each latent vector becomes its nearest codebook row (van den Oord et al. 2017, eqs. 2,
        3).
        """
        flat = rearrange(z, "b d h w -> (b h w) d")
        indices = torch.cdist(flat, self.codebook.weight).argmin(dim=1)
        rows = rearrange(self.codebook(indices), "(b h w) d -> b d h w", b=z.shape[0], h=z.shape[2])
        codebook_loss = (rows - z.detach()).square().mean()
        commitment = (rows.detach() - z).square().mean()
        return Quantized(
            z=z + (rows - z).detach(),
            loss=codebook_loss + self.config.beta * commitment,
            indices=rearrange(indices, "(b h w) -> b h w", b=z.shape[0], h=z.shape[2]),
        )

    def decode(
        self, z: Float[Tensor, "b d h w"], *, quantize: bool = True
    ) -> Float[Tensor, "b c_out H W"]:
        """Pictures, about in [-1, 1], from unscaled latents, which are quantised first if asked."""

        def pixels(z: Tensor) -> Tensor:
            z = self.quantize(z).z if quantize else z
            return self.decoder(self.post_quant_conv(z))

        return sliced(pixels, z, self.slicing)

    def scale(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Unscaled latents to those the U-Net sees."""
        return z * self.config.scaling_factor

    def unscale(self, z: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """The inverse of `scale`."""
        return z / self.config.scaling_factor

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass to save memory."""
        return self.encoder.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.encoder.gradient_checkpointing = on
        self.decoder.gradient_checkpointing = on
