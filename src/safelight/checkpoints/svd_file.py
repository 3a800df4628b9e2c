"""Stable Video Diffusion in one file, as Stability published it: read."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from safelight.checkpoints.components import check_layers, filled
from safelight.checkpoints.families import SVD, UNET, VAE
from safelight.checkpoints.files import State
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.rules import to_ours
from safelight.checkpoints.tables import clip_vision, compvis, shapes
from safelight.checkpoints.tables.any_unet import layers_of
from safelight.checkpoints.tables.autoencoder import AUTOENCODER
from safelight.checkpoints.tables.compvis_video import (
    temporal_autoencoder_table,
    video_unet_table,
)
from safelight.checkpoints.tables.video import SVD_TEMPORAL, VIDEO_UNET
from safelight.checkpoints.vision import Vision, fitting
from safelight.conditioners.image import Preparation
from safelight.errors import SafelightError
from safelight.models.clip_vision import ClipVision
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.video import VideoUNet

_FRAMES = 14  # of the first; that of 25 frames, XT, has the same tensors
_NUMBERS = len(SVD_TEMPORAL.numbers)


def read_svd(
    parts: Mapping[str, State], source: str, dtype: torch.dtype, device: torch.device | str
) -> Folder:
    """The model of a file's parts, by their prefixes and without them.

    Of what leaves no trace, clips have 14 frames, as of the first model published; the rest is as
    all were published. Raises `SafelightError` if anything is missing, broken, or does not fit.
    """
    unet = _read_unet(parts[UNET], source, dtype)
    autoencoder = _read_autoencoder(parts[VAE], source, dtype)
    return Folder(
        unet=unet.to(device),
        autoencoder=autoencoder.to(device),
        text_towers=(),
        tokenizers=(),
        scheduler=SVD.scheduler,
        pipeline_class=SVD.pipeline,
        vision=_read_vision(parts[SVD.vision], source, dtype, device),
    )


def _read_unet(state: State, source: str, dtype: torch.dtype) -> VideoUNet:
    shape = shapes.unet_config_of(state, source)
    if shape.class_dim is not None:  # a context of that width is that of unCLIP, too
        shape = replace(shape, added_dim=shape.class_dim, class_dim=None, class_kind="embedding")
    if shape.added_dim is None or shape.added_dim % _NUMBERS:
        raise SafelightError(
            f"{source} holds a video U-Net that is told {shape.added_dim or 'no'} features of a "
            f"clip; expected those of {_NUMBERS} numbers."
        )
    shape = replace(
        shape,
        sample_size=SVD.latent_size,
        added_time_dim=shape.added_dim // _NUMBERS,
        upcast_attention=False,
    )
    check_layers(layers_of(shape), state, source)
    named = to_ours(video_unet_table(shape), state, source)
    temporal = replace(SVD_TEMPORAL, num_frames=_FRAMES)
    return filled(lambda: VideoUNet(shape, temporal), named, VIDEO_UNET, source=source, dtype=dtype)


def _read_autoencoder(state: State, source: str, dtype: torch.dtype) -> TemporalAutoencoder:
    config = shapes.autoencoder_config_of(state, SVD.latent_scale, source)
    named = to_ours(temporal_autoencoder_table(len(config.block_out_channels)), state, source)
    return filled(
        lambda: TemporalAutoencoder(config), named, AUTOENCODER, source=source, dtype=dtype
    )


def _read_vision(
    state: State, source: str, dtype: torch.dtype, device: torch.device | str
) -> Vision:
    named = to_ours(compvis.OPEN_CLIP_VISION, state, source)
    config = shapes.vision_config_of(named, source)
    tower = filled(
        lambda: ClipVision(config), named, clip_vision.CLIP_VISION, source=source, dtype=dtype
    )
    side = config.image_size
    return fitting(Vision(tower.to(device), Preparation(side, side)), source)
