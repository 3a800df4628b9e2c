"""Annotations checked at run time: shapes by jaxtyping, and all else by beartype alone.

jaxtyping binds and checks the arguments of every function twice, so that the shapes in them can be
compared. Where a function has none, beartype finds the same mistakes at a fraction of that, and
most functions have none.
"""

import inspect
from collections.abc import Callable
from typing import get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, _decorator

_with_shapes = jaxtyping.jaxtyped


def check_annotations(package: str) -> None:
    """Checks a package's functions and dataclasses, whatever of it is imported from now on."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = _checked
    jaxtyping.install_import_hook(package, "beartype.beartype")


def _checked(fn=None, *, typechecker):
    """In the place of `jaxtyping.jaxtyped`, by which its hook and its own code decorate."""
    if fn is None:
        return lambda function: _checked(function, typechecker=typechecker)
    if inspect.isfunction(fn) and not inspect.isgeneratorfunction(fn) and _is_plain(fn):
        return beartype(fn)
    return _with_shapes(fn, typechecker=typechecker)


def _is_plain(function: Callable[..., object]) -> bool:
    """Whether no annotation has a shape, or is text, in which there might be one."""
    return not any(map(_may_have_shape, function.__annotations__.values()))


def _may_have_shape(annotation: object) -> bool:
    if isinstance(annotation, str) or "ForwardRef" in type(annotation).__name__:
        return True
    if isinstance(annotation, list | tuple):  # the arguments of a Callable
        return any(map(_may_have_shape, annotation))
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_may_have_shape, get_args(annotation)))
