"""The process of one stream: `python -m safelight.app.server.stream_worker`.

It has a model of its own for as long as a page keeps it, so that no job waits for a stream, nor a
stream for a job, and all that it took is given back at its end. Standard input brings an `Opening`
as the first message, then what the page says and draws; where that ends, so does the process.
Standard output carries what is begun, made and wrong. A message is a line of JSON that names its
`kind` and the number of `bytes` behind it.
"""

import io
import json
import os
import signal
import sys
import threading
from typing import cast

from safelight.app.live import feed_of, follow
from safelight.app.live_messages import Begun, draw, say
from safelight.app.server.stream_opening import Opening
from safelight.config import Value, from_dict
from safelight.errors import SafelightError
from safelight.pipelines.load import choose_device, load
from safelight.pipelines.stream import Stream
from safelight.pipelines.stream_pictures import StreamPicture
from safelight.pipelines.stream_settings import unseen_control
from safelight.pipelines.streaming import fastest, stream


def main() -> None:
    """Runs a stream on this process' standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server
    pipe = Pipe(cast(io.BufferedReader, sys.stdin.buffer), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever prints, prints into the log
    told, _ = pipe.read()
    try:
        opened = _opened(from_dict(Opening, cast(dict[str, Value], told["opening"])))
    except SafelightError as error:
        pipe.write("refused", b"", line=str(error))
        return
    pipe.write("begun", b"", **Begun.of(opened, draws=opened.takes_pictures).as_dict())
    threading.Thread(target=_listen, args=(pipe, opened), daemon=True).start()
    follow(
        opened,
        lambda picture: _show(pipe, picture),
        lambda line: pipe.write("wrong", b"", line=line),
    )


def _opened(asked: Opening) -> Stream:
    device = choose_device(asked.device)
    pipeline = load(asked.place, dtype=fastest(device), device=device, offline=True)
    controls = [] if asked.control is None else [unseen_control(asked.control, hint=True)]
    opened = stream(
        pipeline,
        prompt=asked.prompt,
        negative=asked.negative,
        seed=asked.seed,
        steps=asked.steps,
        scale=asked.scale,
        sampler=asked.sampler,
        width=asked.width,
        height=asked.height,
        strength=asked.strength,
        controls=controls,
    )
    width, height = opened.settings.width, opened.settings.height
    if width * height > asked.most_pixels:
        raise SafelightError(
            f"A picture of {width} x {height} pixels is larger than this server makes "
            f"({asked.most_pixels} pixels); ask for a smaller one."
        )
    return opened


def _show(pipe: "Pipe", picture: StreamPicture) -> None:
    height, width = picture.levels.shape[:2]
    pipe.write("picture", picture.levels.tobytes(), width=width, height=height)


def _listen(pipe: "Pipe", opened: Stream) -> None:
    """Takes what the page says and draws, until the server lets go of the pipe."""
    feed = feed_of(opened, hint=opened.takes_hints)
    while True:
        told, body = pipe.read()
        try:
            if told["kind"] == "say":
                say(opened, body)
            else:
                draw(feed, body, cast(int, told["width"]))
        except SafelightError as error:
            pipe.write("wrong", b"", line=str(error))
        except (ValueError, KeyError, RecursionError):
            pipe.write("wrong", b"", line="The message cannot be read.")


class Pipe:
    """Messages over two pipes; an end of either ends this process at once, for its page is gone."""

    def __init__(self, source: io.BufferedReader, target: io.BufferedWriter):
        self._source, self._target = source, target
        self._writing = threading.Lock()

    def read(self) -> tuple[dict[str, object], bytes]:
        """The next message."""
        line = self._source.readline()
        if not line:
            os._exit(0)
        told = cast(dict[str, object], json.loads(line))
        return told, self._source.read(cast(int, told["bytes"]))

    def write(self, kind: str, body: bytes, **told: int | str | bool) -> None:
        """Sends one message; waits while the other end does not read."""
        head = json.dumps({"kind": kind, **told, "bytes": len(body)}).encode()
        with self._writing:
            try:
                self._target.write(head + b"\n" + body)
                self._target.flush()
            except (BrokenPipeError, ValueError):
                os._exit(0)


if __name__ == "__main__":
    main()
