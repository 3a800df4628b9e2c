"""What a single file of ours says in its header: all that its tensors do not show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from safelight.checkpoints.folder import Defaults, Folder
from safelight.checkpoints.scheduler_files import scheduler_to_diffusers
from safelight.checkpoints.tables.autoencoder import autoencoder_config_to_diffusers
from safelight.checkpoints.tables.clip import clip_config_to_transformers
from safelight.checkpoints.tables.unet import unet_config_to_diffusers
from safelight.checkpoints.vision_file import vision_header
from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError
from safelight.models.autoencoder import AutoencoderConfig
from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer

ENTRY = "safelight"
"""The name of the entry among the text entries of a safetensors file."""

Table = Mapping[str, Value]


@dataclass(frozen=True)
class Header:
    """The configurations in diffusers' and transformers' words; empty for files of others."""

    unet: Table = field(default_factory=dict[str, Value])
    vae: Table = field(default_factory=dict[str, Value])
    text: tuple[Table, ...] = ()
    vision: Mapping[str, Table] = field(default_factory=dict[str, Table])
    scheduler: Table = field(default_factory=dict[str, Value])
    pipeline: str | None = None
    settings: Table = field(default_factory=dict[str, Value])
    defaults: Defaults = field(default_factory=Defaults)
    tokenizers: tuple[ClipTokenizer, ...] = ()


def write_header(folder: Folder, vae: AutoencoderConfig) -> str:
    """The entry for a model with CLIP's text side, whose autoencoder is written as `vae`."""
    tokenizers = [
        {"tokenizer": tokenizer.to_json(), "length": tokenizer.length, "pad": tokenizer.pad}
        for tokenizer in folder.tokenizers
        if isinstance(tokenizer, ClipTokenizer)
    ]
    values: dict[str, Value] = {
        "unet": unet_config_to_diffusers(folder.unet.config),
        "vae": autoencoder_config_to_diffusers(vae),
        "text": [
            clip_config_to_transformers(tower.config)
            for tower in folder.text_towers
            if isinstance(tower, ClipText)
        ],
        "vision": {} if folder.vision is None else vision_header(folder.vision),
        "scheduler": scheduler_to_diffusers(folder.scheduler),
        "pipeline": folder.pipeline_class,
        "settings": dict(folder.settings),
        "defaults": to_dict(folder.defaults),
        "tokenizers": tokenizers,
    }
    return json.dumps(values, ensure_ascii=False)


def read_header(entries: Mapping[str, str], source: str) -> Header:
    """The entry of a file, if it has one; `SafelightError` if `write_header` made no such entry."""
    values, where = read_entry(entries, source)
    if values is None:
        return Header()
    pipeline = values.get("pipeline")
    if not isinstance(pipeline, str):
        raise SafelightError(f"{where}: it names no pipeline.")
    return Header(
        unet=_table(values.get("unet"), where),
        vae=_table(values.get("vae"), where),
        text=tuple(_table(table, where) for table in _list(values.get("text"), where)),
        vision={
            name: _table(table, where)
            for name, table in _table(values.get("vision", {}), where).items()
        },
        scheduler=_table(values.get("scheduler"), where),
        pipeline=pipeline,
        settings={
            name: value
            for name, value in _table(values.get("settings"), where).items()
            if isinstance(value, (str, int, float))
        },
        defaults=from_dict(Defaults, _table(values.get("defaults"), where), "defaults"),
        tokenizers=tuple(
            _tokenizer(_table(table, where), where)
            for table in _list(values.get("tokenizers"), where)
        ),
    )


def read_entry(entries: Mapping[str, str], source: str) -> tuple[dict[str, Value] | None, str]:
    """The entry of a file as it is, None if it has none, and what an error calls the place.

    Raises `SafelightError` if it is no table.
    """
    where = f"{source}, entry {ENTRY!r} of its header"
    if ENTRY not in entries:
        return None, where
    try:
        return _table(json.loads(entries[ENTRY]), where), where
    except (ValueError, RecursionError) as error:
        raise SafelightError(f"{where}: not valid JSON ({error}).") from error


def _tokenizer(values: Table, where: str) -> ClipTokenizer:
    text, length, pad = (values.get(name) for name in ("tokenizer", "length", "pad"))
    if not isinstance(text, str) or not isinstance(length, int) or not isinstance(pad, str):
        raise SafelightError(f"{where}: a tokenizer without its text, length or padding.")
    return ClipTokenizer.from_json(text, length=length, pad=pad, source=where)


def _table(value: object, where: str) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise SafelightError(f"{where}: expected a table, not {type(value).__name__}.")
    return cast(dict[str, Value], value)


def _list(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise SafelightError(f"{where}: expected a list, not {type(value).__name__}.")
    return cast(list[object], value)
