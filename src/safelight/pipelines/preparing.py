"""A model made ready by its engine before there is a picture to make."""

import logging

from safelight.engine.names import BY_TORCH
from safelight.errors import SafelightError
from safelight.pipelines.image import ImagePipeline

_log = logging.getLogger(__name__)


def prepare(pipeline: ImagePipeline) -> None:
    """Makes ready what the model's engine computes for single pictures of a prompt, of the model's
    own size and scale: "auto" then takes OpenVINO for these where it was measured to be faster.

    It takes seconds to minutes where that was not kept from before. Models that need more than a
    prompt are left as they are, and so, with a warning, are those that the engine does not compute.
    """
    kind, best = pipeline.kind, pipeline.computing.best
    if best in BY_TORCH or kind.beside != "nothing" or kind.sees != "nothing":
        return
    try:
        with pipeline.computing.preparing():
            pipeline.generate("", steps=1)
    except SafelightError as error:
        _log.warning("%s was not made ready: %s", pipeline.name, error)
