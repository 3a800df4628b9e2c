"""Where the pictures of a stream at work come from: a file, a folder, or a camera."""

import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from safelight.errors import SafelightError, first_line
from safelight.pictures import load_picture

Feed = Callable[[Image.Image], object]
"""What takes a picture for a stream, as its picture or as its hint."""
Report = Callable[[str], None]
"""What tells the user in one line what is wrong; the stream goes on."""
Source = Callable[[Feed, Report, threading.Event], None]
"""What feeds a stream until it is told to stop, in a thread of its own."""

_POLL = 0.05  # seconds between two looks at a folder
_PATIENCE = 1.0  # seconds in which a file may become whole
_SILENCE = 2.0  # seconds without a frame after which a camera is said to give none
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, order=True)
class _Seen:
    """A file as it was at a time; the newest is the greatest."""

    changed: int
    size: int
    inode: int
    path: Path


def watcher(path: Path) -> Source:
    """What follows a picture file, or the newest picture of a folder."""
    return lambda feed, report, stop: watch(path, feed, report, stop)


def watch(path: Path, feed: Feed, report: Report, stop: threading.Event) -> None:
    """Feeds a picture file whenever it changes, or the newest picture of a folder.

    One that is not whole yet is looked at again; one that stays so is reported once, and passed
    over until it changes.
    """
    seen: _Seen | None = None
    failed, since = seen, 0.0
    while not stop.is_set():
        found = _newest_file(path)
        if found is not None and found != seen:
            try:
                feed(load_picture(found.path))
                seen = found
            except Exception as error:
                now = time.monotonic()
                if found != failed:
                    failed, since = found, now
                elif now - since > _PATIENCE:
                    report(first_line(error))
                    seen = found
        stop.wait(_POLL)


def _newest_file(path: Path) -> _Seen | None:
    """The file to look at; hidden ones, which programs write into first, are none."""
    try:
        files = [path]
        if path.is_dir():
            files = [
                file
                for file in path.iterdir()
                if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
            ]
    except OSError:  # gone, or not to be read
        return None
    found: list[_Seen] = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        if stat.S_ISREG(state.st_mode):
            found.append(_Seen(state.st_mtime_ns, state.st_size, state.st_ino, file))
    return max(found, default=None)


def opened_camera(number: int) -> "Camera":
    """A camera of this machine; `SafelightError` if there is none, or no OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise SafelightError(
            'A camera is read by OpenCV: pip install "safelight[control]".'
        ) from error
    return Camera(cv2, number)


class Camera:
    """A camera, by its number on this machine."""

    def __init__(self, cv2: ModuleType, number: int):
        self._number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise SafelightError(
                f"There is no camera {number} on this machine, or another program has it; give "
                "another number, or --watch a picture file."
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def source(self, width: int, height: int) -> Source:
        """What feeds the middle of each frame, in the proportions of that width and height."""
        return lambda feed, report, stop: self._run(feed, report, stop, (width, height))

    def _run(
        self, feed: Feed, report: Report, stop: threading.Event, size: tuple[int, int]
    ) -> None:
        last, told = time.monotonic(), False
        try:
            while not stop.is_set():
                whole, frame = self._capture.read()
                if whole:
                    feed(middle(_in_rgb(frame), *size))
                    last, told = time.monotonic(), False
                    continue
                if not told and time.monotonic() - last > _SILENCE:
                    report(f"Camera {self._number} gives no frames; see whether it is plugged in.")
                    told = True
                stop.wait(_POLL)
        finally:
            self._capture.release()


def _in_rgb(frame: np.ndarray) -> np.ndarray:
    """A frame as OpenCV gives it, BGR, BGRA or grey, as (h, w, 3)."""
    if frame.ndim == 2:
        frame = frame[:, :, None]
    if frame.shape[2] == 1:
        return np.repeat(frame, 3, axis=2)
    return frame[:, :, 2::-1]


def middle(levels: np.ndarray, width: int, height: int) -> Image.Image:
    """The greatest part in the middle of a frame (h, w, 3) in the proportions of a size."""
    rows, columns = levels.shape[:2]
    if columns * height > rows * width:
        down, across = rows, max(1, round(rows * width / height))
    else:
        down, across = max(1, round(columns * height / width)), columns
    top, left = (rows - down) // 2, (columns - across) // 2
    cut = levels[top : top + down, left : left + across]
    return Image.fromarray(np.ascontiguousarray(cut))
