"""The model that a ControlNet is trained to steer, and what it is told of a caption."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from safelight.app.running import open_whole
from safelight.checkpoints.folder import Folder
from safelight.conditioners.numbers import with_numbers
from safelight.data.config import DataConfig
from safelight.errors import SafelightError
from safelight.pipelines.kind import kind_of
from safelight.pipelines.sampling import text_conditioner
from safelight.pipelines.telling import numbers_of
from safelight.train.latent_task import Conditioner
from safelight.types import Conditioning


def steerable(path: Path) -> Folder:
    """The model at `path`, whose U-Net sees latents, a prompt, and perhaps SDXL's sizes.

    Raises `SafelightError` for one that takes more than these.
    """
    model = open_whole(path)
    kind = kind_of(model, str(path))
    if kind.beside != "nothing" or kind.sees != "nothing" or kind.guided or not model.text_towers:
        raise SafelightError(
            f"{path} is a {model.pipeline_class}; a ControlNet can be trained for a model that "
            "makes pictures from a prompt alone."
        )
    return model


def null_of(model: Folder, size: int) -> Conditioning:
    """What guidance steers away from when the model makes pictures of this size, in one
    row: zeros or the empty prompt, as the model asks, with the numbers of what is to be avoided.
    """
    kind = kind_of(model, "the base")
    null = text_conditioner(model, kind).null(1)
    if kind.numbers == "none":
        return null
    _, avoided = numbers_of(kind, size, size)
    rows = torch.tensor([avoided], device=next(model.unet.parameters()).device)
    return with_numbers(null, rows, model.unet.config)


def captions_to_conditioning(model: Folder, config: DataConfig) -> Conditioner:
    """What the model is told of captions, and that pictures are whole and of the training's size.

    Raises `SafelightError` where sizes are told, and pictures are of many.
    """
    kind = kind_of(model, "the base")
    text = replace(text_conditioner(model, kind), zero_null=False)  # a dropped caption is empty
    if kind.numbers == "none":
        return text
    if config.buckets:
        raise SafelightError(
            "This model is told the size of its pictures, which with data.buckets are many; leave "
            "buckets out."
        )
    told, _ = numbers_of(kind, config.size, config.size)

    def condition(captions: Sequence[str]) -> Conditioning:
        device = next(model.unet.parameters()).device
        rows = torch.tensor([told] * len(captions), device=device)
        return with_numbers(text(captions), rows, model.unet.config)

    return condition
