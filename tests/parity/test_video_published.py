"""The published configurations of video models, built at full size without values."""

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    MotionAdapter,
    UNetSpatioTemporalConditionModel,
)

from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.tables.any_unet import unet_plan
from safelight.checkpoints.tables.autoencoder import AUTOENCODER, temporal_config_from_diffusers
from safelight.checkpoints.tables.motion import MOTION, motion_config_from_diffusers
from safelight.models.motion import MotionAdapter as OurAdapter
from safelight.models.temporal_autoencoder import TemporalAutoencoder

SVD_XT = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "_diffusers_version": "0.24.0.dev0",
    "_name_or_path": "svd-xt",
    "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * 3, "DownBlockSpatioTemporal"],
    "in_channels": 8,
    "layers_per_block": 2,
    "num_attention_heads": [5, 10, 20, 20],
    "num_frames": 25,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * 3],
}
SVD_VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "_diffusers_version": "0.24.0.dev0",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
ANIMATEDIFF = {
    "_class_name": "MotionAdapter",
    "_diffusers_version": "0.22.0.dev0",
    "block_out_channels": [320, 640, 1280, 1280],
    "motion_layers_per_block": 2,
    "motion_max_seq_length": 32,
    "motion_mid_block_layers_per_block": 1,
    "motion_norm_num_groups": 32,
    "motion_num_attention_heads": 8,
    "use_motion_mid_block": True,
}


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_svds_unet_has_diffusers_names_and_shapes():
    plan = unet_plan(SVD_XT, "unet/config.json")
    with torch.device("meta"):
        ours = plan.build()
        theirs = UNetSpatioTemporalConditionModel.from_config(SVD_XT)
    assert shapes(from_ours(plan.table, ours.state_dict())) == shapes(theirs.state_dict())
    assert sum(parameter.numel() for parameter in ours.parameters()) > 1.5e9


def test_svds_autoencoder_does_too():
    with torch.device("meta"):
        ours = TemporalAutoencoder(temporal_config_from_diffusers(SVD_VAE))
        theirs = AutoencoderKLTemporalDecoder.from_config(SVD_VAE)
    assert shapes(from_ours(AUTOENCODER, ours.state_dict())) == shapes(theirs.state_dict())


def test_animatediffs_modules_do_too():
    config = motion_config_from_diffusers(ANIMATEDIFF)
    with torch.device("meta"):
        ours, theirs = OurAdapter(config), MotionAdapter.from_config(ANIMATEDIFF)
    wanted = {key: value for key, value in theirs.state_dict().items() if "pos_embed" not in key}
    assert shapes(from_ours(MOTION, ours.state_dict())) == shapes(wanted)
