"""Reading others' `config.json` strictly: what we do not build must have its neutral value."""

import dataclasses
import typing
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError

DIFFUSERS_VERSION = "0.27.0"  # whose layout is written

C = TypeVar("C")
T = TypeVar("T")

Neutral = Mapping[str, tuple[Value, ...]]
"""Keys that we do not build, each with the values at which it makes no difference; the first of
them is written."""

_AVERAGING = frozenset(
    {
        "decay",
        "inv_gamma",
        "min_decay",
        "optimization_step",
        "power",
        "update_after_step",
        "use_ema_warmup",
    }
)
"""What diffusers' moving averages leave in the configuration of the model that they averaged."""


def read_known(cls: type[C], values: Mapping[str, Value], source: str) -> C:
    """Builds `cls` from those values that it knows; others do not concern the network, and one that
    is null has its default, as transformers has it. Errors as `from_dict`.
    """
    known = {field.name for field in dataclasses.fields(cast(Any, cls))}
    taken = {key: value for key, value in values.items() if key in known}
    return from_dict(cls, without_nulls(cls, taken), source)


def check_heads(channels: int, heads: int, source: str) -> None:
    """Raises `SafelightError` if channels do not split into that many heads."""
    if heads < 1 or channels % heads:
        raise SafelightError(f"{source}: {channels} channels do not split into {heads} heads.")


def read_config(cls: type[C], values: Mapping[str, Value], neutral: Neutral, source: str) -> C:
    """Builds `cls`, whose fields are named as the keys, from a configuration file's values.

    A known key that is null has its default, unless null means something for it. Keys that start
    with `_` are bookkeeping, and so are those of moving averages; unknown keys that are null or
    false are of versions that came later and make no difference.

    Raises `SafelightError` for any other unknown key, a key of `neutral` with a value that is not
    neutral, or a value of the wrong type.
    """
    known = {field.name for field in dataclasses.fields(cast(Any, cls))}
    taken: dict[str, Value] = {}
    for key, value in values.items():
        if key in neutral:
            if value not in neutral[key]:
                raise SafelightError(
                    f"{source} has {key} = {value!r}, which is not supported "
                    f"(expected {' or '.join(map(repr, neutral[key]))})."
                )
        elif key in known:
            taken[key] = value
        elif not (key.startswith("_") or key in _AVERAGING or value is None or value is False):
            taken[key] = value  # to be refused
    return from_dict(cls, without_nulls(cls, taken), source)


def without_nulls(cls: type[object], values: Mapping[str, Value]) -> dict[str, Value]:
    """Values without the nulls of those fields of `cls` that cannot be None: these have their
    defaults.
    """
    hints = typing.get_type_hints(cls)
    return {
        key: value
        for key, value in values.items()
        if value is not None or key not in hints or type(None) in typing.get_args(hints[key])
    }


@contextmanager
def fitting(source: str) -> Generator[None]:
    """Turns the `ValueError` of a configuration whose parts do not fit into `SafelightError`."""
    try:
        yield
    except ValueError as error:
        raise SafelightError(f"{source} cannot be built: {error}") from error


def write_config(class_name: str, config: object, neutral: Neutral) -> dict[str, Value]:
    """The inverse of `read_config`: every key, with the class's name as diffusers records it."""
    defaults = {key: values[0] for key, values in neutral.items()}
    head = {"_class_name": class_name, "_diffusers_version": DIFFUSERS_VERSION}
    return {**head, **defaults, **to_dict(config)}


def per_level(value: T | tuple[T, ...], levels: int, name: str, source: str) -> tuple[T, ...]:
    """One value for each level: a single value repeated, or a tuple of the right length."""
    if not isinstance(value, tuple):
        return (value,) * levels
    values = cast(tuple[T, ...], value)
    if len(values) != levels:
        raise SafelightError(f"{source} has {len(values)} {name} for {levels} levels.")
    return values


def one_or_each(values: tuple[T, ...]) -> T | tuple[T, ...]:
    """The inverse of `per_level`: a single value where all levels have the same."""
    return values[0] if len(set(values)) == 1 else values


def square(size: int | tuple[int, ...] | None) -> int | None:
    """The side of a sample size, which is informative only; None if it is not a square."""
    if isinstance(size, tuple):
        return size[0] if size and len(set(size)) == 1 else None
    return size


def attending_levels(
    down: tuple[str, ...],
    up: tuple[str, ...],
    levels: int,
    kinds: Mapping[bool, tuple[str, str]],
    source: str,
) -> tuple[bool, ...]:
    """Which levels attend, from the finest to the coarsest, by the types of their blocks.

    `kinds` are the down and the up block without attention and with it. Raises `SafelightError` for
    other blocks, or if the way up does not mirror the way down.
    """
    ways = {kinds[attends][0]: attends for attends in (False, True)}
    attention = tuple(ways.get(kind, False) for kind in down)
    mirrored = tuple(kinds[attends][1] for attends in reversed(attention))
    if len(down) != levels or not ways.keys() >= set(down) or up != mirrored:
        raise SafelightError(
            f"{source} has {levels} levels of down blocks {', '.join(down)} and up blocks "
            f"{', '.join(up)}; expected {' or '.join(ways)} for each, mirrored on the way up."
        )
    return attention
