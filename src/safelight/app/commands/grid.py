"""`safelight grid`: pictures of varied settings in one."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from safelight.errors import SafelightError

_SUFFIXES = (".png", ".webp")  # with room for as many manifests as there are cells


def grid(
    *options: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    x: str,
    y: str | None = None,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("grid.png"),
) -> None:
    """Make one labelled picture of many, along one axis or two.

    Parameters
    ----------
    options
        What safelight generate takes, for all of the pictures.
    x
        What differs between columns: an option of generate and
        its values, as in steps=5,10,20, seed=1-4 (a range),
        seed=1-10(+3) (by threes), scale=1-9[5] (five values) or
        "sampler=euler,DPM++ 2M". lora-strength=0,0.5,1 sets the
        strength of --lora; words=red,blue puts each word in the
        place of the first in the prompts.
    y
        What differs between rows. [default: nothing]
    output
        A .png or .webp.
    """
    from safelight.app.grid_planning import axis_named, planned_cells
    from safelight.app.outputs import check_file
    from safelight.pipelines.picture_files import picture_suffix

    columns, rows = axis_named(x), None if y is None else axis_named(y)
    if rows is not None and rows.name == columns.name:
        raise SafelightError(f"Both axes vary {rows.name}; give two.")
    if picture_suffix(output) not in _SUFFIXES:
        raise SafelightError(f"A grid should be a {' or '.join(_SUFFIXES)}, got {str(output)!r}.")
    check_file(output)
    jobs = planned_cells(options, columns, rows)

    from safelight.app.grid_making import make_grid

    axes = [columns] if rows is None else [columns, rows]
    made = make_grid(
        jobs,
        [columns.label(value) for value in columns.values],
        [""] if rows is None else [rows.label(value) for value in rows.values],
        {axis.name: axis.values for axis in axes},
    )
    made.save(output)
    print(output)
