"""Networks in ONNX files, run by ONNX Runtime."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float32

from safelight.checkpoints.files import check_is_file
from safelight.errors import SafelightError, first_line


@dataclass(frozen=True)
class OnnxNetwork:
    """A network of one input and its outputs in order.

    Attributes:
        path: the file it came from.
        shape: of the input, None where any size goes.
        run: from the input to the outputs, float32 each.
    """

    path: Path
    shape: tuple[int | None, ...]
    run: Callable[[Float32[np.ndarray, "..."]], Sequence[Float32[np.ndarray, "..."]]]


@runtime_checkable
class _Input(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


@runtime_checkable
class _Session(Protocol):
    def get_inputs(self) -> Sequence[_Input]: ...
    def run(
        self, output_names: None, input_feed: dict[str, Float32[np.ndarray, "..."]]
    ) -> Sequence[Float32[np.ndarray, "..."]]: ...


@runtime_checkable
class _Runtime(Protocol):
    """What is used of the package `onnxruntime`."""

    def get_available_providers(self) -> Sequence[str]: ...
    def InferenceSession(self, path: str, *, providers: Sequence[str]) -> _Session: ...  # noqa: N802


def read_onnx(path: Path, device: str = "cpu") -> OnnxNetwork:
    """The network of a file.

    Raises `SafelightError`, one line: there is no such file, it cannot be read, it takes more than
    one input, or ONNX Runtime is not installed.
    """
    check_is_file(path)
    try:
        runtime = cast(_Runtime, importlib.import_module("onnxruntime"))
    except ImportError as error:
        raise SafelightError(
            f'{path.name} is run by ONNX Runtime: pip install "safelight[control]".'
        ) from error
    wanted = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in runtime.get_available_providers():
        wanted = ["CUDAExecutionProvider", *wanted]
    try:
        session = runtime.InferenceSession(str(path), providers=wanted)
    except Exception as error:  # its errors have no class of their own that it exports
        raise SafelightError(f"Cannot read {path} ({first_line(error)}).") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise SafelightError(f"{path} takes {len(inputs)} inputs; expected one, the picture.")
    name, sides = inputs[0].name, inputs[0].shape
    shape = tuple(side if isinstance(side, int) else None for side in sides)
    return OnnxNetwork(path, shape, lambda x: session.run(None, {name: x}))
