"""What a model is told beside its prompt, in its folder: `conditions.json`, and the weights of what
turns boxes into tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    part_config,
    read_part,
    write_part,
)
from safelight.checkpoints.image_encoder import ImageEncoder
from safelight.checkpoints.ip_adapter import read_image_adapter, write_image_adapter
from safelight.checkpoints.rules import Rule, Table
from safelight.conditioners.beside import (
    ClassConditioner,
    ImageConditioner,
    InpaintingConditioner,
    LayoutConditioner,
    LowResolutionConditioner,
    MapConditioner,
    SemanticConditioner,
)
from safelight.conditioners.conditions import (
    AnyCondition,
    Class,
    Conditions,
    Depth,
    Image,
    Inpainting,
    Layout,
    LowResolution,
    channels_of,
    classes_of,
)
from safelight.config import Value, from_dict, read_json, to_dict
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.any_text import AnyTextTower
from safelight.models.clip import ClipText
from safelight.models.image_adapter import ImageAdapter
from safelight.models.layout import LayoutEncoder, LayoutEncoderConfig
from safelight.types import Conditioner

FILE, LAYOUT = "conditions.json", "layout_encoder"
IP_ADAPTER, IP_ADAPTER_FILE = "ip_adapter", "ip_adapter.safetensors"
IMAGE_ENCODER = "image_encoder"
"""Where a model's folder brings an IP-Adapter: its folder, its file, and, as a folder beside that
or by its name in `config.json`, its encoder.
"""
_CLASS = "LayoutEncoder"
_LAYOUT = Table((Rule("{key}", "{key}"),))


@dataclass(frozen=True)
class Beside:
    """What a model is told beside its prompt: its conditions, and the networks that boxes and other
    pictures need, if it has these. `encoder`, what the adapter looks through, is there in training.
    """

    conditions: tuple[AnyCondition, ...] = ()
    layout: LayoutEncoder | None = None
    adapter: ImageAdapter | None = None
    encoder: ImageEncoder | None = None

    def channels(self, latents: int, factor: int) -> int:
        """How many channels they take beside latents of so many, `factor` pixels a cell."""
        return sum(channels_of(condition, latents, factor) for condition in self.conditions)

    @property
    def classes(self) -> int | None:
        """How many classes the U-Net is told, the null among them."""
        return classes_of(self.conditions) or None

    @property
    def of_its_own(self) -> "Beside":
        """Without what is asked for as of any model: inpainting, by an image and a mask, and other
        pictures, by image prompts.
        """
        others = (one for one in self.conditions if not isinstance(one, (Inpainting, Image)))
        return replace(self, conditions=tuple(others))


NOTHING_BESIDE = Beside()


def read_beside(path: Path, reading: Reading) -> Beside:
    """What is told beside the prompt of a model's folder; nothing where it does not say.

    Raises `SafelightError` if a part is broken or missing.
    """
    file = path / FILE
    if not file.is_file():
        return NOTHING_BESIDE
    conditions = Conditions.from_values(read_json(file), str(file)).conditions
    layout = adapter = None
    for condition in conditions:
        if isinstance(condition, Layout):
            layout = _read_layout(path / LAYOUT, reading)
        elif isinstance(condition, Image):
            adapter = read_image_adapter(path / IP_ADAPTER / IP_ADAPTER_FILE, reading)
    return Beside(conditions, layout, adapter)


def write_beside(path: Path, beside: Beside, writing: Writing) -> None:
    """Writes it into a model's folder; nothing where there is nothing."""
    if not beside.conditions:
        return
    values = Conditions(beside.conditions).to_values()
    write_text(path / FILE, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    if beside.layout is not None:
        said: dict[str, Value] = {"_class_name": _CLASS, **to_dict(beside.layout.config)}
        write_part(path / LAYOUT, DIFFUSERS_STEM, beside.layout, said, _LAYOUT, writing)
    for condition in beside.conditions:
        if isinstance(condition, Image) and beside.adapter is not None:
            folder = path / IP_ADAPTER
            folder.mkdir()
            write_image_adapter(folder / IP_ADAPTER_FILE, beside.adapter)
            named = json.dumps({IMAGE_ENCODER: condition.encoder}, indent=2)
            write_text(folder / "config.json", named + "\n")


def conditioners_of(
    beside: Beside, autoencoder: AnyAutoencoder, towers: tuple[AnyTextTower, ...]
) -> Mapping[str, Conditioner]:
    """What puts each of a model's conditions into a conditioning, by its kind, in order.

    Raises `SafelightError` for boxes without a text tower that could read their labels.
    """
    return {
        condition.kind: _conditioner(condition, beside, autoencoder, towers)
        for condition in beside.conditions
    }


def _conditioner(
    condition: AnyCondition,
    beside: Beside,
    autoencoder: AnyAutoencoder,
    towers: tuple[AnyTextTower, ...],
) -> Conditioner:
    factor = autoencoder.factor
    match condition:
        case Class():
            return ClassConditioner(condition)
        case Depth():
            return MapConditioner(condition, factor)
        case LowResolution():
            return LowResolutionConditioner(condition, autoencoder)
        case Inpainting():
            return InpaintingConditioner(condition, autoencoder)
        case Image():
            assert beside.adapter is not None  # which `read_beside` sees to
            assert beside.encoder is not None
            return ImageConditioner(beside.adapter, beside.encoder.null())
        case Layout():
            if beside.layout is None or not towers or not isinstance(towers[-1], ClipText):
                raise SafelightError("A layout needs a layout encoder and a CLIP text tower.")
            return LayoutConditioner(condition, beside.layout, towers[-1])
        case _:
            return SemanticConditioner(condition, factor)


def _read_layout(folder: Path, reading: Reading) -> LayoutEncoder:
    values = dict(part_config(folder, _CLASS))
    said = {name: value for name, value in values.items() if not name.startswith("_")}
    config = from_dict(LayoutEncoderConfig, said, str(folder / "config.json"))
    for name, width in to_dict(config).items():
        if not isinstance(width, int) or not 1 <= width <= 65536:
            raise SafelightError(f"{folder / 'config.json'}: {name} = {width} cannot be.")
    return read_part(folder, DIFFUSERS_STEM, lambda: LayoutEncoder(config), _LAYOUT, reading, ())
