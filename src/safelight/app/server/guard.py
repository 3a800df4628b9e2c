"""Who may speak to the server, and how much a request may bring; each a plain ASGI layer."""

import base64
import binascii
import contextlib
import secrets
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from safelight.app.server.config import Serving
from safelight.app.server.replies import reply

_OPEN = ("/healthz", "/", "/docs")  # which say nothing of what is here
_NOT_LET_IN = 1008  # a WebSocket's code for what is against the rules
_PAGE = "/page/"  # files that every copy of the package has
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Lets in who brings the token, and whom no page of another site sent.

    A page elsewhere that a user looks at can make their browser ask this server: it is told by its
    Origin, or by the browser's Sec-Fetch-Site. On the loopback address a name that leads here (DNS
    rebinding) is told by the Host.
    """

    def __init__(self, app: ASGIApp, serving: Serving):
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or asks the app to."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            if scope["type"] == "websocket":  # which is answered by 403 before it is one
                refusal = WebSocketClose(_NOT_LET_IN)
            await refusal(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        origin = headers.get("origin")
        if origin is not None and origin in self.serving.origins:
            await self._across(origin, scope, receive, send)
            return
        await self.app(scope, receive, _with_headers(send, _ALWAYS))

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        host = headers.get("host", "")
        if self.serving.is_local and self.serving.token is None and not _is_loopback(host):
            return reply(403, f"This server is {self.serving.host}, not {host!r}.")
        if not self._is_same_site(host, headers):
            return reply(
                403,
                "A page of another site asks; the server lets it in by --origin "
                f"{headers.get('origin') or 'ITS-ADDRESS'}.",
            )
        method = scope.get("method")  # which a WebSocket has none of
        preflight = method == "OPTIONS" and "access-control-request-method" in headers
        told = headers.get("authorization") or _in_protocols(scope.get("subprotocols", ()))
        if preflight or _is_open(scope["path"]) or self._knows(told):
            return None
        return reply(
            401,
            "This server wants its token: Authorization: Bearer TOKEN, or basic with the token as "
            "the password.",
            headers={"WWW-Authenticate": 'Basic realm="safelight"'},
        )

    def _is_same_site(self, host: str, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return origin in self.serving.origins or urlsplit(origin).netloc == host
        return headers.get("sec-fetch-site") not in ("cross-site", "same-site") or (
            headers.get("sec-fetch-mode") == "navigate"  # a link that a user follows
        )

    def _knows(self, authorization: str) -> bool:
        token = self.serving.token
        if token is None:
            return True
        kind, _, told = authorization.partition(" ")
        if kind.lower() == "basic":
            try:
                told = base64.b64decode(told, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return secrets.compare_digest(told.strip().encode(), token.encode())

    async def _across(self, origin: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a page of a site that is let in, in the words of CORS."""
        allowed = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "Location, Retry-After",
            "Vary": "Origin",
        }
        if scope["method"] == "OPTIONS":
            allowed |= {
                "Access-Control-Allow-Methods": "GET, POST, DELETE",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
                "Access-Control-Max-Age": "600",
            }
            await reply(200, "", headers=allowed)(scope, receive, send)
            return
        await self.app(scope, receive, _with_headers(send, {**_ALWAYS, **allowed}))


class BoundedBody:
    """Refuses requests of more than `most` bytes, those that do not say so as they come."""

    def __init__(self, app: ASGIApp, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or asks the app to."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = reply(413, f"The request is too long; {self.most} bytes are the most.")
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and (len(length) > 15 or int(length) > self.most):
            await refusal(scope, receive, send)
            return
        came, begun, refused = 0, False, False

        async def bounded() -> Message:
            nonlocal came, refused
            message = await receive()
            came += len(message.get("body", b""))
            if came <= self.most:
                return message
            if not begun and not refused:
                await refusal(scope, receive, send)
            refused = True
            return {"type": "http.disconnect"}

        async def watched(message: Message) -> None:
            nonlocal begun
            if not refused:  # whatever the app says to a request that it could not read
                begun = True
                await send(message)

        try:
            await self.app(scope, bounded, watched)
        except ClientDisconnect:
            if not refused:
                raise


_ALWAYS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending


def _in_protocols(protocols: Iterable[str]) -> str:
    """What Authorization would say of the token of a WebSocket, for which browsers send no such
    header: it is the protocol `token.`, and the token in URL-safe base64 without its `=`.
    """
    for protocol in protocols:
        kind, dot, told = protocol.partition(".")
        if kind == "token" and dot:
            with contextlib.suppress(binascii.Error, ValueError):
                padded = told + "=" * (-len(told) % 4)
                return f"Bearer {base64.urlsafe_b64decode(padded).decode()}"
    return ""


def _is_open(path: str) -> bool:
    """Whether an address needs no token: the page must be there to ask for it."""
    return path in _OPEN or path.startswith(_PAGE)


def _is_loopback(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK
    except ValueError:
        return False
