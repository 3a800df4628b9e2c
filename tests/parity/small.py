"""Parts of Stable Diffusion in diffusers and transformers, small and of random weights."""

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTokenizer

from safelight.models.tokenizer import ClipTokenizer

from .conftest import shaken

LENGTH = 24  # tokens
WIDTH = 32  # of a text tower
PROJECTION = 24
TIME = 8  # features of each number beside the pooled text
BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def small_words(folder: Path, texts: list[str], vocab_size: int = 540) -> CLIPTokenizer:
    """A tokenizer that learned from a few texts; it is written into the folder."""
    ClipTokenizer.train(texts, vocab_size=vocab_size, length=LENGTH).save(folder)
    return CLIPTokenizer.from_pretrained(folder)


def small_tower(cls, size: int, width: int = WIDTH):
    """A text tower of a class of transformers, for a vocabulary of that size."""
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        projection_dim=PROJECTION,
    )
    return shaken(cls(config))


def small_vae(scaling_factor: float = 0.4) -> AutoencoderKL:
    """A KL autoencoder that halves a picture's sides."""
    return shaken(
        AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            sample_size=32,
            scaling_factor=scaling_factor,
        )
    )


def small_unet(in_channels: int = 4, context: int = WIDTH, **options) -> UNet2DConditionModel:
    """A U-Net of two levels, of which the finer attends."""
    return shaken(
        UNet2DConditionModel(
            sample_size=16,
            in_channels=in_channels,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=context,
            **{"attention_head_dim": 4, **options},
        )
    )


def small_xl_unet(
    in_channels: int = 4, *, context: int = 2 * WIDTH, numbers: int = 6
) -> UNet2DConditionModel:
    """The same with so many numbers beside the pooled text."""
    return small_unet(
        in_channels,
        context,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME,
        projection_class_embeddings_input_dim=PROJECTION + numbers * TIME,
    )
