"""The frames between two prompts, as one job of `safelight generate`."""

from collections.abc import Sequence
from dataclasses import replace

from safelight.app.grid_planning import planned_alone
from safelight.app.job import Job
from safelight.errors import SafelightError
from safelight.pipelines.request import Toward

_MOST = 10_000


def planned_frames(
    first: str, second: str, options: Sequence[str], *, frames: int, to_seed: int | None
) -> Job:
    """A job of so many pictures, the first of the first prompt, the last of the second.

    Raises `SafelightError` for fewer than two, or for an option that does not go with it.
    """
    if not 2 <= frames <= _MOST:
        raise SafelightError(f"frames should lie between 2 and {_MOST}, got {frames}.")
    job = planned_alone(first, options, command="safelight interpolate")
    [request] = job.requests
    if job.infotext:
        raise SafelightError("An infotext has no word for a second prompt; leave --infotext out.")
    if to_seed is not None and request.subseed_strength > 0:
        raise SafelightError(
            "--to-seed goes from seed to seed as --subseed does; give one of them."
        )
    parts = [frame / (frames - 1) for frame in range(frames)]
    requests = [replace(request, toward=Toward(second, part)) for part in parts]
    if to_seed is not None:
        requests = [
            replace(one, subseed=to_seed, subseed_strength=part)
            for one, part in zip(requests, parts, strict=True)
        ]
    for one in requests:
        one.check()
    return replace(job, requests=requests)
