"""A whole model as diffusers lays it out: read from a folder, and written to one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from safelight.checkpoints.atomic import replacing_folder, restore_folders, write_text
from safelight.checkpoints.components import (
    MAX_SHARD_BYTES,
    Reading,
    Writing,
    read_autoencoder,
    read_bert,
    read_text_tower,
    read_tokenizer,
    read_unet,
    read_wordpiece,
    weights_files,
    write_autoencoder,
    write_text_tower,
    write_unet,
)
from safelight.checkpoints.conditions import (
    LAYOUT,
    NOTHING_BESIDE,
    Beside,
    read_beside,
    write_beside,
)
from safelight.checkpoints.detect import describe_folder
from safelight.checkpoints.families import BERT
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.scheduler_files import read_noising, read_scheduler, write_scheduler
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.shift import without_shift
from safelight.checkpoints.tables.any_unet import unet_class
from safelight.checkpoints.tables.autoencoder import TEMPORAL
from safelight.checkpoints.tables.clip import clip_class_name
from safelight.checkpoints.tables.configs import DIFFUSERS_VERSION
from safelight.checkpoints.tables.video import OWN
from safelight.checkpoints.vision import (
    FEATURES,
    NORMALIZER,
    SEEN_ALONE,
    TOWER,
    VARIATION,
    Vision,
    read_vision,
    vision_index,
    vision_parts,
    write_vision,
)
from safelight.config import Value, from_dict, read_json, to_dict
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.models.any_text import AnyTextTower, AnyTokenizer
from safelight.models.autoencoder import Autoencoder
from safelight.models.bert import BertText
from safelight.models.classes import ClassEmbedder, ClassReader
from safelight.models.clip import ClipText
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.tiny import TinyAutoencoder
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder

INDEX, DEFAULTS = "model_index.json", "safelight.json"
SINGLE = "model"
"""The name in `Folder.files` of the one file that holds a whole model."""
LORA = "lora"
"""The name there of the LoRAs that came into the weights as these were read."""


_TEXT = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
_AMENDING = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
)
"""Pipelines that override parts of their scheduler's configuration."""
_AUTOENCODERS: Mapping[type, str] = {
    Autoencoder: "AutoencoderKL",
    TemporalAutoencoder: TEMPORAL,
    VQAutoencoder: "VQModel",
    TinyAutoencoder: "AutoencoderTiny",
}
_UNUSED = {"safety_checker", FEATURES, TOWER, "watermarker", "depth_estimator"}
_LOW_RESOLUTION = "low_res_scheduler"
_UPSCALER = "StableDiffusionUpscalePipeline"


LOW_RESOLUTION = SchedulerConfig(
    class_name="DDPMScheduler", beta_start=0.0001, beta_end=0.02, steps_offset=0
)
"""How the small picture is noised that Stable Diffusion's x4 upscaler sees."""


@dataclass(frozen=True)
class Defaults:
    """How a model is best used where the user does not say; None where it does not matter."""

    sampler: str | None = None
    steps: int | None = None
    scale: float | None = None  # of classifier-free guidance
    width: int | None = None  # pixels
    height: int | None = None
    fps: float | None = None  # frames a second, and how much moves, of a clip
    motion: float | None = None
    control_mode: str | None = None  # of its ControlNets


BERT_DEFAULTS = Defaults(scale=5.0)  # as in CompVis' own txt2img.py


@dataclass(frozen=True)
class Folder:
    """A text-to-image model: its networks, its text side, its scheduler, and how it is best used.

    `text_towers` and `tokenizers` go in pairs: one for SD 1.x and 2.x and for the XL refiner, two
    for XL, none for a model that is told a picture alone. `vision` is how a model sees a picture
    that it is told of, `beside` what else it is told. `settings` are the plain values in
    model_index.json, such as XL's `force_zeros_for_empty_prompt`. `low_resolution` is how an
    upscaler's small picture is noised. `files` are the weights that each component was read from.
    `swapped` is where the autoencoder came from, if it is not the model's own; `upon` the folder
    whose LoRA is in the weights, if the model stands on another.
    """

    unet: UNet
    autoencoder: AnyAutoencoder
    text_towers: tuple[AnyTextTower, ...]
    tokenizers: tuple[AnyTokenizer, ...]
    scheduler: SchedulerConfig
    pipeline_class: str = "StableDiffusionPipeline"
    defaults: Defaults = Defaults()
    settings: Mapping[str, Value] = field(default_factory=dict[str, Value])
    low_resolution: SchedulerConfig = LOW_RESOLUTION
    vision: Vision | None = None
    beside: Beside = NOTHING_BESIDE
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])
    swapped: Path | None = None
    upon: Path | None = None

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each component's weights files; empty for a model made in memory."""
        return {name: sha256_of_files(paths) for name, paths in self.files.items()}


