"""Adapters that a prompt names, as in AUTOMATIC1111: `a cat <lora:style:0.8>`."""

import math
import os
import re
from pathlib import Path

from safelight.config import near
from safelight.errors import SafelightError
from safelight.pipelines.find import expanded

LIBRARY = "SAFELIGHT_LORAS"
"""The environment variable that lists the folders in which adapters have names."""

_TAG = re.compile(r"<(?:lora|lyco):([^<>:]+)(?::([^<>]*))?>")
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")


def without_tags(prompt: str) -> tuple[str, dict[str, float]]:
    """The prompt without its tags, and the strength of each adapter that they name.

    The strength is 1 where a tag has none; tags of one name add up, as there.

    Raises `SafelightError` for a strength that is no finite number.
    """
    strengths: dict[str, float] = {}
    for name, number in _TAG.findall(prompt):
        name = name.strip()
        strengths[name] = strengths.get(name, 0.0) + _strength(name, number)
    return (_TAG.sub("", prompt).strip() if strengths else prompt), strengths


def with_files(prompt: str) -> tuple[str, dict[Path, float]]:
    """The same with the files of the adapters; errors as `find_adapter` too."""
    text, strengths = without_tags(prompt)
    return text, {find_adapter(name): strength for name, strength in strengths.items()}


def find_adapter(name: str) -> Path:
    """The file of an adapter's name: its stem, or its path below a folder of `SAFELIGHT_LORAS`.

    Raises `SafelightError` for a name that none has, with the near ones.
    """
    folders, files = _folders(), known_adapters()
    for file in files:
        below = next(file.relative_to(folder) for folder in folders if folder in file.parents)
        if name in (file.stem, file.name, below.as_posix(), below.with_suffix("").as_posix()):
            return file
    stems = [file.stem for file in files]
    hint = near(name, stems) if stems else f"{LIBRARY} lists no folder with adapters."
    raise SafelightError(f"The prompt names an adapter {name!r} that is not there. {hint}")


def known_adapters() -> list[Path]:
    """The files that have names, in the order of the folders of `SAFELIGHT_LORAS`."""
    return [
        file
        for folder in _folders()
        for file in sorted(folder.rglob("*"))
        if file.suffix in _SUFFIXES and file.is_file()
    ]


def _folders() -> list[Path]:
    listed = os.environ.get(LIBRARY, "")
    return [expanded(part) for part in listed.split(os.pathsep) if part]


def _strength(name: str, number: str) -> float:
    if not number:
        return 1.0
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise SafelightError(
            f"The prompt names the adapter {name!r} with the strength {number!r}; expected one "
            "number."
        )
    return strength
