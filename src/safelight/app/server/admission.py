"""What is let in: a request is checked as far as that needs no model, and its pictures are read."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from safelight.app.server.asked import Asked, put_aside, request_of
from safelight.app.server.catalogue import Catalogue, Entry
from safelight.app.server.config import Limits, check_asked
from safelight.app.server.estimates import check_estimated
from safelight.app.server.grids import cells_of, count_of
from safelight.app.server.records import NewJob
from safelight.app.server.uploads import from_base64, opened, opened_depth, png
from safelight.config import near
from safelight.diffusion.samplers import sampler_name
from safelight.diffusion.schedules import schedule_name
from safelight.errors import SafelightError
from safelight.pipelines.prompt_tags import with_files

_LAYERS = re.compile(r"[\w.|]+")  # patterns that no text makes slow
_AUTOMATIC = "automatic"
_OWN = {"prompt", "seed", "count", "format", "infotext", "previews", "priority"}
"""What may differ between the pictures of a batch."""

Pictures = dict[str, Image.Image]


def with_uploads(asked: Asked, limits: Limits) -> tuple[Asked, Pictures]:
    """The same with the names of its pictures in their places, and these.

    Raises `SafelightError` for what is no picture, or too large a one.
    """
    pictures: Pictures = {}

    def keep(name: str, text: str) -> str:
        what = name.replace("-", " ")
        read = opened_depth if name == "depth" else opened
        pictures[name] = read(from_base64(text, what), what, limits)
        return name

    return put_aside(asked, keep), pictures


def admitted(
    asked: Asked,
    pictures: Mapping[str, Image.Image],
    catalogue: Catalogue,
    limits: Limits,
    annotators: Mapping[str, Path],
    *,
    key: str | None = None,
    digest: str = "",
) -> NewJob:
    """A job to be handed in, with a seed if it had none.

    Raises `SafelightError` for what no model here can make, or more than one client may ask for,
    and `NotHereError` for a control's hint that none of `annotators` makes.
    """
    model = catalogue.find(asked.model)
    _check_limits(asked, limits)
    if asked.seed is None:
        asked = asked.model_copy(update={"seed": secrets.randbelow(2**32)})
    for cell in cells_of(asked):
        _check_limits(cell, limits)
        _check_names(cell, model)
        for control in cell.controls:
            if not control.hint:
                check_estimated(control.kind, annotators)
        request_of(cell, pictures)
        with_files(cell.prompt)
    asked = asked.model_copy(update={"model": model.name})
    return NewJob(
        spec=asked.model_dump_json(exclude_defaults=True),
        inputs={name: png(picture) for name, picture in pictures.items()},
        model=model.name,
        place=model.place,
        count=count_of(asked),
        priority=asked.priority,
        merge=None if pictures or apart(asked) else _merge_of(asked, model),
        key=key,
        digest=digest,
    )


def apart(asked: Asked) -> bool:
    """Whether a job's pictures are made one by one, and never with those of another."""
    return asked.alone or asked.inside > 0 or asked.x is not None


def digest_of(body: bytes) -> str:
    """What tells whether two requests under one idempotency key are the same."""
    return hashlib.sha256(body).hexdigest()


def _merge_of(asked: Asked, model: Entry) -> str:
    told = asked.model_dump_json(exclude_defaults=True, exclude=_OWN)
    return hashlib.sha256(f"{model.place}\n{told}".encode()).hexdigest()


def _check_limits(asked: Asked, limits: Limits) -> None:
    check_asked(
        ("count", asked.count, limits.count),
        ("the number of the grid's cells", count_of(asked) if asked.x else 1, limits.cells),
        ("steps", asked.steps or 1, limits.steps),
        ("sigmas", len(asked.sigmas or ()) - 1, limits.steps),
        ("hires.steps", asked.hires.steps or 1 if asked.hires else 1, limits.steps),
        ("prompt", len(asked.prompt), limits.prompt),
        ("negative", len(asked.negative), limits.prompt),
    )
    scale = asked.hires.scale if asked.hires else 1.0
    width, height = (scale * (side or 1) for side in (asked.width, asked.height))
    if width * height > limits.pixels:
        raise SafelightError(
            f"A picture of {width:.0f} x {height:.0f} pixels is larger than this server makes "
            f"({limits.pixels} pixels); ask for a smaller one."
        )


def _check_names(asked: Asked, model: Entry) -> None:
    """Names that need no network to be told from wrong ones; none may be a path."""
    if asked.sampler is not None:
        sampler_name(asked.sampler)
    if asked.schedule is not None and asked.schedule.lower() != _AUTOMATIC:
        schedule_name(asked.schedule)
    for control in asked.controls:
        if control.kind not in model.controls:
            known = near(control.kind, model.controls) if model.controls else "It has none."
            raise SafelightError(f"{model.name} has no control {control.kind!r}. {known}")
    layers = asked.guidance.get("pag_layers", ())
    for pattern in layers if isinstance(layers, list) else ():
        if not isinstance(pattern, str) or not _LAYERS.fullmatch(pattern):
            raise SafelightError("pag_layers should be names of layers here, such as mid.")
