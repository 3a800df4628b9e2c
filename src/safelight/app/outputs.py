"""Where pictures go, decided and checked before any is made."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from safelight.checkpoints.atomic import try_beside
from safelight.errors import SafelightError
from safelight.pipelines.picture_files import picture_suffix
from safelight.pipelines.request import Request

_SLUG_LENGTH = 40  # characters, so that a name of four-byte letters still fits in 255 bytes


def plan_outputs(output: str | None, requests: Sequence[Request]) -> list[list[Path]]:
    """One path for each picture of each request.

    `output` is a folder that exists, or a picture file: one picture takes its name as it is,
    several are numbered in the order asked for, `apple-0.png`, `apple-1.png`, with as many digits
    as the last needs. In a folder (None is the current one) a name is the prompt's words and the
    picture's seed (and its sub-seed, if that matters), after the prompt's number where there are
    several.

    Raises `SafelightError` if a folder is missing, the suffix is unknown, or a file cannot be
    written.
    """
    target = Path(output or ".")
    if target.is_dir():
        paths = _named_by_prompt(target, requests)
    elif output is not None and output.endswith(("/", os.sep)):
        raise SafelightError(_missing(target))
    else:
        picture_suffix(target)
        paths = _numbered(target, requests)
    every = [path for of_request in paths for path in of_request]
    for path in every:
        check_file(path)
    return paths


def check_file(path: Path) -> None:
    """Raises `SafelightError` unless the file can be written, which is tried beside it."""
    check_folder(path.parent)
    try:
        try_beside(path)
    except OSError as error:
        raise SafelightError(f"Cannot write {path}: {error.strerror}.") from error
    if path.is_dir():
        raise SafelightError(f"{path} is a folder already; choose another output.")


def check_preview(preview: Path, outputs: Sequence[Sequence[Path]]) -> None:
    """Raises `SafelightError` for a preview's file that cannot be written, or is an output."""
    picture_suffix(preview)
    check_file(preview)
    if preview.absolute() in {path.absolute() for paths in outputs for path in paths}:
        raise SafelightError(f"{preview} is the picture itself; give its preview another name.")


def check_folder(folder: Path) -> None:
    """Raises `SafelightError` unless files can be written into the folder."""
    if not folder.exists():
        raise SafelightError(_missing(folder))
    if not folder.is_dir():
        raise SafelightError(f"{folder} is a file, not a folder; choose another output.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SafelightError(f"The folder {folder} cannot be written; choose another output.")


def check_new_folder(folder: Path) -> None:
    """Raises `SafelightError` unless the folder, which may have to be made, can be written into."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    check_folder(there)


def _numbered(target: Path, requests: Sequence[Request]) -> list[list[Path]]:
    total = sum(request.count for request in requests)
    if total == 1:
        return [[target]]
    digits = len(str(total - 1))
    numbers = iter(range(total))
    return [
        [
            target.with_name(f"{target.stem}-{next(numbers):0{digits}}{target.suffix}")
            for _ in range(request.count)
        ]
        for request in requests
    ]


def _named_by_prompt(folder: Path, requests: Sequence[Request]) -> list[list[Path]]:
    digits = len(str(len(requests) - 1))
    paths: list[list[Path]] = []
    for number, request in enumerate(requests):
        prefix = f"{number:0{digits}}-" if len(requests) > 1 else ""
        stem = f"{prefix}{slug(request.prompt)}"
        seeds = (_seeds(request, place) for place in range(request.count))
        paths.append([folder / f"{stem}-{seed}.png" for seed in seeds])
    return paths


def _seeds(request: Request, place: int) -> str:
    seed, subseed = request.seeds_at(place)
    return f"{seed}-{subseed}" if request.subseed_strength > 0 else str(seed)


def slug(prompt: str) -> str:
    """A file's name, without suffix, of the words of a prompt."""
    words = re.sub(r"\W+", "-", prompt.lower())[:_SLUG_LENGTH].strip("-")
    return words or "picture"


def _missing(folder: Path) -> str:
    return f"The folder {folder} does not exist; make it first: mkdir -p {folder}"
