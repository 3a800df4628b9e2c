"""A stream at work: fed by a source or the page, its pictures shown there or written."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from safelight.app.live_sources import Feed, Report, Source
from safelight.app.outputs import check_file
from safelight.errors import SafelightError
from safelight.pipelines.picture_files import picture_suffix, write_preview
from safelight.pipelines.stream import Stream
from safelight.pipelines.stream_pictures import StreamPicture

_LEAVE = 5.0  # seconds that a source has to come to an end


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
    target, folder = output.resolve(), output.parent.resolve()  # a link there is replaced
    own = (target, target.parent, folder, folder / output.name)
    if watch is not None and watch.resolve() in own:
        raise SafelightError(f"{output} would be watched itself; write to another folder.")


def run_live(stream: Stream, source: Source | None, output: Path | None, port: int) -> None:
    """Makes pictures until interrupted: of a source, or of what is drawn on the page; into a file,
    or onto the page. What goes wrong on the way is told there, or on standard error.
    """
    from safelight.app.live_page import LivePage

    feed, newest, page = feed_of(stream, hint=stream.takes_hints), Newest(), None
    if output is None:
        drawn = feed if source is None and stream.takes_pictures else None
        page = LivePage(stream, drawn, newest, port)
        threading.Thread(target=page.serve_forever, daemon=True).start()
        print(f"Open {page.url} in a browser; Ctrl-C ends it.", flush=True)
        take, report = newest.put, newest.fail
    else:
        print(f"Writing {output}; Ctrl-C ends it.", flush=True)
        take, report = _writer(output), _complain
    feeding = None if source is None else Feeding(source, feed, report, stream)
    try:
        follow(stream, take, report)
    except KeyboardInterrupt:  # which is how it ends
        pass
    finally:
        stream.close()
        if page is not None:
            page.shutdown()
            page.server_close()
        if feeding is not None:
            feeding.end()


class Feeding:
    """A source at work in a thread of its own; a fault of it closes the stream."""

    def __init__(self, source: Source, feed: Feed, report: Report, stream: Stream):
        self._stop = threading.Event()
        self._fault: Exception | None = None

        def run() -> None:
            try:
                source(feed, report, self._stop)
            except Exception as error:
                self._fault = error
                stream.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stops the source and waits for it, so that a camera is given back; raises its fault."""
        self._stop.set()
        self._thread.join(_LEAVE)
        if self._fault is not None:
            raise self._fault


def follow(stream: Stream, take: Callable[[StreamPicture], None], report: Report) -> None:
    """Makes pictures until the stream is closed; a mistake is told, and the stream goes on with
    what comes next.
    """
    while True:
        try:
            for picture in stream:
                take(picture)
            return
        except SafelightError as error:
            report(str(error))


def _writer(output: Path) -> Callable[[StreamPicture], None]:
    """What writes each new picture over the last."""
    return lambda picture: write_preview(output, picture.image)


def _complain(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


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

    def put(self, picture: StreamPicture) -> None:
        """Takes a picture; what went wrong before is past."""
        self._take(picture, "")

    def fail(self, error: str) -> None:
        """Takes what went wrong."""
        self._take(self._picture, error)

    def _take(self, picture: StreamPicture | None, error: str) -> None:
        with self._changed:
            self._picture, self._error = picture, error
            self._number += 1
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> tuple[int, StreamPicture | None, str]:
        """The next number, the picture and the error, as soon as there is a later one than
        `number`, or after some seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout)
            return self._number, self._picture, self._error
