"""Hints that a network estimates: which this server can make, and jobs of them."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from safelight.app.server.config import Limits
from safelight.app.server.records import NewJob
from safelight.app.server.refusals import NotHereError
from safelight.app.server.uploads import png
from safelight.errors import SafelightError
from safelight.pipelines.annotate import names_of
from safelight.pipelines.estimating import WEIGHTS

PICTURE = "picture"  # the name of a hint job's input
_FIRST = 100  # priority: a hint is waited for, and seen before anything is made by it


def weights_of(name: str, annotators: Mapping[str, Path]) -> Path | None:
    """The weights by which a kind is estimated, by any of its names, where there are some."""
    return annotators.get(_kind(name))


def check_estimated(name: str, annotators: Mapping[str, Path]) -> None:
    """Raises `NotHereError` for a kind whose network this server has not."""
    kind = _kind(name)
    if kind in WEIGHTS and kind not in annotators:
        raise NotHereError(
            f"{name} is estimated by a network that this server has not: start it with --annotator "
            f"{kind}=WEIGHTS, {WEIGHTS[kind]}; or send the hint itself, as one (hint: true, or the "
            "module none)."
        )


def hint_job(kind: str, picture: Image.Image, limits: Limits) -> NewJob:
    """A job of one hint; `SafelightError` for a picture that is larger than those made here."""
    if picture.width * picture.height > limits.pixels:
        raise SafelightError(
            f"A hint of {picture.width} x {picture.height} pixels is larger than this server makes "
            f"({limits.pixels} pixels); send a smaller picture."
        )
    spec, inputs = json.dumps({"kind": kind}), {PICTURE: png(picture)}
    return NewJob(spec=spec, inputs=inputs, model="", place="", count=1, priority=_FIRST)


def _kind(name: str) -> str:
    return next((kind for kind in WEIGHTS if name in names_of(kind)), name)
