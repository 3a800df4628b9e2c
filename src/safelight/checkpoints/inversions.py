"""Files of textual inversion, in the layouts of AUTOMATIC1111, diffusers and SDXL's trainers."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from safelight.checkpoints.files import check_is_file, read_state
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.pickles import read_pickle
from safelight.checkpoints.weights_file import is_safetensors
from safelight.conditioners.inversion import Inversion
from safelight.errors import SafelightError
from safelight.models.clip import ClipText

_XL = ("clip_l", "clip_g")
"""The embeddings for SDXL's two towers, in the towers' order."""


def read_inversion(path: Path, model: Folder, token: str | None = None) -> Inversion:
    """Reads the learned embeddings of a word for a model.

    `token` is how the word is written in a prompt; by default what the file calls it, else the
    file's stem.

    Raises `SafelightError`, one line, if the file is broken, holds no such embeddings, or is made
    for towers of other widths.
    """
    check_is_file(path)
    table: Mapping[object, object] = (
        cast(Mapping[object, object], read_state(path))
        if is_safetensors(path)
        else _table(read_pickle(path), path)
    )
    named, vectors = _found(table, path)
    widths = [
        tower.config.hidden_size for tower in model.text_towers if isinstance(tower, ClipText)
    ]
    theirs = [part.shape[1] for part in vectors]
    if not widths or theirs != widths:
        raise SafelightError(
            f"{path} holds embeddings of width {' and '.join(map(str, theirs))}; the text towers "
            f"of this model have {' and '.join(map(str, widths)) or 'none to learn'}."
        )
    word = (token or named or path.stem).strip()
    if not word:
        raise SafelightError(f"{path} has no name for its word; give one.")
    return Inversion(word, tuple(part.detach().float() for part in vectors))


def _found(table: Mapping[object, object], path: Path) -> tuple[str | None, list[Tensor]]:
    """What the file calls its word, and its embeddings, a tensor a tower."""
    if all(name in table for name in _XL):
        return None, [_rows(table[name], path) for name in _XL]
    params = table.get("string_to_param")
    if params is not None:
        inner = _table(params, path)
        if len(inner) != 1:
            raise SafelightError(f"{path} holds embeddings of {len(inner)} words; expected one.")
        name = table.get("name")
        return name if isinstance(name, str) else None, [_rows(next(iter(inner.values())), path)]
    if "emb_params" in table:
        return None, [_rows(table["emb_params"], path)]
    tensors = {key: value for key, value in table.items() if isinstance(value, Tensor)}
    if len(tensors) != 1:
        raise SafelightError(
            f"{path} holds {len(tensors)} tensors that are no textual inversion; expected "
            "string_to_param, emb_params, clip_l with clip_g, or one word's embeddings."
        )
    [(key, value)] = tensors.items()
    return str(key), [_rows(value, path)]


def _table(value: object, path: Path) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise SafelightError(f"{path} holds no table of embeddings but {type(value).__name__}.")
    return cast(Mapping[object, object], value)


def _rows(value: object, path: Path) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        raise SafelightError(f"{path} holds an embedding that is no tensor of numbers.")
    rows = value[None] if value.ndim == 1 else value
    if rows.ndim != 2 or not bool(rows.isfinite().all()):
        raise SafelightError(
            f"{path} holds an embedding of shape {'x'.join(map(str, value.shape))}, or one with "
            "infinite numbers; expected finite rows, one for each place in the prompt."
        )
    return rows
