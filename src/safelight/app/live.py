"""A stream at work: where its pictures come from, and where they go."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from safelight.app.outputs import check_file
from safelight.errors import SafelightError
from safelight.pictures import load_picture
from safelight.pipelines.picture_files import picture_suffix, write_preview
from safelight.pipelines.stream import Stream, StreamPicture

Source = Callable[["Feed", threading.Event], None]
"""What feeds a stream until it is told to stop, in a thread of its own."""
Feed = Callable[[Image.Image], object]
"""What takes a picture for a stream, as its picture or as its hint."""

_POLL = 0.05  # seconds between two looks at a folder
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def check_places(
    watch: Path | None, camera: int | None, output: Path | None, *, shown: bool
) -> None:
    """Raises `SafelightError` for sources and targets that do not go together; `shown` if the
    stream looks at pictures.
    """
    if watch is not None and camera is not None:
        raise SafelightError("--watch and --camera are two sources; give one of them.")
    if (watch is not None or camera is not None) and not shown:
        raise SafelightError(
            "The picture would do nothing: give --strength to begin from it, or --control KIND to "
            "be steered by it."
        )
    if watch is not None and not watch.absolute().parent.is_dir():
        raise SafelightError(f"The folder {watch.parent} does not exist; make it first.")
    if output is None:
        return
    picture_suffix(output)
    check_file(output)
    if watch is None and camera is None:
        raise SafelightError(
            "--output writes what is made of --watch or --camera; without these a page shows it."
        )
    if watch is not None and watch.absolute() in (output.absolute(), output.absolute().parent):
        raise SafelightError(f"{output} would be watched itself; write to another folder.")


def run_live(stream: Stream, source: Source | None, output: Path | None, port: int) -> None:
    """Makes pictures until interrupted: of a source, or of what is drawn on the page; into a file,
    or onto the page.
    """
    from safelight.app.live_page import LivePage

    feed, stop = feed_of(stream, hint=stream.takes_hints), threading.Event()
    newest, page = Newest(), None
    if output is None:
        page = LivePage(stream, feed if source is None else None, newest, port)
        threading.Thread(target=page.serve_forever, daemon=True).start()
        print(f"Open {page.url} in a browser; Ctrl-C ends it.", flush=True)
    else:
        print(f"Writing {output}; Ctrl-C ends it.", flush=True)
    if source is not None:
        threading.Thread(target=source, args=(feed, stop), daemon=True).start()
    try:
        if output is None:
            show(stream, newest)
        else:
            write(stream, output)
    except KeyboardInterrupt:  # which is how it ends
        pass
    finally:
        stop.set()
        stream.close()
        if page is not None:
            page.shutdown()
            page.server_close()


def feed_of(stream: Stream, *, hint: bool) -> Feed:
    """What takes pictures for a stream: as its hint, or as its picture."""
    return (
        (lambda picture: stream.update(hint=picture))
        if hint
        else (lambda picture: stream.update(picture=picture))
    )


class Newest:
    """The newest picture of a stream, or what went wrong, for those who show it."""

    def __init__(self):
        self._changed = threading.Condition()
        self._picture: StreamPicture | None = None
        self._error = ""
        self._number = 0

    def put(self, picture: StreamPicture | None, error: str = "") -> None:
        """Takes a picture, or an error in its place."""
        with self._changed:
            self._picture, self._error = picture or self._picture, error
            self._number += 1
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> tuple[int, StreamPicture | None, str]:
        """The next number, the picture and the error, as soon as there is a later one than
        `number`, or after some seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout)
            return self._number, self._picture, self._error


def show(stream: Stream, newest: Newest) -> None:
    """Makes pictures until the stream is closed; a mistake is shown, and the stream goes on."""
    while True:
        try:
            for picture in stream:
                newest.put(picture)
            return
        except SafelightError as error:
            newest.put(None, str(error))
            time.sleep(_POLL)


def write(stream: Stream, output: Path) -> None:
    """Writes each new picture over the last, until the stream is closed."""
    for picture in stream:
        write_preview(output, picture.image)


def watcher(path: Path) -> Source:
    """What follows a picture file, or the newest picture of a folder."""
    return lambda feed, stop: watch(path, feed, stop)


def watch(path: Path, feed: Feed, stop: threading.Event) -> None:
    """Feeds a picture file whenever it changes, or the newest picture of a folder; one that is not
    whole yet is looked at again.
    """
    seen: tuple[Path, int, int] | None = None
    while not stop.is_set():
        found = _newest_file(path)
        if found is not None and found != seen:
            try:
                feed(load_picture(found[0]))
                seen = found
            except (SafelightError, OSError):  # half written, or gone again
                pass
        stop.wait(_POLL)


def _newest_file(path: Path) -> tuple[Path, int, int] | None:
    """The file to look at, with its time and size, by which a change is told."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES]
    found: list[tuple[int, int, Path]] = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((state.st_mtime_ns, state.st_size, file))
    if not found:
        return None
    changed, size, newest = max(found)
    return newest, changed, size


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
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise SafelightError(
                f"There is no camera {number} on this machine, or another program has it; give "
                "another number, or --watch a picture file."
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """Feeds each frame, its middle square, until told to stop."""
        while not stop.is_set():
            whole, frame = self._capture.read()
            if not whole:
                time.sleep(_POLL)
                continue
            feed(square(frame[:, :, ::-1]))
        self._capture.release()


def square(levels: np.ndarray) -> Image.Image:
    """The middle square of a frame (h, w, 3)."""
    height, width = levels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = levels[top : top + side, left : left + side]
    return Image.fromarray(np.ascontiguousarray(cut))
