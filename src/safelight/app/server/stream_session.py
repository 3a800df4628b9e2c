"""One page's stream: the process that makes its pictures, and the newest of what both sides say."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import cast

from safelight.app.server.stream_opening import Opening
from safelight.config import Value, to_dict
from safelight.errors import SafelightError

_LEAVING = 3.0  # seconds that a page waits for another to be gone
_PATIENCE = 1.0  # seconds that a process, which has nothing to lose, has to end by itself


class StreamTakenError(SafelightError):
    """Another page has the stream."""


@dataclass(frozen=True)
class Message:
    """What one side tells the other: its kind, what is told, and bytes."""

    kind: str
    told: Mapping[str, Value]
    body: bytes = b""


class Newest:
    """The newest message of each kind; what waited to be taken gives way to what comes."""

    def __init__(self):
        self._messages: dict[str, Message] = {}
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Takes a message in the place of one of its kind."""
        self._messages.pop(message.kind, None)
        self._messages[message.kind] = message
        self._news.set()

    async def take(self) -> list[Message]:
        """What came since the last call, at most one of each kind, as soon as there is any."""
        await self._news.wait()
        self._news.clear()
        messages = list(self._messages.values())
        self._messages.clear()
        return messages


class Streams:
    """Room for one stream at a time, so that no more than one model is held for pages."""

    def __init__(self):
        self._process: Process | None = None
        self._room = asyncio.Lock()

    @property
    def taken(self) -> bool:
        """Whether a page has it."""
        return self._room.locked()

    @contextlib.asynccontextmanager
    async def opened(self, opening: Opening) -> AsyncGenerator["Session"]:
        """A stream's process, which has ended afterwards.

        Raises `StreamTakenError` if another page has it and does not leave it in a few seconds, as
        one does that opens it anew.
        """
        try:
            await asyncio.wait_for(self._room.acquire(), _LEAVING)
        except TimeoutError:
            raise StreamTakenError(
                "Another page draws live on this server, which has room for one; close that first."
            ) from None
        process: Process | None = None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "safelight.app.server.stream_worker"),
                stdin=PIPE,
                stdout=PIPE,
            )
            self._process = process
            session = Session(process)
            await session.send(Message("opening", {"opening": to_dict(opening)}))
            yield session
        finally:
            try:
                if process is not None:
                    await asyncio.shield(_ended(process))
            finally:
                self._process = None
                self._room.release()

    def close(self) -> None:
        """Ends the stream that there is."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class Session:
    """Messages to and from a stream's process."""

    def __init__(self, process: Process):
        self._process = process

    async def send(self, message: Message) -> None:
        """Sends one, and waits until the process has room for the next."""
        pipe = self._process.stdin
        assert pipe is not None
        head = {"kind": message.kind, **message.told, "bytes": len(message.body)}
        with contextlib.suppress(ConnectionError):  # it has ended, as `receive` tells
            pipe.write(json.dumps(head).encode() + b"\n" + message.body)
            await pipe.drain()

    async def receive(self) -> Message | None:
        """The next one; None where the process has ended."""
        pipe = self._process.stdout
        assert pipe is not None
        line = await pipe.readline()
        if not line:
            return None
        told = cast(dict[str, Value], json.loads(line))
        kind, size = str(told.pop("kind")), cast(int, told.pop("bytes"))
        try:
            return Message(kind, told, await pipe.readexactly(size))
        except asyncio.IncompleteReadError:
            return None


async def _ended(process: Process) -> None:
    """Lets a process end: its input ends, and then it is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _PATIENCE)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
