"""Whole models of clips, tiny and random."""

from dataclasses import replace
from pathlib import Path

import torch

from safelight.checkpoints.folder import Defaults, Folder, write_folder
from safelight.checkpoints.tables.video import OWN_PIPELINE
from safelight.models.video import TemporalConfig, inflate
from tiny_model import tiny_folder

FRAMES = 4


def video_folder(seed: int = 0) -> Folder:
    """A model that is told a prompt, known frames, their number a second and how much moves."""
    folder = tiny_folder(seed)
    temporal = TemporalConfig(num_frames=FRAMES, given="placed", numbers=("fps", "motion"))
    unet = inflate(folder.unet, temporal, number_dim=8)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    defaults = Defaults("euler", 2, 2.0, 16, 16, fps=5.0)
    return replace(folder, unet=unet, pipeline_class=OWN_PIPELINE, defaults=defaults)


def write_video_model(path: Path, seed: int = 0) -> Path:
    """Writes it as a folder."""
    write_folder(path, video_folder(seed))
    return path
