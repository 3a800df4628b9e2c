"""A page on this machine by which a stream is drawn for, and seen; it speaks to nobody else."""

import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import SplitResult, parse_qs, urlsplit

from safelight.app.live import Newest
from safelight.app.live_messages import Begun, draw, say
from safelight.app.live_sources import Feed
from safelight.errors import SafelightError
from safelight.pipelines.stream import Stream

_HOST = "127.0.0.1"
_MOST = {"/draw": 64 * 2**20}  # bytes that a request may bring
_USUAL = 64 * 2**10
_WAIT = 10.0  # seconds that a request for the next picture may take


class LivePage(ThreadingHTTPServer):
    """Serves the page at `url`, which holds the token that every request must bring.

    A page of another site cannot drive it: it does not know the token, cannot send the header that
    carries it, and is refused by its origin; a name that leads here is refused by the host.

    Raises `SafelightError` for a port that is taken.
    """

    daemon_threads = True

    def __init__(self, stream: Stream, feed: Feed | None, newest: Newest, port: int):
        self.stream, self.feed, self.newest = stream, feed, newest
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise SafelightError(
                f"Port {port} cannot be had: {getattr(error, 'strerror', None) or error}; choose "
                "another by --port, or 0 for any."
            ) from error
        names = (_HOST, "localhost")
        self.hosts = tuple(f"{name}:{self.server_port}" for name in names)
        if self.server_port == 80:  # which browsers leave out
            self.hosts += names

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{_HOST}:{self.server_port}/?token={self.token}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a browser that has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    server: LivePage  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds that a browser may be silent

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = parse_qs(address.query)
        if address.path == "/" and self._is_ours(asked.get("token", [""])[0]):
            self._answer(HTTPStatus.OK, self._page(), "text/html; charset=utf-8")
        elif address.path == "/newest" and self._is_ours(self.headers.get("X-Token", "")):
            try:
                after = int(asked.get("after", ["0"])[0])
            except ValueError:
                self._cannot_read()
            else:
                self._newest(after)
        else:
            self._refuse()

    def do_POST(self) -> None:
        if not self._is_ours(self.headers.get("X-Token", "")):
            self._refuse()
            return
        address, length = urlsplit(self.path), self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            self._cannot_read()
            return
        most = _MOST.get(address.path, _USUAL)
        if len(length) > 12 or int(length) > most:
            self.close_connection = True
            told = f"The request is too long; {most} bytes are the most.".encode()
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
            return
        body = self.rfile.read(int(length))
        try:
            self._take(address, body)
        except SafelightError as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error).encode())
        except (ValueError, KeyError, RecursionError):
            self._cannot_read()
        else:
            self._answer(HTTPStatus.NO_CONTENT)

    def _take(self, address: SplitResult, body: bytes) -> None:
        if address.path == "/say":
            say(self.server.stream, body)
        elif address.path == "/draw" and self.server.feed is not None:
            draw(self.server.feed, body, int(parse_qs(address.query)["width"][0]))
        else:
            raise SafelightError("There is nothing of that name here.")

    def _newest(self, after: int) -> None:
        number, picture, error = self.server.newest.after(after, _WAIT)
        height, width = (0, 0) if picture is None else picture.levels.shape[:2]
        self._answer(
            HTTPStatus.OK,
            b"" if picture is None or error else picture.levels.tobytes(),
            "application/octet-stream",
            {
                "X-Number": str(number),
                "X-Width": str(width),
                "X-Height": str(height),
                "X-Error": json.dumps(error),
            },
        )

    def _page(self) -> bytes:
        begun = Begun.of(self.server.stream, draws=self.server.feed is not None)
        told = {"token": self.server.token, **begun.as_dict()}
        text = json.dumps(told).replace("<", "\\u003c")
        page = files("safelight.app").joinpath("live_page.html").read_text("utf-8")
        return page.replace('"TOLD"', text).encode()

    def _is_ours(self, token: str) -> bool:
        if self.headers.get("Host") not in self.server.hosts:
            return False
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            return False
        return secrets.compare_digest(token.encode(), self.server.token.encode())

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(HTTPStatus.FORBIDDEN, b"Open the address that safelight live printed.")

    def _cannot_read(self) -> None:
        self._answer(HTTPStatus.BAD_REQUEST, b"The request cannot be read.")

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", _POLICY)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: each picture is a request."""


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
