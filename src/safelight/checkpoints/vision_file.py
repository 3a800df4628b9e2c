"""The side of a model that sees pictures, in a single file: read, and written."""

from collections.abc import Mapping

import torch

from safelight.checkpoints.components import check_layers, filled
from safelight.checkpoints.families import SPREAD
from safelight.checkpoints.files import State
from safelight.checkpoints.rules import from_ours, to_ours
from safelight.checkpoints.scheduler_files import scheduler_from_diffusers, scheduler_to_diffusers
from safelight.checkpoints.tables import clip_vision, compvis, shapes
from safelight.checkpoints.vision import Noising, Vision, fitting
from safelight.conditioners.image import Normalizer, Preparation
from safelight.config import Value
from safelight.models.clip_vision import ClipVision

TOWER, PREPARATION, NOISING = "tower", "preparation", "noising"
"""The entries of `vision_header`."""


def read_vision_parts(
    tower: State,
    spread: State,
    header: Mapping[str, Mapping[str, Value]],
    *,
    source: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Vision:
    """Reads an image tower and the mean and spread of its vectors, without their prefixes.

    Where the file has no `spread` it is 0 and 1, as Stable unCLIP was published for OpenCLIP-H;
    that for CLIP-L keeps its own in another file, which is left out as ComfyUI does. Raises
    `SafelightError` if anything is missing, broken, or does not fit.
    """
    named = to_ours(compvis.OPEN_CLIP_VISION, tower, source)
    if header:
        config = clip_vision.vision_config_from_transformers(header[TOWER], source)
        check_layers((config.num_hidden_layers,), tower, source)
        preparation = clip_vision.preparation_from_transformers(header[PREPARATION], source)
        noising = scheduler_from_diffusers(header[NOISING], source)
    else:
        config = shapes.vision_config_of(named, source)
        preparation = Preparation(shortest=config.image_size, side=config.image_size)
        noising = None
    table = clip_vision.CLIP_VISION
    network = filled(lambda: ClipVision(config), named, table, source=source, dtype=dtype)
    width = config.projection_dim
    state = spread or {"mean": torch.zeros(1, width), "std": torch.ones(1, width)}
    normalizer = filled(
        lambda: Normalizer(width), state, clip_vision.NORMALIZER_KEYS, source=source, dtype=dtype
    )
    normalizer = normalizer.to(device)
    noised = Noising(normalizer) if noising is None else Noising(normalizer, noising)
    return fitting(Vision(network.to(device), preparation, noised), source)


def vision_state(vision: Vision, prefix: str) -> State:
    """The tensors of these parts in the names of a single file."""
    tower = from_ours(compvis.OPEN_CLIP_VISION, vision.tower.state_dict())
    state = {prefix + name: tensor for name, tensor in tower.items()}
    if vision.noising is not None:
        spread = vision.noising.normalizer.state_dict()
        state |= {SPREAD + name: tensor for name, tensor in spread.items()}
    return state


def vision_header(vision: Vision) -> dict[str, Value]:
    """What the tensors do not show."""
    assert vision.noising is not None  # no other model is written as one file
    return {
        TOWER: clip_vision.vision_config_to_transformers(vision.tower.config),
        PREPARATION: clip_vision.preparation_to_transformers(vision.preparation),
        NOISING: scheduler_to_diffusers(vision.noising.scheduler),
    }
