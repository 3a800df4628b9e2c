"""A whole text-to-image model, tiny and random, of our own making."""

import pytest
import torch

from safelight.checkpoints.folder import Defaults, Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.unet import UNet, UNetConfig

LEVELS = 2


@pytest.fixture(scope="session")
def model() -> Folder:
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(["a red cube", "a blue ball"], vocab_size=540, length=16)
    unet = UNetConfig(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=(1,) * LEVELS,
        attention=(True, False),
        transformer_layers=(1,) * LEVELS,
        attention_heads=(4,) * LEVELS,
        only_cross_attention=(False,) * LEVELS,
        cross_attention_dim=24,
        norm_num_groups=8,
    )
    autoencoder = AutoencoderConfig(
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention=(False,) * LEVELS,
        norm_num_groups=8,
        sample_size=16,
        scaling_factor=0.7,
    )
    tower = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        eos_token_id=tokenizer.vocab_size - 1,
    )
    return Folder(
        unet=UNet(unet).eval(),
        autoencoder=Autoencoder(autoencoder).eval(),
        text_towers=(ClipText(tower).eval(),),
        tokenizers=(tokenizer,),
        scheduler=SchedulerConfig(prediction_type="v_prediction", timestep_spacing="trailing"),
        defaults=Defaults("euler", 20, 3.0, 16, 16),
    )
