"""Clips on disk to frames: video files, animated pictures, and folders of numbered frames."""

import bisect
import importlib.util
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageFile, ImageSequence

from safelight.errors import SafelightError
from safelight.pictures import (
    SUFFIXES,
    Size,
    UnreadablePictureError,
    covering,
    decode,
    turned,
    upright,
    upright_size,
    why_unreadable,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
)
"""Endings (in lower case) of files that are taken for videos; PyAV reads them."""

ANIMATED = frozenset({".gif", ".webp", ".apng", ".png", ".avif"})
"""Endings of picture files that may hold more than one frame."""

LONGEST = 12 * 3600.0
"""Seconds of a file, at most: a header may say anything, and each piece of a clip takes memory."""

_NUMBERED = re.compile(r"(?:^|[^\d])(\d+)$")


class UnreadableClipError(UnreadablePictureError):
    """A file or folder that cannot be read as a clip; `reason` says why, without the path."""


@dataclass(frozen=True)
class ClipHeader:
    """A clip's upright size, how many frames are shown, and how many of them a second; None where
    nothing says so, as of a folder.
    """

    size: Size
    frames: int
    fps: float | None


@dataclass(frozen=True)
class _Shown:
    """A frame, and when it appears, in seconds from the beginning."""

    picture: Image.Image
    at: float


def is_clip(path: Path) -> bool:
    """Whether a path is taken for a clip: by a video's ending, as an animation of more than one
    frame, or as a folder of nothing but numbered pictures of one name and one size.
    """
    if path.is_dir():
        return _is_sequence(frame_files(path))
    if path.suffix.lower() in VIDEOS:
        return True
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) - _first_frame(image) > 1
    except Exception:  # decoders raise anything at all on hostile bytes
        return False


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder of frames in the order of their numbers; none if something else than
    pictures that only their numbers tell apart (and hidden files) lies in it.
    """
    found: list[tuple[int, Path]] = []
    names: set[str] = set()
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        number = _NUMBERED.search(path.stem)
        if number is None or path.suffix.lower() not in SUFFIXES or not path.is_file():
            return []
        found.append((int(number[1]), path))
        names.add(path.stem[: number.start(1)])
    return [path for _, path in sorted(found)] if len(names) == 1 else []


def _is_sequence(files: Sequence[Path]) -> bool:
    """Whether files are of one size, as an album's, some of them upright, are not."""
    try:
        return len(files) > 1 and len({upright_size(file) for file in files}) == 1
    except UnreadablePictureError:  # which reading its header tells
        return True


def read_header(path: Path) -> ClipHeader:
    """What is known of a clip without decoding it, but for an animated WebP or AVIF, which tell how
    long a frame is shown only when it is decoded.

    Raises `UnreadableClipError`, also for one that says it is longer than `LONGEST` seconds, or
    `SafelightError` for a video where PyAV is not installed.
    """
    with _reading(path):
        if path.is_dir():
            files = frame_files(path)
            return ClipHeader(upright_size(files[0]), len(files), None)
        header = _video_header(path) if path.suffix.lower() in VIDEOS else _animation_header(path)
        seconds = 0.0 if header.fps is None else header.frames / header.fps
        if seconds > LONGEST:
            hours = round(LONGEST / 3600)
            raise UnreadableClipError(
                path, f"it says that it is {seconds:.3g} seconds long; cut it into {hours} hours"
            )
        return header


def decode_clip(
    path: Path,
    fps: float,
    cover: Size | None = None,
    *,
    start: float = 0.0,
    seconds: float | None = None,
) -> list[Image.Image]:
    """The upright frames of a clip that are shown `fps` times a second, from `start` on; "RGBA"
    where some pixel may be transparent, else "RGB". With `cover` each is shrunk as by
    `pictures.decode`.

    What is shown longer comes more than once, and of what is shown shorter some is left out.
    Folders have one frame for each of their pictures, and their own time is that of `fps`.

    Raises `UnreadableClipError`, or `SafelightError` for a video where PyAV is not installed.
    """
    with _reading(path):
        if path.is_dir():
            first = round(start * fps)
            files = frame_files(path)[first:]
            files = files if seconds is None else files[: max(1, round(seconds * fps))]
            return [decode(file, cover) for file in files]
        stop = None if seconds is None else start + seconds
        if path.suffix.lower() in VIDEOS:
            shown, end = _video_frames(path, cover, start, stop)
        else:
            shown, end = _animation_frames(path, cover, start, stop)
        return _at_rate(shown, fps, start, end if stop is None else min(stop, end))


def need_av(path: Path | str) -> None:
    """Raises `SafelightError` if there is nothing installed that reads videos."""
    if importlib.util.find_spec("av") is None:
        raise SafelightError(f"{path} is a video; to read it: pip install 'safelight[video]'")


def _at_rate(shown: Sequence[_Shown], fps: float, start: float, end: float) -> list[Image.Image]:
    """What is on the screen a while after each of `1 / fps` seconds began, from `start` to `end`:
    neither at their beginnings nor in the middle, where at the file's own rate, or half of it, it
    would depend on rounding.
    """
    times = [frame.at for frame in shown]
    count = max(1, round((end - start) * fps))
    looks = [start + (number + _A_WHILE) / fps for number in range(count)]
    return [shown[max(bisect.bisect_right(times, at) - 1, 0)].picture for at in looks]


