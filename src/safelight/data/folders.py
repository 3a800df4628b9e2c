"""What a folder of pictures holds: readable pictures with their captions, and what was skipped."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from safelight.config import Value
from safelight.data.captions import (
    METADATA_NAMES,
    Row,
    caption_beside,
    caption_from_name,
    mentioned_pictures,
    read_metadata,
)
from safelight.data.config import DataConfig
from safelight.errors import SafelightError
from safelight.pictures import SUFFIXES, Size, UnreadablePictureError, upright_size


@dataclass(frozen=True)
class PictureItem:
    """One picture: its upright size, at least one caption (maybe empty), and other metadata, which
    names files from `folder`.
    """

    path: Path
    size: Size
    captions: tuple[str, ...]
    extras: Mapping[str, Value] = field(default_factory=dict[str, Value])
    repeats: int = 1
    folder: Path = Path()


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PictureFolder:
    """The pictures found, in an order that depends on their names only, and the files left out."""

    items: tuple[PictureItem, ...]
    skipped: tuple[Skipped, ...] = ()

    def summary(self) -> str:
        """One line: how many pictures, how many files were skipped, and for which reasons."""
        text = f"{len(self.items):,} pictures"
        if not self.skipped:
            return text
        reasons = Counter(skipped.reason for skipped in self.skipped).most_common(3)
        told = "; ".join(f"{count:,} × {reason}" for reason, count in reasons)
        return f"{text}, {len(self.skipped):,} files skipped ({told})"


def scan(root: Path | str, on_file: Callable[[int, int], None] | None = None) -> PictureFolder:
    """Finds every readable picture under `root`, nested folders included, with its captions.

    A picture's captions come from the metadata.jsonl or metadata.csv of a folder above it, else
    from the `.txt` file beside it, else from its name or its folder's. Below a folder with metadata
    only the pictures that it lists count; files that other columns mention (depth, segmentation)
    are passed over. Hidden files are ignored, and so are folders below that a training wrote, whose
    previews are no pictures to learn from. `on_file(done, all)` is called as headers are read.

    Raises `SafelightError` if there is no such folder, no readable picture, or unreadable metadata.
    """
    root = Path(root)
    if not root.is_dir():
        raise SafelightError(f"No folder {root}; expected a folder of pictures.")
    found = list(walk(root))
    listed, apart = metadata_below(path for path in found if path.name in METADATA_NAMES)
    skipped: list[Skipped] = []
    pictures: list[Path] = list(listed)
    metadata_folders = {path.parent for path in found if path.name in METADATA_NAMES}
    for path in found:
        if path.suffix.lower() not in SUFFIXES or path in listed or path in apart:
            continue
        if metadata_folders.isdisjoint(path.parents):
            pictures.append(path)
        else:
            skipped.append(Skipped(path, "not listed in the metadata"))
    pictures.sort()
    items: list[PictureItem] = []
    for path, size in zip(pictures, _sizes(pictures, on_file), strict=True):
        if isinstance(size, Skipped):
            skipped.append(size)
            continue
        row = listed.get(path, Row())
        captions = row.captions or (caption_beside(path),)
        named = tuple(
            caption_from_name(path, root) if caption is None else caption for caption in captions
        )
        items.append(PictureItem(path, size, named, row.extras, folder=row.folder))
    folder = PictureFolder(tuple(items), tuple(sorted(skipped, key=lambda s: s.path)))
    if not items:
        raise SafelightError(f"No readable pictures under {root}: {_why_none(folder)}")
    return folder


def gather(config: DataConfig, on_file: Callable[[int, int], None] | None = None) -> PictureFolder:
    """The pictures of all of a configuration's folders, those below `min_side` skipped.

    Raises `SafelightError` as `scan` does, or if every picture is too small.
    """
    items: list[PictureItem] = []
    skipped: list[Skipped] = []
    for folder in config.folders:
        found = scan(folder.path, on_file)
        skipped.extend(found.skipped)
        for item in found.items:
            if min(item.size) < config.min_side:
                skipped.append(Skipped(item.path, f"a side is below {config.min_side} pixels"))
            else:
                items.append(replace(item, repeats=folder.repeats))
    if not items:
        raise SafelightError(
            f"All {len(skipped):,} pictures have a side below min_side = {config.min_side} pixels; "
            "lower it or bring larger ones."
        )
    return PictureFolder(tuple(items), tuple(skipped))


_OF_A_TRAINING = frozenset({"recipe.toml", "log.jsonl"})  # in the output of every training


def walk(root: Path) -> Iterator[Path]:
    """The files below a folder in a fixed order, without hidden ones and outputs of trainings."""
    for folder, subfolders, names in os.walk(root):
        if Path(folder) != root and _OF_A_TRAINING.issubset(names):
            subfolders.clear()
            continue
        subfolders[:] = sorted(n for n in subfolders if not n.startswith((".", "@", "__MACOSX")))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(os.path.normpath(folder)) / name


def metadata_below(paths: Iterable[Path]) -> tuple[dict[Path, Row], set[Path]]:
    """The rows of metadata files by the file that each is of, and the pictures that other columns
    mention.
    """
    listed: dict[Path, Row] = {}
    apart: set[Path] = set()
    for path in paths:
        rows = read_metadata(path)
        apart.update(mentioned_pictures(rows, path.parent))
        for picture, row in rows.items():
            listed[picture] = listed[picture].joined(row) if picture in listed else row
    return listed, apart


def _sizes(
    pictures: Sequence[Path], on_file: Callable[[int, int], None] | None
) -> Iterator[Size | Skipped]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        for done, size in enumerate(pool.map(_size, pictures), start=1):
            yield size
            if on_file is not None:
                on_file(done, len(pictures))


def _size(path: Path) -> Size | Skipped:
    try:
        return upright_size(path)
    except UnreadablePictureError as error:
        return Skipped(path, error.reason)


def _why_none(folder: PictureFolder) -> str:
    if not folder.skipped:
        return f"no file there ends in {', '.join(sorted(SUFFIXES)[:8])} or the like."
    first = folder.skipped[0]
    return f"{len(folder.skipped):,} files skipped, the first {first.path}: {first.reason}."
