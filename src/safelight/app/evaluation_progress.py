"""How far an evaluation is: a bar on a terminal, else a line for each thing that is measured."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from safelight.eval.evaluation import OnPictures


@contextmanager
def counting_pictures(total: int) -> Generator[OnPictures]:
    """Gives a callback that tells on standard error how many of `total` pictures are made."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total)
        return
    with Progress(
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} pictures"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
    ) as progress:
        bar = progress.add_task("", total=total)
        yield lambda what, count: progress.update(bar, advance=count, description=what)


def _lines(total: int) -> OnPictures:
    """Prints a line when something new is being measured."""
    start = time.monotonic()
    done, before = 0, ""

    def on_pictures(what: str, count: int) -> None:
        nonlocal done, before
        done += count
        if what != before:
            before = what
            left = (time.monotonic() - start) / done * (total - done) / 60
            told = f"{what}: {done:,} of {total:,} pictures, {left:.0f} min left"
            print(told, file=sys.stderr, flush=True)

    return on_pictures
