"""The autoencoder of Stable Video Diffusion: pictures in, clips out.

Its encoder is that of a KL autoencoder; its decoder looks along the frames. Source: Blattmann et
al. 2023 (arXiv 2304.08818), section 3.1.1; parameter names as in diffusers'
`AutoencoderKLTemporalDecoder`.
"""

from collections.abc import Iterator

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.autoencoder import Autoencoder, AutoencoderConfig, Decoder
from safelight.nn.blocks import Picture, ResBlock
from safelight.nn.temporal import FrameConv, SpatioTemporalResBlock, TimeMixer

_TEMPORAL_EPS = 1e-5


class TemporalAutoencoder(Autoencoder):
    """A KL autoencoder that decodes the frames of one clip together.

    Latents and pictures are as the `Autoencoder`'s.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__(config)
        self.decoder = TemporalDecoder(config)

    def decode(self, z: Float[Tensor, "f c h w"]) -> Float[Tensor, "f c_out H W"]:
        """The frames of one clip, about in [-1, 1], from unscaled latents; always all at once, so
        that a few at a time see no others.
        """
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))


class TemporalDecoder(Decoder):
    """A decoder whose every residual block goes on along the frames, and so does the last layer.

    All rows are frames of one clip.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__(config)
        for resnets in _residuals(self):
            for i, resnet in enumerate(resnets):
                assert isinstance(resnet, ResBlock)
                resnets[i] = SpatioTemporalResBlock(
                    resnet, TimeMixer(0.0, switched=True), emb_dim=None, eps=_TEMPORAL_EPS
                )
        self.time_conv_out = FrameConv(config.out_channels, config.out_channels)

    def forward(self, z: Picture) -> Picture:
        """(f, latent_channels, h, w) to (f, 3, H, W)."""
        frames = super().forward(z)
        clip = rearrange(frames, "f c h w -> 1 c f (h w)")
        return rearrange(self.time_conv_out(clip), "1 c f (h w) -> f c h w", h=frames.shape[-2])


def _residuals(decoder: Decoder) -> Iterator[nn.ModuleList]:
    for block in (decoder.mid_block, *decoder.up_blocks):
        resnets = block.resnets
        assert isinstance(resnets, nn.ModuleList)
        yield resnets
