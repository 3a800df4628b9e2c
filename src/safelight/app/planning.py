"""Commands in two parts: what is asked for, and its doing."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, runtime_checkable

P = ParamSpec("P")


@runtime_checkable
class Planned(Protocol):
    """What a command was asked for, checked as far as that needs no model."""

    def run(self) -> None:
        """Does it."""
        ...


def at_once(plan: Callable[P, Planned]) -> Callable[P, None]:
    """The command that does what it plans."""

    @wraps(plan)
    def run(*args: P.args, **options: P.kwargs) -> None:
        plan(*args, **options).run()

    return run
