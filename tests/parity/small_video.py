"""Parts of Stable Video Diffusion in diffusers and transformers, small and of random weights."""

from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from .conftest import shaken

NUMBER = 8  # features of each number
PROJECTION = 24  # width of the picture's vector


def svd_unet(attends=(True, False)) -> UNetSpatioTemporalConditionModel:
    """A video U-Net of two levels."""
    down = {True: "CrossAttnDownBlockSpatioTemporal", False: "DownBlockSpatioTemporal"}
    up = {True: "CrossAttnUpBlockSpatioTemporal", False: "UpBlockSpatioTemporal"}
    return shaken(
        UNetSpatioTemporalConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=tuple(down[attend] for attend in attends),
            up_block_types=tuple(up[attend] for attend in reversed(attends)),
            cross_attention_dim=PROJECTION,
            addition_time_embed_dim=NUMBER,
            projection_class_embeddings_input_dim=3 * NUMBER,
            num_attention_heads=(2, 4),
            num_frames=3,
        )
    )


def temporal_vae() -> AutoencoderKLTemporalDecoder:
    """An autoencoder that halves a picture's sides."""
    return shaken(
        AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            layers_per_block=2,
            sample_size=32,
            scaling_factor=0.4,
        )
    )
