"""A grid's cells, each a job of `safelight generate` whose options differ along the axes."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, cast, get_args

from cyclopts import App

from safelight.app.adapters import chosen_adapters
from safelight.app.axes import WORDS, Axis, axis_of, replaced
from safelight.app.commands.generate import planned
from safelight.app.control_options import ControlOptions
from safelight.app.guidance_options import GuidanceOptions
from safelight.app.job import Job
from safelight.errors import SafelightError

_STRENGTH = "lora-strength"
_NUMBERS = {"scale", "control_weight", "control_start", "control_end"}
"""Texts, which may name several numbers; an axis gives one."""
_GROUPS: dict[str, type] = {"guiding": GuidanceOptions, "controlling": ControlOptions}
"""The arguments that hold several options."""
_NOT_HERE = {"output", "count", "prompts", "preview", "preview_vae", "infotext"}
_NO_AXES = {*_NOT_HERE, "offline", "watermark", "safety"}


def axis_named(text: str) -> Axis:
    """Reads an axis, which varies an option of `safelight generate`; errors as `axis_of`."""
    kinds = {name: kind for name, kind in _options().items() if name not in _NO_AXES}
    numbers = [
        _spelled(name)
        for name, kind in kinds.items()
        if name in _NUMBERS or {int, float} & {kind, *get_args(kind)}
    ]
    return axis_of(text, [*map(_spelled, kinds), WORDS, _STRENGTH], [*numbers, _STRENGTH])


def _options() -> dict[str, Any]:
    """The options of `safelight generate` and their types."""
    parameters = inspect.signature(planned).parameters
    own = {name: part.annotation for name, part in parameters.items() if name not in _GROUPS}
    grouped = (option for group in _GROUPS.values() for option in fields(group))
    return own | {option.name: option.type for option in grouped}


def planned_cells(options: Sequence[str], columns: Axis, rows: Axis | None) -> list[Job]:
    """The jobs of one picture each, row by row.

    Raises `SafelightError`, or cyclopts' error, for options or values that cannot be.
    """
    return [_job(options, varied) for varied in _cells(columns, rows)]


def planned_alone(prompt: str, options: Sequence[str], *, command: str) -> Job:
    """The job of one prompt under options of `safelight generate`.

    Raises `SafelightError`, or cyclopts' error, for options that do not go with the command.
    """
    given = _arguments(options, command)
    for name in ("prompt", "prompts", "count"):
        if name in given:
            raise SafelightError(
                f"{command} takes no {_spelled(name)} beside its own; leave it out."
            )
    return cast(Job, planned(prompt, **given))


def _cells(columns: Axis, rows: Axis | None) -> Iterator[list[tuple[Axis, str]]]:
    """What is varied in each cell, row by row."""
    for value in (None,) if rows is None else rows.values:
        before = [] if rows is None or value is None else [(rows, value)]
        for other in columns.values:
            yield [*before, (columns, other)]


def _job(options: Sequence[str], varied: Sequence[tuple[Axis, str]]) -> Job:
    """What one cell asks for; `SafelightError` or cyclopts' error for what it cannot."""
    given = _arguments(options)
    for name in sorted(_NOT_HERE & given.keys()):
        raise SafelightError(f"--{_spelled(name)} is not for a grid; leave it out.")
    for axis, value in varied:
        if axis.name == _STRENGTH:
            given["lora"] = _weighed(given.get("lora", ()), value)
        elif axis.name == "prompt":
            given["prompt"] = value
        elif axis.name != WORDS:
            given = _merged(given, _arguments([f"--{axis.name}={value}"]), axis.name)
    for axis, value in varied:
        if axis.name == WORDS:
            prompts = (given.get("prompt", ""), given.get("negative", ""))
            given["prompt"], given["negative"] = replaced(axis, value, prompts)
    prompt = given.pop("prompt", None)
    return cast(Job, planned(prompt, **given))


def _arguments(tokens: Sequence[str], command: str = "safelight grid") -> dict[str, Any]:
    """What a command line gives to `safelight generate`."""
    reader = App(name=command, help_flags=(), version_flags=())
    reader.default(planned)
    _, bound, _ = reader.parse_args(list(tokens), print_error=False, exit_on_error=False)
    return dict(bound.arguments)


def _merged(given: dict[str, Any], more: dict[str, Any], axis: str) -> dict[str, Any]:
    """Arguments with an axis' own put upon them; of an argument that holds several options an axis
    varies one.
    """
    merged, option = given | more, axis.replace("-", "_")
    for group in _GROUPS:
        if group in given and group in more:
            merged[group] = replace(given[group], **{option: getattr(more[group], option)})
    return merged


def _weighed(files: Sequence[str], strength: str) -> tuple[str, ...]:
    """`--lora`'s files, each with another strength."""
    if not files:
        raise SafelightError(f"The axis {_STRENGTH} is for --lora FILE; give one.")
    return tuple(f"{path}:{strength}" for path in chosen_adapters(files))


def _spelled(name: str) -> str:
    return name.replace("_", "-")
