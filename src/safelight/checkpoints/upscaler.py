"""CompVis' super-resolution model: a `LDMSuperResolutionPipeline` folder, or one file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from safelight.checkpoints.components import (
    Reading,
    read_autoencoder,
    read_unet,
    weights_files,
)
from safelight.checkpoints.detect import describe_folder
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import INDEX, SINGLE
from safelight.checkpoints.scheduler_files import read_scheduler
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.upscaler_file import PUBLISHED, is_upscaler_file, read_upscaler_file
from safelight.config import read_json
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.models.unet import UNet

CLASS = "LDMSuperResolutionPipeline"
_COLOURS = 3


@dataclass(frozen=True)
class Upscaler:
    """A model that enlarges pictures: its U-Net sees the small picture beside the latents, which
    are as large as it. `files` are the weights that each was read from.
    """

    unet: UNet
    autoencoder: AnyAutoencoder
    scheduler: SchedulerConfig
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each network's weights files."""
        return {name: sha256_of_files(paths) for name, paths in self.files.items()}


def is_upscaler(path: Path) -> bool:
    """Whether a folder says that it is such a model, or a file is one."""
    if path.is_file():
        return is_upscaler_file(path)
    return (path / INDEX).is_file() and read_json(path / INDEX).get("_class_name") == CLASS


def read_upscaler(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Upscaler:
    """Reads such a model; `SafelightError`, one line, if it is of another kind or broken."""
    if not is_upscaler(path):
        raise SafelightError(f"{path} is {describe_folder(path)}; expected a {CLASS} folder.")
    if path.is_file():
        unet, autoencoder = read_upscaler_file(path, dtype=dtype, device=device)
        return _fitting(Upscaler(unet, autoencoder, PUBLISHED, {SINGLE: (path,)}), path)
    reading = Reading(dtype, device)
    upscaler = Upscaler(
        unet=read_unet(path / "unet", reading),
        autoencoder=read_autoencoder(path / "vqvae", reading),
        scheduler=read_scheduler(path / "scheduler"),
        files={name: weights_files(path / name) for name in ("unet", "vqvae")},
    )
    return _fitting(upscaler, path)


def _fitting(upscaler: Upscaler, path: Path) -> Upscaler:
    config, latents = upscaler.unet.config, latent_channels(upscaler.autoencoder)
    if config.out_channels != latents or config.in_channels != latents + _COLOURS:
        raise SafelightError(
            f"{path}: the U-Net takes {config.in_channels} channels and makes "
            f"{config.out_channels}; expected {latents + _COLOURS} and {latents}, for the "
            "autoencoder's latents beside a picture."
        )
    return upscaler
