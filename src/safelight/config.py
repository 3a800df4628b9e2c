"""Frozen dataclasses from and to JSON and TOML, strictly: an unknown key is an error that names the
near ones.
"""

import dataclasses
import datetime
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from safelight.errors import SafelightError

Value: typing.TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
"""What JSON and TOML can hold."""

C = TypeVar("C")


def from_dict(cls: type[C], values: Mapping[str, Value], where: str = "") -> C:
    """Builds the dataclass `cls`, nested dataclasses included, from plain values.

    Missing keys take the dataclass's defaults. Integers are accepted for floats, lists for tuples,
    strings for paths. `where` names the source in errors.

    Raises `SafelightError` for an unknown key, a missing key without default, or a value of the
    wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cast(typing.Any, cls)) if f.init}
    for key in values:
        if key not in fields:
            raise SafelightError(f"Unknown key {_at(where, key)!r}. {near(key, fields)}")
    arguments = {key: _convert(hints[key], value, _at(where, key)) for key, value in values.items()}
    for name, f in fields.items():
        optional = (
            f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        )
        if name not in arguments and not optional:
            raise SafelightError(f"Missing key {_at(where, name)!r}.")
    return cls(**arguments)


def to_dict(config: object) -> dict[str, Value]:
    """The plain values of a dataclass: tuples become lists, paths strings, nested dataclasses
    dicts.
    """
    return {
        f.name: _plain(getattr(config, f.name))
        for f in dataclasses.fields(cast(typing.Any, config))
        if f.init
    }


def read_json(path: Path) -> dict[str, Value]:
    """A JSON object from a file; `SafelightError` if it is not one, or cannot be read."""
    try:
        values = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise SafelightError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise SafelightError(f"{path} should hold a JSON object, not {type(values).__name__}.")
    return cast(dict[str, Value], values)


def read_toml(path: Path) -> dict[str, Value]:
    """A TOML table from a file; `SafelightError` if it is not valid, or cannot be read."""
    try:
        return tomllib.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise SafelightError(f"{path} is not valid TOML: {error}") from error


def to_toml(values: Mapping[str, Value], prefix: str = "") -> str:
    """Writes plain values as TOML, tables after scalars.

    TOML has no null: keys whose value is None are left out, so a configuration reads back as it was
    only where None is the default. `prefix` is the name of the table that holds the values.

    Raises `TypeError` for a None within a list.
    """
    lines: list[str] = []
    tables: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{prefix}.{_toml_key(key)}" if prefix else _toml_key(key)
            tables.append(f"\n[{name}]\n{to_toml(value, name)}")
        elif value is not None:
            lines.append(f"{_toml_key(key)} = {_toml(value)}\n")
    return "".join(lines) + "".join(tables)


def override(values: dict[str, Value], dotted: str, value: Value) -> None:
    """Sets `a.b.c` in nested dicts, in place, making tables on the way."""
    *path, last = dotted.split(".")
    for key in path:
        child = values.setdefault(key, {})
        if not isinstance(child, dict):
            raise SafelightError(f"Cannot set {dotted!r}: {key!r} is a value, not a table.")
        values = child
    values[last] = value


def parse_value(text: str) -> Value:
    """A command-line value read as TOML would read it, else (a date, too) as a bare string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = parsed["value"]
    if len(parsed) > 1 or isinstance(value, (datetime.date, datetime.time)):
        return text
    return value


def near(word: str, choices: Iterable[str]) -> str:
    """A sentence that names the choices nearest to a mistyped word, or all if none is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Known: {', '.join(known)}."


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SafelightError(f"Cannot read {path}: {error.strerror}.") from error


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: object, value: Value, where: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise SafelightError(f"{where} = {value!r}: {near(str(value), map(str, arguments))}")
        return value
    if origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise SafelightError(f"{where} should be a list, got {value!r}.")
        item_hints = _item_hints(origin, arguments, len(value), where)
        items = [
            _convert(h, v, f"{where}[{i}]")
            for i, (h, v) in enumerate(zip(item_hints, value, strict=True))
        ]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise SafelightError(f"{where} should be a table, got {value!r}.")
        return {key: _convert(arguments[1], v, _at(where, key)) for key, v in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise SafelightError(f"{where} should be a table, got {value!r}.")
        return from_dict(cast(type[object], hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise SafelightError(f"{where} is a whole number beyond any float.") from error
    if hint is Path and isinstance(value, str):
        return Path(value)
    if (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    raise SafelightError(f"{where} should be {name}, got {value!r}.")


def _convert_union(arguments: tuple[object, ...], value: Value, where: str) -> object:
    if value is None and type(None) in arguments:
        return None
    errors: list[SafelightError] = []
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _convert(argument, value, where)
        except SafelightError as error:
            errors.append(error)
    raise errors[-1]


def _item_hints(
    origin: object, arguments: tuple[object, ...], length: int, where: str
) -> Sequence[object]:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(arguments) != length:
            raise SafelightError(f"{where} should hold {len(arguments)} values, got {length}.")
        return arguments
    return [arguments[0]] * length


def _plain(value: object) -> Value:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(Sequence[object], value)]
    if isinstance(value, Mapping):
        items = cast(Mapping[str, object], value).items()
        return {key: _plain(item) for key, item in items}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"Cannot write {type(value).__name__} as JSON or TOML.")


def _toml(value: Value) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        items = (f"{_toml_key(key)} = {_toml(v)}" for key, v in value.items() if v is not None)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, float) and value != value:
        return "nan"
    if value is None:
        raise TypeError("TOML cannot hold None within a list.")
    if isinstance(value, (str, bool, int)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
