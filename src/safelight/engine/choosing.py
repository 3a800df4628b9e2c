"""Which engine computes: torch, or another that is asked for or installed."""

import os
from importlib.util import find_spec
from shutil import which

import torch

from safelight.engine.names import Chosen, Engine
from safelight.errors import SafelightError
from safelight.nn.packed import has_onednn
from safelight.nn.precision import multiplies_bfloat16

_COMPILERS = ("g++", "clang++", "c++", "cl")


def choose_engine(engine: Engine, device: str, dtype: torch.dtype) -> Chosen:
    """The engine of that name; for "auto" OpenVINO where it is installed and computes for the
    device in the precision, else torch.

    Raises `SafelightError` for an engine that is not there, or does not.
    """
    if engine == "torch":
        return "torch"
    if engine == "prepared":
        if not packs(device, dtype):
            raise SafelightError(
                'The engine "prepared" computes on the CPU, in float32, by oneDNN, and the '
                f'model is on {device} in {dtype}; take engine "torch".'
            )
        return "prepared"
    if engine == "compile":
        if not has_compiler():
            raise SafelightError(
                'The engine "compile" needs a C++ compiler, such as g++, and there is none; '
                'install one, or take engine "torch".'
            )
        return "compile"
    fits = torch.device(device).type == "cpu" and (
        dtype == torch.float32
        or (dtype == torch.bfloat16 and multiplies_bfloat16(torch.device(device)))
    )
    if engine == "auto":
        return "openvino" if fits and has_openvino() else "torch"
    if not has_openvino():
        raise SafelightError(
            'OpenVINO is not installed; pip install "safelight[openvino]", or take engine "torch".'
        )
    if not fits:
        raise SafelightError(
            'The engine "openvino" computes on the CPU, in float32 or where it multiplies bfloat16 '
            f'in that, and the model is on {device} in {dtype}; take engine "torch", or load it so.'
        )
    return "openvino"


def packs(device: str, dtype: torch.dtype) -> bool:
    """Whether torch computes convolutions whose weights were put in order before there."""
    return torch.device(device).type == "cpu" and dtype == torch.float32 and has_onednn()


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def has_compiler() -> bool:
    """Whether there is a compiler of C++, which `torch.compile` calls."""
    named = os.environ.get("CXX")
    return any(which(name) is not None for name in ((named,) if named else _COMPILERS))
