"""Jobs to hints, in the worker."""

import json

from safelight.app.server.config import Working
from safelight.app.server.estimates import PICTURE, weights_of
from safelight.app.server.making import Hooks
from safelight.app.server.records import Job, Picture
from safelight.app.server.uploads import png, reopened
from safelight.pipelines.annotators import Annotators


def make_hint(
    job: Job, inputs: dict[str, bytes], annotators: Annotators, working: Working, hooks: Hooks
) -> None:
    """Makes and puts the hint of a job, in the worker; errors as of `Annotators.of`."""
    kind = json.loads(job.spec)["kind"]
    make = annotators.of(kind, weights_of(kind, working.annotators))
    hint = make(reopened(inputs[PICTURE]))
    hooks.put(job.id, 0, Picture(png(hint), "image/png", 0, "{}"))
