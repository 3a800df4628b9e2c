"""What folders hold of clips: readable ones with their captions, cut into pieces of some length."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.data.captions import (
    METADATA_NAMES,
    Row,
    caption_beside,
    caption_from_name,
)
from safelight.data.clip_files import VIDEOS, ClipHeader, is_clip, need_av, read_header
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder, PictureItem, Skipped, metadata_below, walk
from safelight.errors import SafelightError
from safelight.pictures import SUFFIXES, UnreadablePictureError


@dataclass(frozen=True)
class ClipsConfig:
    """How clips are cut in time.

    A training sees `frames` frames at a time, each some frames (one of `strides` is drawn) after
    the one before it, of at most `fps` a second that are kept of a file: all of them, or every
    second, third and so on, as a motion would jerk where they are not evenly spread. So a clip is
    told to have the rate that is kept divided by the stride. A share of them, `slowed`, is played
    slower than it is: at the rate of its stride, with frames that follow each other by fewer, down
    to none, which is a still; so that a model learns of little motion where clips have much. Files
    longer than `seconds` count as several clips. Folders of frames have `folder_fps` pictures a
    second, unless their metadata has an `fps`.

    Raises `SafelightError` for a value out of range.
    """

    frames: int = 8
    fps: float = 24.0
    strides: tuple[int, ...] = (1, 2, 3)
    seconds: float = 10.0
    folder_fps: float = 24.0
    slowed: float = 0.0

    def __post_init__(self):
        if not 0 <= self.slowed <= 1:
            raise SafelightError(f"clips.slowed should be between 0 and 1, got {self.slowed}.")
        if self.frames < 2:
            raise SafelightError(f"clips.frames should be at least 2, got {self.frames}.")
        if not self.strides or min(self.strides) < 1:
            raise SafelightError(
                f"clips.strides should be numbers of at least 1, got {list(self.strides)}."
            )
        for name in ("fps", "seconds", "folder_fps"):
            if not 0 < getattr(self, name) < math.inf:
                raise SafelightError(f"clips.{name} should be above 0, got {getattr(self, name)}.")

    @property
    def span(self) -> int:
        """The fewest frames that a clip must have."""
        return (self.frames - 1) * min(self.strides) + 1


@dataclass(frozen=True)
class ClipItem(PictureItem):
    """A clip, or a piece of one: it begins at second `start` of its file, and has `frames` frames
    at `fps` a second.
    """

    start: float = 0.0
    frames: int = 1
    fps: float = 24.0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.fps


@dataclass(frozen=True)
class ClipFolder(PictureFolder):
    """The clips found, in an order that depends on their names only, and the files left out."""

    items: tuple[ClipItem, ...]

    def summary(self) -> str:
        """One line: how many clips of how many frames, how many files were skipped, and why."""
        frames = sum(item.frames for item in self.items)
        return super().summary().replace(" pictures", f" clips of {frames:,} frames", 1)


def scan_clips(root: Path | str, config: ClipsConfig) -> ClipFolder:
    """Finds every readable clip under `root`, nested folders included, with its captions.

    Videos, animated pictures and folders of nothing but numbered pictures are clips. Captions come
    from the metadata.jsonl or metadata.csv of a folder above, whose `file_name` may be a folder of
    frames, else from the `.txt` file beside the clip, else from its name or its folder's. Below a
    folder with metadata only the clips that it lists count.

    Raises `SafelightError` if there is no such folder or no clip that can be read, for unreadable
    metadata, and for videos where PyAV is not installed.
    """
    root = Path(root)
    if not root.is_dir():
        raise SafelightError(f"No folder {root}; expected a folder of clips.")
    found = list(walk(root))
    listed, apart = metadata_below(path for path in found if path.name in METADATA_NAMES)
    metadata_folders = {path.parent for path in found if path.name in METADATA_NAMES}
    skipped: list[Skipped] = []
    clips: list[Path] = list(listed)
    for path in _candidates(root, found, set(listed)):
        if path in apart:
            continue
        if metadata_folders.isdisjoint(path.parents):
            clips.append(path)
        else:
            skipped.append(Skipped(path, "not listed in the metadata"))
    clips.sort()
    for path in clips:
        if path.suffix.lower() in VIDEOS:
            need_av(path)
    items: list[ClipItem] = []
    for path, header in zip(clips, _headers(clips), strict=True):
        if isinstance(header, Skipped):
            skipped.append(header)
            continue
        row = listed.get(path, Row())
        captions = row.captions or (caption_beside(path),)
        named = tuple(caption_from_name(path, root) if c is None else c for c in captions)
        whole = PictureItem(path, header.size, named, row.extras, folder=row.folder)
        pieces = list(_pieces(whole, header, config))
        items += pieces
        if not pieces:
            skipped.append(Skipped(path, f"fewer than {config.span} frames"))
    folder = ClipFolder(tuple(items), tuple(sorted(skipped, key=lambda s: s.path)))
    if not items:
        raise SafelightError(f"No readable clips under {root}: {_why_none(folder)}")
    return folder


def gather_clips(data: DataConfig, config: ClipsConfig) -> ClipFolder:
    """The clips of all of a configuration's folders, those below `min_side` skipped.

    Raises `SafelightError` as `scan_clips` does, or if every clip is too small.
    """
    items: list[ClipItem] = []
    skipped: list[Skipped] = []
    for folder in data.folders:
        found = scan_clips(folder.path, config)
        skipped.extend(found.skipped)
        for item in found.items:
            if min(item.size) < data.min_side:
                skipped.append(Skipped(item.path, f"a side is below {data.min_side} pixels"))
            else:
                items.append(replace(item, repeats=folder.repeats))
    if not items:
        raise SafelightError(
            f"All clips have a side below min_side = {data.min_side} pixels; lower it or bring "
            "larger ones."
        )
    return ClipFolder(tuple(items), tuple(skipped))


def _candidates(root: Path, found: Sequence[Path], listed: set[Path]) -> Iterator[Path]:
    """Videos, files that may be animations, and folders of frames; no file of such a folder."""
    folders = {path.parent for path in found} - {root}
    whole = {folder for folder in folders if folder in listed or is_clip(folder)}
    yield from sorted(whole - listed)
    for path in found:
        if path in listed or not whole.isdisjoint(path.parents):
            continue
        if path.suffix.lower() in VIDEOS | SUFFIXES and is_clip(path):
            yield path


def _pieces(whole: PictureItem, header: ClipHeader, config: ClipsConfig) -> Iterator[ClipItem]:
    rate = header.fps
    if rate is None:
        rate = _own_fps(whole) or config.folder_fps
        total = header.frames
    else:
        seconds = header.frames / rate
        rate /= math.ceil(rate / config.fps - _CLOSE)
        total = round(seconds * rate)
    most = max(round(config.seconds * rate), config.span)
    for first in range(0, total, most):
        frames = min(most, total - first)
        if frames >= config.span:
            yield ClipItem(
                whole.path,
                whole.size,
                whole.captions,
                whole.extras,
                folder=whole.folder,
                start=first / rate,
                frames=frames,
                fps=rate,
            )


_CLOSE = 0.01  # of a rate that is the most allowed but for rounding


def _own_fps(item: PictureItem) -> float | None:
    said = item.extras.get("fps")
    if said is None:
        return None
    try:
        rate = float(said) if isinstance(said, (int, float, str)) else 0.0
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise SafelightError(
            f"{item.path} has fps = {said!r} in its metadata; expected frames a second, such as 24."
        )
    return rate


def _headers(clips: Sequence[Path]) -> Iterator[ClipHeader | Skipped]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield from pool.map(_header, clips)


def _header(path: Path) -> ClipHeader | Skipped:
    try:
        if not is_clip(path):
            return Skipped(path, "it is no clip" if path.exists() else "no such file or directory")
        return read_header(path)
    except UnreadablePictureError as error:
        return Skipped(path, error.reason)


def _why_none(folder: ClipFolder) -> str:
    if not folder.skipped:
        return "no video, no animated picture and no folder of numbered frames is there."
    first = folder.skipped[0]
    return f"{len(folder.skipped):,} files skipped, the first {first.path}: {first.reason}."