def read_folder(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    device: torch.device | str = "cpu",
) -> Folder:
    """Reads a text-to-image model of Stable Diffusion's family from a diffusers folder.

    `variant` (such as "fp16") takes those files; None the plain ones, or the only variant there is.
    The networks are in evaluation mode, their weights in `dtype` on `device`.

    Raises `SafelightError`, one line, if anything is missing, broken, or of another family.
    """
    if not path.exists() and path.absolute().parent.is_dir():
        restore_folders(path.absolute().parent)  # a killed process may have moved it aside
    index = _read_index(path)
    reading = Reading(dtype, device, variant)
    components = _components(path, index)
    pipeline_class = str(index["_class_name"])
    xl = "text_encoder_2" in components
    pairs = [(tower, words) for tower, words in _texts(pipeline_class) if tower in components]
    vae = autoencoder_name(pipeline_class)
    defaults = path / DEFAULTS
    beside = read_beside(path, reading)
    towers = tuple(
        read_bert(path / tower, reading)
        if pipeline_class == BERT
        else read_text_tower(path / tower, reading, skip=int(xl), final_norm=not xl)
        for tower, _ in pairs
    )
    folder = Folder(
        unet=read_unet(path / "unet", reading),
        autoencoder=read_autoencoder(path / vae, reading),
        text_towers=towers,
        tokenizers=tuple(
            read_wordpiece(path / tokenizer, tower.config)
            if isinstance(tower, BertText)
            else read_tokenizer(path / tokenizer, tower.config)
            for (_, tokenizer), tower in zip(pairs, towers, strict=True)
        ),
        scheduler=read_scheduler(path / "scheduler", amended=pipeline_class in _AMENDING),
        pipeline_class=pipeline_class,
        defaults=from_dict(Defaults, read_json(defaults), DEFAULTS)
        if defaults.is_file()
        else BERT_DEFAULTS
        if pipeline_class == BERT
        else Defaults(),
        settings=_settings(index),
        low_resolution=read_noising(path / _LOW_RESOLUTION)
        if _LOW_RESOLUTION in components
        else LOW_RESOLUTION,
        vision=read_vision(path, pipeline_class, reading),
        beside=beside,
        files={
            name: weights_files(path / name, variant)
            for name in (
                "unet",
                vae,
                *(tower for tower, _ in pairs),
                *(() if beside.layout is None else (LAYOUT,)),
                *(part for part in vision_parts(pipeline_class) if part in (TOWER, NORMALIZER)),
            )
        },
    )
    check_fit(path, folder)
    return folder


