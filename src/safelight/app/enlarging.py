"""Pictures enlarged without a prompt, written as each is done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safelight.app.outputs import plan_outputs
from safelight.errors import SafelightError
from safelight.pipelines.request import Request


def enlarges(model: str, *, offline: bool) -> bool:
    """Whether a model enlarges pictures and knows no prompts; errors as `find_or_fetch`."""
    from safelight.checkpoints.upscaler import is_upscaler
    from safelight.pipelines.hub import find_or_fetch

    return is_upscaler(find_or_fetch(model, offline=offline))


def check_options(options: Mapping[str, object]) -> None:
    """Raises `SafelightError` for an option, by its name, that goes with a prompt alone."""
    given = [name for name, value in options.items() if value not in (None, "", ())]
    if given:
        needless = [f"--{name.replace('_', '-')}" for name in given]
        raise SafelightError(
            f"This model enlarges an image, which takes no {', '.join(needless)}; leave that out."
        )


def enlarge(
    image: Path,
    request: Request,
    output: str | None,
    model: str,
    precision: str,
    device: str,
    *,
    offline: bool,
) -> None:
    """Writes the image of a file enlarged, with its manifest, once for each seed of the request.

    Raises `SafelightError` for a model that makes pictures from prompts, for an image that cannot
    be read, or for an output as `plan_outputs`.
    """
    request.check()
    [paths] = plan_outputs(output, [request])

    # Torch takes a second to import: only now, when the mistakes that need no model are told.
    from safelight.app.making import counting_steps
    from safelight.pipelines.given import Given, give
    from safelight.pipelines.precisions import precision_named
    from safelight.pipelines.upscale import STEPS, load_enlarger

    request = replace(request, given=Given(give("image", image)))
    dtype = precision_named(precision)
    enlarger = load_enlarger(model, dtype=dtype, device=device, offline=offline)
    with counting_steps(request.count * (request.steps or STEPS)) as on_step:
        for path, picture in zip(paths, enlarger.each(request, on_step), strict=True):
            picture.save(path)
            print(path, flush=True)
