"""Adapters and textual inversions as a user names them on the command line."""

from collections.abc import Sequence
from pathlib import Path

from safelight.errors import SafelightError
from safelight.pipelines.find import expanded
from safelight.pipelines.hub import find_part


def chosen_adapters(texts: Sequence[str], *, offline: bool = False) -> dict[str | Path, float]:
    """Files with their strengths from `FILE` or `FILE:STRENGTH`, in the order given; a file may
    be one of the hub's, as for `find_part`.

    A colon in a file's name is part of it if what follows is no number. Raises `SafelightError` for
    a file that is not there, or that is given twice.
    """
    chosen: dict[str | Path, float] = {}
    for text in texts:
        name, strength = _parted(text)
        path = find_part(name, offline=offline)
        if not path.is_file():
            raise SafelightError(f"There is no adapter's file {path}.")
        if path in chosen:
            raise SafelightError(f"{path} is given twice; give it once with its strength.")
        chosen[path] = strength
    return chosen


def chosen_embeddings(
    texts: Sequence[str], *, offline: bool = False
) -> dict[str | Path, str | None]:
    """Files of textual inversion with their words, None for the file's own, from `FILE` or
    `FILE:WORD`.

    Raises `SafelightError` for a file that is not there, or that is given twice.
    """
    chosen: dict[str | Path, str | None] = {}
    for text in texts:
        whole = expanded(text)
        name, colon, word = text.rpartition(":")
        parted = bool(colon) and not whole.is_file()
        token = word if parted else None
        path = find_part(name if parted else text, offline=offline)
        if not path.is_file():
            raise SafelightError(f"There is no file of textual inversion {path}.")
        if path in chosen:
            raise SafelightError(f"{path} is given twice; give it once with its word.")
        chosen[path] = token
    return chosen


def _parted(text: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    try:
        strength = float(number)
    except ValueError:
        return text, 1.0
    return (name, strength) if colon else (text, 1.0)
