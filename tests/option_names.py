"""What a command's options are called in Python, those that a dataclass groups included."""

import dataclasses
import inspect
from collections.abc import Callable


def option_names(command: Callable[..., object]) -> list[str]:
    """The parameters of a command, with its fields in the place of each dataclass."""
    names = []
    for name, parameter in inspect.signature(command).parameters.items():
        grouped = dataclasses.is_dataclass(parameter.default)
        names += [f.name for f in dataclasses.fields(parameter.default)] if grouped else [name]
    return names
