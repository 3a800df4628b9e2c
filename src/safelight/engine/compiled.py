"""Modules computed by OpenVINO, on the CPU."""

import copy
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast

from safelight.engine import unreported  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import numpy as np
import openvino
import torch
import torch.nn.functional as F
from numpy import float32
from numpy.typing import NDArray
from openvino.frontend import (
    FrontEndManager,
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor, nn

from safelight.engine.exporting import exported, in_silence
from safelight.engine.home import Home
from safelight.engine.store import Shapes, Store
from safelight.engine.verdict import (
    Verdict,
    machine,
    quickest,
    read_verdict,
    write_verdict,
)
from safelight.errors import SafelightError
from safelight.nn.substitute import substituted

_FILE = "compiled.blob"

_REFUSALS = (  # of torch.export, and of OpenVINO
    RuntimeError,
    ValueError,
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)

_Array: TypeAlias = NDArray[float32]
_Tensors: TypeAlias = list[openvino.Tensor]
_Run: TypeAlias = Callable[[list[_Array]], list[_Array]]


class Compiled(nn.Module):
    """A module in whose place OpenVINO computes, without gradients, equal up to rounding: in
    float32, or for one with weights in bfloat16 in that precision where the CPU multiplies it.

    The module takes tensors whose first axis is the batch, and gives one or several. It is exported
    and compiled at the first call with inputs of other sizes or in another batch, which takes some
    seconds; its `home` keeps what was compiled, with a `Verdict`. With `fill` a batch smaller than
    one that it was compiled for is filled up, unless it was compiled for that, too. Its weights
    must not change any more. One thread at a time may call it.

    Raises `SafelightError` from a call if OpenVINO does not compute the module.
    """

    def __init__(self, base: nn.Module, home: Home | None, *, fill: bool):
        super().__init__()
        self.base = base
        self._home, self._fill = home, fill
        self._dtype = next((tensor.dtype for tensor in base.parameters()), torch.float32)
        self._runs: dict[tuple[int, Shapes], dict[int, _Run]] = {}
        self._verdicts: dict[tuple[int, Shapes], Verdict] = {}

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the module gives, in the precision of its weights."""
        rows, sizes = len(inputs[0]), tuple(tuple(x.shape[1:]) for x in inputs)
        runs = self._runs.setdefault((torch.get_num_threads(), sizes), {})
        batch = max(rows, *runs, 0) if self._fill and rows not in runs else rows
        if batch not in runs:
            runs[batch] = self._prepared(batch, sizes)
        arrays = [_array(_filled(x, batch)) for x in inputs]
        found = [torch.from_numpy(y)[:rows].to(self._dtype) for y in runs[batch](arrays)]
        return found[0] if len(found) == 1 else tuple(found)

    def gains(self, shapes: Shapes, calls: int) -> bool:
        """Whether so many calls with inputs of these shapes are sooner done than by torch: they may
        begin at once, or the network is kept and was found that much faster.
        """
        rows, threads = shapes[0][0], torch.get_num_threads()
        if rows in self._runs.get((threads, tuple(shape[1:] for shape in shapes)), {}):
            verdict = self._verdicts.get((threads, shapes))
            return verdict is None or replace(verdict, ready=0.0).gains(calls)
        return self._home is not None and self._home.gains(shapes, calls)

    def _prepared(self, batch: int, sizes: Shapes) -> _Run:
        core, settings = openvino.Core(), _settings(self._dtype)
        shapes = tuple((batch, *size) for size in sizes)
        place = None if self._home is None else self._home.place(shapes)
        with _told_in_one_line():
            run = None if place is None else _read(core, place, settings)
            if run is not None and place is not None:
                self._remember(read_verdict(place), shapes)
                return run
            with _exported(self.base, shapes) as model:
                if self._home is not None and place is not None:
                    with suppress(OSError, RuntimeError):
                        run = self._keep(core, model, self._home.store, place, shapes)
                return run or _runner(core.compile_model(model, "CPU", settings))

    def _keep(
        self, core: openvino.Core, model: openvino.Model, store: Store, place: Path, shapes: Shapes
    ) -> _Run:
        """Keeps the module as OpenVINO has compiled it, and how fast it is beside torch."""
        inputs = [torch.zeros(shape, dtype=self._dtype) for shape in shapes]
        arrays = [_array(x) for x in inputs]
        settings = _settings(self._dtype)
        with store.writing(place) as folder:
            _write(core.compile_model(model, "CPU", settings), folder)
            begun = time.perf_counter()
            run = _read(core, folder, settings)
            if run is None:
                raise OSError  # what was written cannot be read, and is not kept
            ready = time.perf_counter() - begun
            with torch.inference_mode():
                plainly = quickest(lambda: self.base(*inputs))
            soonest = quickest(lambda: run(arrays))
            verdict = Verdict(machine(), torch.get_num_threads(), plainly, soonest, ready)
            write_verdict(folder, verdict)
        self._remember(verdict, shapes)
        return run

    def _remember(self, verdict: Verdict | None, shapes: Shapes) -> None:
        if verdict is not None:
            self._verdicts[torch.get_num_threads(), shapes] = verdict


def _array(x: Tensor) -> _Array:
    return cast(_Array, x.detach().float().contiguous().numpy())


def _filled(x: Tensor, batch: int) -> Tensor:
    """With its last row repeated, up to so many."""
    missing = batch - len(x)
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def _runner(compiled: openvino.CompiledModel, holds: openvino.Tensor | None = None) -> _Run:
    """A call of the network: its own tensors are written and read, as to hand it others takes as
    long as a layer of a small network. `holds` is what the network's weights lie in.
    """
    request = compiled.create_infer_request()
    inputs = _numbers(cast(_Tensors, request.input_tensors))
    outputs = _numbers(cast(_Tensors, request.output_tensors))

    def run(arrays: list[_Array], _holds: openvino.Tensor | None = holds) -> list[_Array]:
        for place, array in zip(inputs, arrays, strict=True):
            np.copyto(place, array)
        request.infer()
        return [output.copy() for output in outputs]

    return run


def _numbers(tensors: _Tensors) -> list[_Array]:
    return [cast(_Array, tensor.data) for tensor in tensors]


def _settings(dtype: torch.dtype) -> dict[str, object]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "ENABLE_CPU_PINNING": False,  # else two processes wait for the same core
    }


@contextmanager
def _told_in_one_line() -> Generator[None]:
    try:
        yield
    except _REFUSALS as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SafelightError(
            f"OpenVINO {openvino.__version__} does not compute this network ({reason[0]}); "
            'take the engine "torch".'
        ) from error


@contextmanager
def _exported(module: nn.Module, shapes: Shapes) -> Generator[openvino.Model]:
    """The module as OpenVINO has it, in float32, for inputs of these shapes; its numbers are there
    within alone.

    Differs from `openvino.convert_model`, which reports its use to the makers of OpenVINO.
    """
    module = _with_plain_norms(module)
    if any(tensor.dtype != torch.float32 for tensor in module.parameters()):
        with torch.inference_mode(False):
            module = copy.deepcopy(module).float()
    program = exported(module, [torch.zeros(shape) for shape in shapes])
    with in_silence(), torch.autocast("cpu", enabled=False):  # graphs are run to be decomposed
        decoder = TorchFXPythonDecoder.from_exported_program(program)
        frontend = FrontEndManager().load_by_framework("pytorch")  # pyright: ignore[reportUnknownVariableType]
        converted = frontend.convert(frontend.load(decoder))  # pyright: ignore[reportUnknownVariableType]
        model = cast(openvino.Model, converted)
    model.reshape(dict(enumerate(map(list, shapes))))  # else it reckons with inputs of any size
    yield model
    del decoder  # of which the model had borrowed


class _PlainNorm(nn.Module):
    """A group norm as a norm of each group's numbers and a line of each channel's.

    OpenVINO 2026.4 crashes as it fuses its own group normalisation of inputs whose size is known
    with what follows it.
    """

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.groups, self.eps, self.affine = norm.num_groups, norm.eps, norm.affine
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, ...) to the same."""
        groups = x.reshape(x.shape[0], self.groups, -1)
        plain = F.layer_norm(groups, groups.shape[2:], eps=self.eps).reshape(x.shape)
        line = (-1, *[1] * (x.ndim - 2))
        if not self.affine:
            return plain
        return plain * self.weight.reshape(line) + self.bias.reshape(line)


def _with_plain_norms(module: nn.Module) -> nn.Module:
    """A second module that gives the same; weights are shared."""
    norms = {
        path: _PlainNorm(part)
        for path, part in cast(Iterator[tuple[str, nn.Module]], module.named_modules())
        if isinstance(part, nn.GroupNorm)
    }
    return substituted(module, norms)


def _write(compiled: openvino.CompiledModel, place: Path) -> None:
    """Keeps it there; raises `OSError`."""
    (place / _FILE).write_bytes(compiled.export_model().getbuffer())


def _read(core: openvino.Core, place: Path, settings: dict[str, object]) -> _Run | None:
    """What was kept there, its weights mapped from the file; None if that is nothing, or
    damaged.
    """
    try:
        file = np.memmap(place / _FILE, np.uint8, "c")  # which OpenVINO asks to be writable
        holds = openvino.Tensor(file, shared_memory=True)
        return _runner(core.import_model(holds, "CPU", settings), holds)
    except (OSError, ValueError, RuntimeError):
        return None
