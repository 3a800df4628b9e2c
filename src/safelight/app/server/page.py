"""The web page: its files, which say nothing of what the server has, and how they are sent."""

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

router = APIRouter(include_in_schema=False)

_FILES = Path(__file__).parents[1] / "web"
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@router.get("/")
def page(request: Request) -> Response:
    """The page."""
    return _sent("index.html", request)


@router.get("/docs")
def reference(request: Request) -> Response:
    """The reference of the APIs, which is put together from /openapi.json."""
    return _sent("docs.html", request)


@router.get("/page/{name:path}")
def file(request: Request, name: str) -> Response:
    """A file of the page."""
    return _sent(name, request)


def _sent(name: str, request: Request) -> Response:
    found = page_files().get(name)
    if found is None:
        raise HTTPException(404, f"The page has no file {name!r}.")
    content = found.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_MEDIA[found.suffix], headers=headers)


@cache
def page_files() -> dict[str, Path]:
    """The page's files by their names; nothing else is sent."""
    return {
        path.relative_to(_FILES).as_posix(): path
        for path in _FILES.rglob("*")
        if path.suffix in _MEDIA
    }