def _animation_header(path: Path) -> ClipHeader:
    with Image.open(path) as image:
        times = [_time_of(frame) for frame in _frames(image)]
        shortest = sorted(times)[len(times) // 10]  # what stays the same is one long frame
        size = turned(image, image.size)
        return ClipHeader(size, round(sum(times) / shortest), 1 / shortest)


def _frames(image: ImageFile.ImageFile) -> Iterator[Image.Image]:
    """The open file again and again, each time standing at its next frame."""
    return islice(ImageSequence.Iterator(image), _first_frame(image), None)


def _first_frame(image: ImageFile.ImageFile) -> int:
    """1 for an animated PNG whose first picture is only for what cannot show the rest, else 0."""
    return int(getattr(image, "default_image", False))


def _time_of(frame: Image.Image) -> float:
    """How many seconds a frame of an animation is shown: at least a hundredth, and at most as long
    as one may be.
    """
    if frame.format in _TIMED_LATE:
        frame.load()
    milliseconds = frame.info.get("duration") or _UNSAID
    return min(max(float(milliseconds) / 1000, 0.01), _LONGEST_FRAME)


def _animation_frames(
    path: Path, cover: Size | None, start: float, stop: float | None
) -> tuple[list[_Shown], float]:
    """The frames from the last before `start` on, and the end of what they show."""
    shown: list[_Shown] = []
    with Image.open(path) as image:
        at = 0.0
        for frame in _frames(image):
            if stop is not None and at >= stop:
                break
            seconds = _time_of(frame)
            if at + seconds > start:
                shown.append(_Shown(upright(image, cover), at))
            at += seconds
    if not shown:
        raise UnreadableClipError(path, f"it ends before second {start:g}")
    return shown, at


def _video_header(path: Path) -> ClipHeader:
    with _container(path) as video:
        stream = video.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        first = next(iter(video.decode(stream)), None)
        if first is None:
            raise UnreadableClipError(path, "no frame of it can be decoded")
        if rate is None or not rate > 0:
            raise UnreadableClipError(path, "it does not say how many frames a second it has")
        frames = stream.frames or round(_seconds_of(video) * rate)
        if frames < 1:
            raise UnreadableClipError(
                path, "it does not say how long it is; bring it into another container, such as mp4"
            )
        size = (stream.width, stream.height)
        turned = _quarter_turns(first) % 2 == 1
        return ClipHeader((size[1], size[0]) if turned else size, frames, float(rate))


def _video_frames(
    path: Path, cover: Size | None, start: float, stop: float | None
) -> tuple[list[_Shown], float]:
    """The frames from the last before `start` on, and the end of what they show."""
    shown: list[_Shown] = []
    with _container(path) as video:
        stream = video.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 24)
        base = stream.time_base or Fraction(1, 1000)
        zero = float((stream.start_time or 0) * base)
        if start > 0:  # to the key frame before it
            video.seek(int((zero + start) / base), stream=stream)
        for frame in video.decode(stream):
            if cast(float | None, frame.time) is None:
                raise UnreadableClipError(path, "its frames do not say when they are shown")
            at = frame.time - zero
            if stop is not None and at >= stop:
                break
            if at <= start:
                shown.clear()
            shown.append(_Shown(_upright(path, frame, cover), at))
        if not shown:
            raise UnreadableClipError(path, f"no frame can be decoded from second {start:g} on")
        return shown, shown[-1].at + 1 / rate


def _upright(path: Path, frame: "VideoFrame", cover: Size | None) -> Image.Image:
    """A frame as a picture, brought to its size before it becomes one."""
    _check_size(path, frame.width, frame.height)  # each may have its own
    turns, size = _quarter_turns(frame), (frame.width, frame.height)
    if cover is not None:
        size = covering(size, (cover[1], cover[0]) if turns % 2 else cover)
    scaled = frame.reformat(*size, format="rgb24", interpolation="BICUBIC")
    picture = cast(Image.Image, scaled.to_image())  # pyright: ignore[reportUnknownMemberType]
    turn = _TURNS.get(turns)
    return picture if turn is None else picture.transpose(turn)


def _check_size(path: Path, width: int, height: int) -> None:
    """Raises `UnreadableClipError` for more pixels than Pillow takes of a picture."""
    most = 2 * (Image.MAX_IMAGE_PIXELS or width * height)
    if width * height > most:
        raise UnreadableClipError(path, f"it has more than {most:,} pixels; shrink it first")


@contextmanager
def _container(path: Path) -> Generator["InputContainer"]:
    need_av(path)
    import av

    with av.open(str(path)) as video:
        if not video.streams.video:
            raise UnreadableClipError(path, "it has no pictures, only sound")
        stream = video.streams.video[0]
        _check_size(path, stream.width, stream.height)
        stream.thread_type = "NONE"  # a training decodes in threads of its own
        yield video


def _seconds_of(video: "InputContainer") -> float:
    stream = video.streams.video[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (video.duration or 0) / 1_000_000


def _quarter_turns(frame: object) -> int:
    """How often a frame is to be turned by 90 degrees, counter-clockwise, to stand upright."""
    return round(cast(float, getattr(frame, "rotation", 0) or 0) / 90) % 4


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except (UnreadableClipError, SafelightError) as error:
        if isinstance(error, UnreadablePictureError) and error.path != path:
            raise UnreadableClipError(path, f"{error.path.name}: {error.reason}") from error
        raise
    except Exception as error:  # decoders raise anything at all on hostile bytes
        raise UnreadableClipError(path, why_unreadable(path, error)) from error


_A_WHILE = 0.45
_TIMED_LATE = ("WEBP", "AVIF")
_LONGEST_FRAME = 10.0  # seconds; what is held for hours moves no more than that
_UNSAID = 100  # milliseconds a frame, where an animation does not say; as browsers show it
_TURNS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}
