"""`safelight interpolate`: pictures on the way from one prompt, and one seed, to another."""

from typing import Annotated

from cyclopts import Parameter


def interpolate(
    first: str,
    second: str,
    /,
    *options: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    frames: int = 9,
    to_seed: int | None = None,
) -> None:
    """Make pictures on the way from one prompt to another.

    Parameters
    ----------
    first
        The prompt of the first picture.
    second
        The prompt of the last.
    options
        What safelight generate takes, for all of the pictures.
    frames
        How many pictures there are, 2 or more.
    to_seed
        The seed whose noise the last picture begins with.
        [default: that of the first]
    """
    from safelight.app.interpolating import planned_frames

    planned_frames(first, second, options, frames=frames, to_seed=to_seed).run()
