"""Streams for pages: `/v1/live`, a WebSocket over which a page draws and sees.

The first message opens the stream (`AskedStream`, as text). Then text is what the page says
(`Said`), bytes are what it draws: the width as four bytes, the least first, and RGBA. The server
answers by text, `{"kind": "begun" | "wrong" | "refused", ...}`, and by bytes: width and height,
four bytes each, and RGB. Of what waits only the newest is kept, on either way.
"""

import asyncio
import json
import struct
from typing import cast

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from safelight.app.server.asked import Number, Seed, Strict
from safelight.app.server.config import Limits, check_asked, check_unwatched
from safelight.app.server.service import Service
from safelight.app.server.stream_opening import Opening
from safelight.app.server.stream_session import Message, Newest, Session, StreamTakenError
from safelight.config import near
from safelight.errors import SafelightError

router = APIRouter(prefix="/v1")

PROTOCOL = "safelight"
_IDLE = 900.0  # seconds without a word after which a stream is closed
_TRY_LATER, _NOT_SO = 1013, 1008  # codes of a WebSocket's end
_CHANNELS = 4


class AskedStream(Strict):
    """A stream to be opened; what is null is the model's own choice. With `strength` the drawing
    is what pictures begin from, with `control` its hint, with neither nothing is drawn.
    """

    model: str | None = None
    prompt: str = ""
    negative: str = ""
    seed: Seed = 0
    steps: Number = 4
    scale: float | None = Field(default=None, ge=0)
    sampler: str | None = None
    width: Number | None = None
    height: Number | None = None
    strength: float | None = Field(default=None, gt=0, le=1)
    control: str | None = None


class Said(Strict):
    """What a page says meanwhile."""

    prompt: str
    negative: str
    seed: str = Field(max_length=32)


@router.websocket("/live")
async def live(socket: WebSocket) -> None:
    """One page's stream; there is room for one, and a second is told so."""
    service = cast(Service, socket.app.state.service)
    offered = cast(list[str], socket.scope.get("subprotocols", []))
    await socket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    try:
        opening = _opening(await _first(socket), service)
        async with service.streams.opened(opening) as session:
            await _joined(socket, session, service.serving.limits)
    except SafelightError as error:
        await _refuse(
            socket, str(error), _TRY_LATER if isinstance(error, StreamTakenError) else _NOT_SO
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        await _refuse(socket, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", _NOT_SO)
    except WebSocketDisconnect:
        pass


async def _first(socket: WebSocket) -> str:
    try:
        return await asyncio.wait_for(socket.receive_text(), _IDLE)
    except KeyError:
        raise SafelightError("A stream is opened by text; send an AskedStream as JSON.") from None


def _opening(text: str, service: Service) -> Opening:
    """What the process is told; `SafelightError` for what is not here or too much."""
    check_unwatched(service.serving)
    asked = AskedStream.model_validate_json(text)
    limits = service.serving.limits
    if service.closing:
        raise SafelightError("The server is about to end; come again later.")
    model = service.catalogue.find(asked.model)
    if asked.control is not None and asked.control not in model.controls:
        known = near(asked.control, model.controls) if model.controls else "It has none."
        raise SafelightError(f"{model.name} has no control {asked.control!r}. {known}")
    check_asked(
        ("steps", asked.steps, limits.steps),
        ("prompt", len(asked.prompt), limits.prompt),
        ("negative", len(asked.negative), limits.prompt),
        ("width x height", (asked.width or 1) * (asked.height or 1), limits.pixels),
    )
    return Opening(
        place=model.place,
        device=service.serving.device,
        most_pixels=limits.pixels,
        **asked.model_dump(exclude={"model"}),
    )


async def _joined(socket: WebSocket, session: Session, limits: Limits) -> None:
    """Carries messages both ways until either side ends."""
    said, made = Newest(), Newest()
    tasks = [
        asyncio.create_task(_hear(socket, said, limits)),
        asyncio.create_task(_pass_on(said, session)),
        asyncio.create_task(_collect(session, made)),
        asyncio.create_task(_show(made, socket)),
    ]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


async def _hear(socket: WebSocket, said: Newest, limits: Limits) -> None:
    """What the page says and draws, until it goes or is silent for too long."""
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), _IDLE)
        except TimeoutError:
            raise SafelightError("Nothing was drawn or said for long; begin again.") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        text, drawn = message.get("text"), message.get("bytes")
        if text is not None:
            told = Said.model_validate_json(text)
            if max(len(told.prompt), len(told.negative)) > limits.prompt:
                raise SafelightError(f"A prompt has {limits.prompt} characters at most here.")
            said.put(Message("say", {}, told.model_dump_json().encode()))
        elif drawn is not None:
            said.put(_drawing(drawn, limits))


def _drawing(drawn: bytes, limits: Limits) -> Message:
    width = int.from_bytes(drawn[:4], "little")
    pixels, rest = divmod(len(drawn) - 4, _CHANNELS)
    if rest or not 0 < width <= pixels <= limits.given_pixels or pixels % width:
        raise SafelightError("A drawing is its width in four bytes, and whole rows of RGBA.")
    return Message("draw", {"width": width}, drawn[4:])


async def _pass_on(said: Newest, session: Session) -> None:
    while True:
        for message in await said.take():
            await session.send(message)


async def _collect(session: Session, made: Newest) -> None:
    while True:
        message = await session.receive()
        if message is None:
            raise SafelightError("The process of the stream has ended; begin again.")
        if message.kind == "refused":
            raise SafelightError(str(message.told["line"]))
        made.put(message)


async def _show(made: Newest, socket: WebSocket) -> None:
    while True:
        for message in await made.take():
            if message.kind == "picture":
                size = (cast(int, message.told[side]) for side in ("width", "height"))
                await socket.send_bytes(struct.pack("<II", *size) + message.body)
            else:
                await socket.send_text(json.dumps({"kind": message.kind, **message.told}))


async def _refuse(socket: WebSocket, line: str, code: int) -> None:
    """Tells why a stream ends, to a page that is perhaps gone."""
    try:
        await socket.send_text(json.dumps({"kind": "refused", "line": " ".join(line.split())}))
        await socket.close(code)
    except (RuntimeError, WebSocketDisconnect):
        pass