def write_folder(
    path: Path,
    folder: Folder,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a model as a folder that diffusers opens unchanged; a folder that was there before is
    replaced once the new one is whole.

    `safelight.json` beside `model_index.json` carries what diffusers has no place for.
    """
    if any(isinstance(tower, ClassEmbedder) for tower in folder.text_towers):
        raise SafelightError("diffusers has no folder for a model of classes; keep its file.")
    writing = Writing(dtype, variant, max_shard_bytes)
    with replacing_folder(path) as whole:
        write_unet(whole / "unet", folder.unet, writing)
        vae = folder.autoencoder
        vae = without_shift(vae) if isinstance(vae, Autoencoder) else vae
        write_autoencoder(whole / autoencoder_name(folder.pipeline_class), vae, writing)
        for (name, words), tower, tokenizer in zip(
            text_names(folder), folder.text_towers, folder.tokenizers, strict=True
        ):
            assert not isinstance(tower, ClassEmbedder)
            assert not isinstance(tokenizer, ClassReader)
            write_text_tower(whole / name, tower, writing)
            (whole / words).mkdir()
            tokenizer.save(whole / words)
        write_scheduler(whole / "scheduler", folder.scheduler)
        if folder.vision is not None:
            write_vision(whole, folder.vision, writing)
        write_beside(whole, folder.beside, writing)
        if folder.pipeline_class == _UPSCALER:
            write_scheduler(whole / _LOW_RESOLUTION, folder.low_resolution)
        _write_json(whole / DEFAULTS, to_dict(folder.defaults))
        _write_json(whole / INDEX, _index(folder))


def _read_index(path: Path) -> dict[str, Value]:
    if not (path / INDEX).is_file():
        raise SafelightError(
            f"{path} is {describe_folder(path)}; expected a model's folder with {INDEX}."
        )
    index = read_json(path / INDEX)
    if not isinstance(index.get("_class_name"), str):
        raise SafelightError(f"{path / INDEX} names no pipeline class.")
    return index


def _components(path: Path, index: Mapping[str, Value]) -> set[str]:
    """The names of the components that are there: entries [library, class] that are not null."""
    present = {
        name
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    }
    pipeline_class = str(index["_class_name"])
    pairs = _texts(pipeline_class)
    needed = {"unet", autoencoder_name(pipeline_class), "scheduler"}
    needed |= set(vision_parts(pipeline_class))
    text = {tower for tower, _ in pairs} & present
    needed |= {tokenizer for tower, tokenizer in pairs if tower in text}
    unknown = sorted(present - needed - text - _UNUSED - {_LOW_RESOLUTION})
    missing = sorted(needed - present)
    silent = not text and pipeline_class not in SEEN_ALONE
    if unknown or missing or silent:
        lacks = missing or ([pairs[0][0]] if silent else [])
        raise SafelightError(
            f"{path} is {describe_folder(path)}, not a text-to-image model of Stable Diffusion's "
            "family: "
            + "; ".join(
                f"{kind} {', '.join(names)}"
                for kind, names in (("it lacks", lacks), ("it has the unknown", unknown))
                if names
            )
            + "."
        )
    return present


def unused_parts(pipeline_class: str) -> set[str]:
    """Components that the index of such a pipeline may name and that are not read."""
    return _UNUSED - {TOWER, FEATURES} if vision_parts(pipeline_class) else _UNUSED


def _settings(index: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name: value
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, (str, int, float))
    }


def _index(folder: Folder) -> dict[str, Value]:
    none: list[Value] = [None, None]
    index: dict[str, Value] = {
        "_class_name": folder.pipeline_class,
        "_diffusers_version": DIFFUSERS_VERSION,
        **folder.settings,
        "scheduler": ["diffusers", folder.scheduler.class_name],
        "unet": _unet_entry(folder.unet),
        autoencoder_name(folder.pipeline_class): [
            "diffusers",
            _AUTOENCODERS[type(folder.autoencoder)],
        ],
    }
    for (name, words), tower in zip(text_names(folder), folder.text_towers, strict=True):
        if isinstance(tower, BertText):
            index |= {name: ["latent_diffusion", "LDMBertModel"]}
            index |= {words: ["transformers", "BertTokenizer"]}
        elif isinstance(tower, ClipText):
            index |= {name: ["transformers", clip_class_name(tower.config)]}
            index |= {words: ["transformers", "CLIPTokenizer"]}
    if folder.pipeline_class == _UPSCALER:
        index[_LOW_RESOLUTION] = ["diffusers", folder.low_resolution.class_name]
        index |= {"safety_checker": none, "feature_extractor": none, "watermarker": none}
    if folder.vision is not None:
        index |= vision_index(folder.vision)
    if folder.pipeline_class == VARIATION:
        index |= {"safety_checker": none, "requires_safety_checker": False}
    if folder.pipeline_class in _AMENDING:
        index |= {"safety_checker": none, "feature_extractor": none, "image_encoder": none}
        index["requires_safety_checker"] = False
    return index


def _unet_entry(unet: UNet) -> list[Value]:
    class_name = unet_class(unet)
    return ["safelight" if class_name == OWN else "diffusers", class_name]


def text_names(folder: Folder) -> tuple[tuple[str, str], ...]:
    """The names of the text towers and tokenizers; the XL refiner has the second pair alone."""
    if folder.pipeline_class == BERT:
        return _texts(BERT)
    count = len(folder.text_towers)
    refiner = count == 1 and "XL" in folder.pipeline_class
    return _TEXT[1:] if refiner else _TEXT[:count]


def autoencoder_name(pipeline_class: str) -> str:
    """What the autoencoder is called among the parts of such a pipeline."""
    return "vqvae" if pipeline_class == BERT else "vae"


def _texts(pipeline_class: str) -> tuple[tuple[str, str], ...]:
    return (("bert", "tokenizer"),) if pipeline_class == BERT else _TEXT


def check_fit(path: Path, folder: Folder) -> None:
    """Raises `SafelightError` if the parts are not of one model."""
    context = sum(tower.config.hidden_size for tower in folder.text_towers)
    givers = "text towers give"
    if folder.vision is not None and not folder.text_towers:
        context, givers = folder.vision.tower.config.projection_dim, "image tower gives"
    wanted = folder.unet.config.cross_attention_dim
    if wanted not in (None, context):
        raise SafelightError(
            f"{path}: the U-Net takes a context of width {wanted}, its {givers} {context}."
        )
    latents = latent_channels(folder.autoencoder)
    if folder.unet.config.out_channels != latents:
        raise SafelightError(
            f"{path}: the U-Net makes {folder.unet.config.out_channels} latent channels, the "
            f"autoencoder takes {latents}."
        )


def _write_json(path: Path, values: Mapping[str, Value]) -> None:
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
