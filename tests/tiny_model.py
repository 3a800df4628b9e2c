"""A whole text-to-image model of the bundled one's kind, tiny and random."""

from dataclasses import replace
from pathlib import Path

import torch

from safelight.checkpoints.folder import Defaults, Folder, write_folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.vision import UNCLIP, Noising, Vision
from safelight.conditioners.image import Normalizer, Preparation
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.clip_vision import ClipVision, ClipVisionConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.unet import UNet, UNetConfig

LENGTH = 16  # tokens
SIZE = 32  # pixels
FACTOR = 4


def tiny_folder(seed: int = 0, scheduler: SchedulerConfig | None = None) -> Folder:
    """A model of three-level U-Net, three-level autoencoder and two-layer tower."""
    torch.manual_seed(seed)
    tokenizer = ClipTokenizer.train(
        ["a red cube", "a blue ball", "two red apples"], vocab_size=560, length=LENGTH
    )
    unet = UNetConfig(
        sample_size=SIZE // FACTOR,
        block_out_channels=(32, 64),
        layers_per_block=(1, 1),
        attention=(True, True),
        transformer_layers=(1, 1),
        attention_heads=(4, 8),
        only_cross_attention=(False, False),
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    autoencoder = AutoencoderConfig(
        block_out_channels=(16, 16, 32),
        layers_per_block=1,
        attention=(False,) * 3,
        mid_attention=False,
        norm_num_groups=8,
        sample_size=SIZE,
    )
    tower = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.vocab_size - 1,
    )
    return Folder(
        unet=UNet(unet).eval(),
        autoencoder=Autoencoder(autoencoder).eval(),
        text_towers=(ClipText(tower).eval(),),
        tokenizers=(tokenizer,),
        scheduler=scheduler
        or SchedulerConfig(prediction_type="v_prediction", timestep_spacing="trailing"),
        defaults=Defaults("euler", 3, 2.0, SIZE, SIZE),
    )


def write_tiny_model(path: Path, seed: int = 0) -> Path:
    """Writes it as a folder."""
    write_folder(path, tiny_folder(seed))
    return path


def seeing_folder(seed: int = 0) -> Folder:
    """The same with an image tower, whose noised vector its U-Net is told, as Stable unCLIP's."""
    folder = tiny_folder(seed)
    tower = ClipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    told = replace(folder.unet.config, class_kind="projection", class_dim=32)
    return replace(
        folder,
        unet=UNet(told).eval(),
        pipeline_class=UNCLIP,
        vision=Vision(ClipVision(tower).eval(), Preparation(16, 16), Noising(Normalizer(16))),
    )
