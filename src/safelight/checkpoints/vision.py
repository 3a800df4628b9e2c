"""The side of a model that sees pictures: an image tower, and what stands around it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    Reading,
    Writing,
    part_config,
    read_part,
    write_part,
)
from safelight.checkpoints.scheduler_files import read_noising, write_scheduler
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.tables.clip_vision import (
    CLIP_VISION,
    NORMALIZER_CLASS,
    NORMALIZER_KEYS,
    preparation_from_transformers,
    preparation_to_transformers,
    vision_config_from_transformers,
    vision_config_to_transformers,
)
from safelight.checkpoints.tables.video import SVD_PIPELINE
from safelight.conditioners.image import Normalizer, Preparation
from safelight.config import Value, read_json
from safelight.errors import SafelightError
from safelight.models.clip_vision import ClipVision

VARIATION, UNCLIP = "StableDiffusionImageVariationPipeline", "StableUnCLIPImg2ImgPipeline"
"""Pipelines whose U-Net sees a picture's vector: as its context, and beside its time."""
SEEN_ALONE = (VARIATION, SVD_PIPELINE)
"""Pipelines that are told a picture in the place of a prompt."""
TOWER, FEATURES = "image_encoder", "feature_extractor"
NORMALIZER, NOISING = "image_normalizer", "image_noising_scheduler"
_PREPROCESSOR = "preprocessor_config.json"

USUAL_NOISING = SchedulerConfig(class_name="DDPMScheduler", beta_schedule="squaredcos_cap_v2")
"""How Stable unCLIP was published to noise the vectors of pictures."""


@dataclass(frozen=True)
class Noising:
    """How the vectors of pictures are noised."""

    normalizer: Normalizer
    scheduler: SchedulerConfig = USUAL_NOISING


@dataclass(frozen=True)
class Vision:
    """How a model sees a picture: a tower, how pictures are prepared for it, and, for unCLIP, how
    its vectors are noised.
    """

    tower: ClipVision
    preparation: Preparation
    noising: Noising | None = None


def vision_parts(pipeline_class: str) -> tuple[str, ...]:
    """The components that such a pipeline needs to see pictures."""
    if pipeline_class == UNCLIP:
        return TOWER, NORMALIZER, NOISING
    return (TOWER,) if pipeline_class in SEEN_ALONE else ()


def read_vision(path: Path, pipeline_class: str, reading: Reading) -> Vision | None:
    """The parts of a model's folder that see pictures; None for a pipeline that has none.

    Raises `SafelightError` if any is missing, broken, or does not fit the others.
    """
    if not vision_parts(pipeline_class):
        return None
    tower = read_image_tower(path / TOWER, reading)
    preparation = read_preparation(tower, path / FEATURES)
    noising = None
    if pipeline_class == UNCLIP:
        noising = Noising(
            _read_normalizer(path / NORMALIZER, reading), read_noising(path / NOISING)
        )
    return fitting(Vision(tower, preparation, noising), str(path))


def read_preparation(tower: ClipVision, *folders: Path) -> Preparation:
    """How pictures are prepared for a tower: as the first of the folders says, else as CLIP's."""
    for folder in folders:
        file = folder / _PREPROCESSOR
        if file.is_file():
            return preparation_from_transformers(read_json(file), str(file))
    side = tower.config.image_size
    return Preparation(shortest=side, side=side)


def fitting(vision: Vision, source: str) -> Vision:
    """The parts; `SafelightError` if they are not of one model."""
    config, side = vision.tower.config, vision.preparation.side
    if side != config.image_size:
        raise SafelightError(
            f"{source}: pictures are cut to {side} pixels, the image tower takes "
            f"{config.image_size}."
        )
    if vision.noising is not None:
        width = vision.noising.normalizer.mean.shape[1]
        if width != config.projection_dim:
            raise SafelightError(
                f"{source}: the image tower gives vectors of width {config.projection_dim}, the "
                f"normalizer takes {width}."
            )
    return vision


def write_vision(path: Path, vision: Vision, writing: Writing) -> None:
    """Writes the parts that see pictures as diffusers' pipelines open them."""
    _write_image_tower(path / TOWER, vision.tower, writing)
    (path / FEATURES).mkdir()
    values = preparation_to_transformers(vision.preparation)
    write_text(path / FEATURES / _PREPROCESSOR, json.dumps(values, indent=2) + "\n")
    if vision.noising is not None:
        _write_normalizer(path / NORMALIZER, vision.noising.normalizer, writing)
        write_scheduler(path / NOISING, vision.noising.scheduler)


def vision_index(vision: Vision) -> Mapping[str, Value]:
    """The entries of model_index.json for these parts."""
    index: dict[str, Value] = {
        TOWER: ["transformers", "CLIPVisionModelWithProjection"],
        FEATURES: ["transformers", "CLIPImageProcessor"],
    }
    if vision.noising is not None:
        index[NORMALIZER] = ["stable_diffusion", NORMALIZER_CLASS]
        index[NOISING] = ["diffusers", vision.noising.scheduler.class_name]
    return index


def read_image_tower(folder: Path, reading: Reading) -> ClipVision:
    """The image tower in `folder`, as transformers' `CLIPVisionModelWithProjection`."""
    config = vision_config_from_transformers(part_config(folder), str(folder / "config.json"))
    return read_part(
        folder,
        TRANSFORMERS_STEM,
        lambda: ClipVision(config),
        CLIP_VISION,
        reading,
        (config.num_hidden_layers,),
    )


def _read_normalizer(folder: Path, reading: Reading) -> Normalizer:
    """The mean and spread of an image tower's vectors in `folder`."""
    width = part_config(folder, NORMALIZER_CLASS).get("embedding_dim", 768)
    if not isinstance(width, int) or not 1 <= width <= 65536:
        raise SafelightError(f"{folder / 'config.json'}: no width for embedding_dim.")
    return read_part(
        folder, DIFFUSERS_STEM, lambda: Normalizer(width), NORMALIZER_KEYS, reading, ()
    )


def _write_image_tower(folder: Path, tower: ClipVision, writing: Writing) -> None:
    """Writes an image tower as transformers' `CLIPVisionModelWithProjection`."""
    values = vision_config_to_transformers(tower.config)
    write_part(folder, TRANSFORMERS_STEM, tower, values, CLIP_VISION, writing)


def _write_normalizer(folder: Path, normalizer: Normalizer, writing: Writing) -> None:
    """Writes a mean and spread as diffusers' `StableUnCLIPImageNormalizer`."""
    width = normalizer.mean.shape[1]
    values: dict[str, Value] = {"_class_name": NORMALIZER_CLASS, "embedding_dim": width}
    write_part(folder, DIFFUSERS_STEM, normalizer, values, NORMALIZER_KEYS, writing)
