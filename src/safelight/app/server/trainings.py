"""Trainings under one folder, to look at: their logs, previews and recipes. Nothing is written, and
nothing is read that a look through the folder has not found there.
"""

import json
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from safelight.app.server.refusals import NotHereError
from safelight.app.server.replies import service_of
from safelight.train.progress import LOG_NAME

router = APIRouter(prefix="/v1/trainings", tags=["trainings"])

_DEEPEST = 4  # folders below the given one
_MOST = 500  # trainings
_ROWS = 2000  # of a log that are told, evenly spread
_ALIVE = 300.0  # seconds since the last line, within which a training is taken to run
_LAST = 4096  # bytes at the end of a log, its last line among them
_LONGEST = 64 * 2**20  # bytes of a log that are read
_RECIPE = 256 * 1024

Name = Annotated[str, Query(min_length=1, max_length=1000, description="as the list has it")]
Row = dict[str, float]


class TrainingView(BaseModel):
    """A training as its folder tells it."""

    name: str = Field(description="its folder's place below that of all")
    kind: str | None
    step: int
    steps: int | None
    batch_size: int | None
    updated: float = Field(description="when its log was last written, in seconds since 1970")
    runs: bool = Field(description="whether that is recent, and its end not reached")
    last: Row = Field(description="the last line of its log")
    seconds_left: float | None


class TrainingInFull(TrainingView):
    """A training, and what it has told."""

    rows: list[Row] = Field(description="lines of its log, the first and the last among them")
    previews: list[str]
    checkpoints: list[str]
    recipe: str


@router.get("", summary="Trainings")
async def trainings(request: Request) -> list[TrainingView]:
    """The trainings in the folder of `--runs`, the one written last first."""
    found = await run_in_threadpool(_found, _root(request))
    views = [await run_in_threadpool(_view, name, folder) for name, folder in found.items()]
    return sorted(views, key=lambda view: -view.updated)


@router.get("/one", summary="A training")
async def training(request: Request, name: Name) -> TrainingInFull:
    """What a training has told so far."""
    folder = await _one(request, name)
    return await run_in_threadpool(_in_full, name, folder)


@router.get("/preview", summary="A preview of a training", response_class=FileResponse)
async def preview(request: Request, name: Name, file: Name) -> FileResponse:
    """One of a training's `previews`, a PNG."""
    folder = await _one(request, name)
    found = await run_in_threadpool(_previews, folder)
    if file not in found:
        raise HTTPException(404, f"The training {name!r} has no preview {file!r}.")
    return FileResponse(found[file], media_type="image/png")


def _root(request: Request) -> Path:
    root = service_of(request).serving.runs
    if root is None:
        raise NotHereError("This server shows no trainings; start it with --runs FOLDER.")
    return root


async def _one(request: Request, name: str) -> Path:
    found = await run_in_threadpool(_found, _root(request))
    if name not in found:
        raise HTTPException(404, f"There is no training {name!r}.")
    return found[name]


def _found(root: Path) -> dict[str, Path]:
    """Folders that hold a log, by their places below `root`; links are not followed."""
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        if LOG_NAME in files and not (Path(folder) / LOG_NAME).is_symlink():
            found[place.as_posix()] = Path(folder)
            folders.clear()
        if len(place.parts) >= _DEEPEST:
            folders.clear()
        if len(found) >= _MOST:
            break
    return found


def _view(name: str, folder: Path) -> TrainingView:
    log = folder / LOG_NAME
    updated = log.stat().st_mtime
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _LAST))
        rows = list(_rows(stream.read().splitlines()))
    last = rows[-1] if rows else {}
    recipe = _recipe(_text(folder))
    step, steps, batch = int(last.get("step", 0)), recipe["steps"], recipe["batch_size"]
    steps = steps if isinstance(steps, int) else None
    batch = batch if isinstance(batch, int) else None
    runs = time.time() - updated < _ALIVE and (steps is None or step < steps)
    speeds = [row["images_per_s"] for row in rows if row.get("images_per_s")]
    speed, left = speeds[-1] if speeds else None, None
    if runs and steps is not None and batch is not None and speed:
        left = (steps - step) * batch / speed
    kind = recipe["kind"]
    return TrainingView(
        name=name,
        kind=kind if isinstance(kind, str) else None,
        step=step,
        steps=steps,
        batch_size=batch,
        updated=updated,
        runs=runs,
        last=last,
        seconds_left=left,
    )


def _in_full(name: str, folder: Path) -> TrainingInFull:
    with (folder / LOG_NAME).open("rb") as stream:
        rows = list(_rows(stream.read(_LONGEST).splitlines()))
    if len(rows) > _ROWS:
        rows = [rows[round(i * (len(rows) - 1) / (_ROWS - 1))] for i in range(_ROWS)]
    kept = folder / "checkpoints"
    return TrainingInFull(
        **_view(name, folder).model_dump(),
        rows=rows,
        previews=list(_previews(folder)),
        checkpoints=sorted(one.name for one in kept.glob("*")) if kept.is_dir() else [],
        recipe=_text(folder),
    )


def _rows(lines: list[bytes]) -> Iterator[Row]:
    """Whole lines with their numbers; one that is being written is left out."""
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict):
            values = cast(dict[str, object], told)
            yield {k: float(v) for k, v in values.items() if isinstance(v, int | float)}


def _previews(folder: Path) -> dict[str, Path]:
    files = sorted((folder / "previews").glob("*.png"))
    return {file.name: file for file in files if file.is_file() and not file.is_symlink()}


def _text(folder: Path) -> str:
    file = folder / "recipe.toml"
    if not file.is_file() or file.is_symlink():
        return ""
    with file.open("rb") as stream:
        return stream.read(_RECIPE).decode("utf-8", "replace")


def _recipe(text: str) -> dict[str, object]:
    """The kind, steps and size of a batch that a recipe names."""
    try:
        recipe: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        recipe = {}
    loop = recipe.get("loop")
    told = cast(dict[str, object], loop) if isinstance(loop, dict) else {}
    return {
        "kind": recipe.get("kind"),
        "steps": told.get("steps"),
        "batch_size": told.get("batch_size"),
    }
