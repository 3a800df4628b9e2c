"""Reading others' `config.json` strictly: what we do not build must have its neutral value."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError

DIFFUSERS_VERSION = "0.27.0"  # whose layout is written

C = TypeVar("C")
T = TypeVar("T")

Neutral = Mapping[str, tuple[Value, ...]]
"""Keys that we do not build, each with the values at which it makes no difference; the first of
them is written."""


def read_config(cls: type[C], values: Mapping[str, Value], neutral: Neutral, source: str) -> C:
    """Builds `cls`, whose fields are named as the keys, from a configuration file's values.

    Keys that start with `_` are bookkeeping; unknown keys that are null or false are of versions
    that came later and make no difference.

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
        elif key in known or not (key.startswith("_") or value is None or value is False):
            taken[key] = value
    return from_dict(cls, taken, source)


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
