"""MoveNet Lightning from a graph model of TensorFlow.js, as npm's @vladmandic/human has it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safelight.checkpoints.components import filled
from safelight.checkpoints.files import State, check_is_file
from safelight.checkpoints.rules import Rule, Table
from safelight.config import Value, read_json
from safelight.errors import SafelightError
from safelight.models.movenet import GRID, MoveNet

_PLAIN = Table((Rule("{key}", "{key}"),))
_ROOT = "StatefulPartitionedCall"
_BODY = f"{_ROOT}/center_net_mobile_net_v2fpn_feature_extractor/model_1"
_CENTER = f"ConstantFolding/{_ROOT}/truediv_2_recip"
_HEADS = {"heatmap": "kpt_heatmap_0", "regress": "kpt_regress_0", "offset": "kpt_offset_0"}
_NUMBERS = {"center": 3, "heatmap": 4, "regress": 5, "offset": 6}  # in the order they were built
_DTYPES = {"float16": np.float16, "float32": np.float32}


def read_movenet(path: Path, device: torch.device | str = "cpu") -> MoveNet:
    """The network, frozen, from `movenet-lightning.json`, beside which its `.bin` lies.

    Raises `SafelightError`, one line, if a file is missing, broken, or another network's.
    """
    state: State = {}
    kernels = _tensors(path)
    for ours, theirs, depthwise in kernel_names():
        if theirs not in kernels:
            raise SafelightError(
                f"{path} has no {theirs!r}; expected movenet-lightning.json of the npm package "
                "@vladmandic/human."
            )
        state[ours] = _as_torch(kernels[theirs], depthwise=depthwise)
    state["center_weight"] = state["center_weight"].reshape(GRID, GRID)
    network = filled(MoveNet, state, _PLAIN, source=str(path))
    return network.requires_grad_(False).to(device)


def kernel_names() -> Iterator[tuple[str, str, bool]]:
    """Our names, those of the file, and whether it is a depthwise kernel."""
    yield "center_weight", _CENTER, False
    yield from _convolution("stem", f"{_BODY}/model/Conv1/Conv2D")
    yield from _convolution("top", f"{_BODY}/model/Conv_1/Conv2D")
    for i in range(17):
        block = f"{_BODY}/model/block_{i}" if i else f"{_BODY}/model/expanded_conv"
        if i:
            yield from _convolution(f"blocks.{i}.expand", f"{block}_expand/Conv2D")
        yield f"blocks.{i}.depthwise.weight", f"{block}_depthwise/depthwise_weights", True
        yield f"blocks.{i}.depthwise.bias", f"{block}_depthwise/depthwise_bn_offset", False
        yield from _convolution(f"blocks.{i}.project", f"{block}_project/Conv2D")
    for i, number in enumerate(("", "_1", "_2", "_3")):
        yield from _plain_convolution(f"laterals.{i}", f"{_BODY}/conv2d{number}")
    for i, number in enumerate(("", "_1", "_2")):
        inside = f"{_BODY}/separable_conv2d{number}/separable_conv2d"
        yield f"merges.{i}.depthwise.weight", f"{inside}/ReadVariableOp", True
        yield from _convolution(f"merges.{i}.pointwise", inside)
    for head, number in _NUMBERS.items():
        inside = f"{_ROOT}/{_HEADS.get(head, 'center_0')}"
        separable, ours = f"{inside}/separable_conv2d_{number}", f"heads.{head}"
        kernels = f"{separable}/separable_conv2d/ReadVariableOp"
        yield f"{ours}.separable.depthwise.weight", kernels, True
        yield f"{ours}.separable.pointwise.weight", f"{kernels}_1", False
        yield f"{ours}.separable.pointwise.bias", f"{separable}/BiasAdd/ReadVariableOp", False
        yield from _plain_convolution(f"{ours}.out", f"{inside}/conv2d_{number + 1}")


def _convolution(ours: str, theirs: str) -> Iterator[tuple[str, str, bool]]:
    yield f"{ours}.weight", f"{theirs}_weights", False
    yield f"{ours}.bias", f"{theirs}_bn_offset", False


def _plain_convolution(ours: str, theirs: str) -> Iterator[tuple[str, str, bool]]:
    yield f"{ours}.weight", f"{theirs}/Conv2D/ReadVariableOp", False
    yield f"{ours}.bias", f"{theirs}/BiasAdd/ReadVariableOp", False


def _as_torch(tensor: Tensor, *, depthwise: bool) -> Tensor:
    if tensor.ndim != 4:
        return tensor
    return tensor.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)).contiguous()


def _tensors(path: Path) -> State:
    """The floating-point tensors of a graph model by name, in float32."""
    check_is_file(path)
    tensors: State = {}
    for group in _tables(read_json(path).get("weightsManifest")):
        names = group.get("paths")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SafelightError(f"{path} names no files of weights.")
        content = b"".join(_bytes(path, str(name)) for name in names)
        offset = 0
        for weight in _tables(group.get("weights")):
            tensor, offset = _next_tensor(weight, content, offset, path)
            tensors[str(weight.get("name"))] = tensor
    return tensors


def _bytes(path: Path, name: str) -> bytes:
    beside = path.parent / Path(name).name
    check_is_file(beside)
    return beside.read_bytes()


def _next_tensor(
    weight: Mapping[str, Value], content: bytes, offset: int, path: Path
) -> tuple[Tensor, int]:
    quantization = weight.get("quantization")
    stored = quantization.get("dtype") if isinstance(quantization, Mapping) else None
    dtype = {**_DTYPES, "int32": np.int32}.get(str(stored or weight.get("dtype")))
    shape = weight.get("shape")
    if dtype is None or not isinstance(shape, list) or not all(isinstance(n, int) for n in shape):
        raise SafelightError(f"{path} keeps {weight.get('name')!r} in a form that is not read.")
    sides = [int(str(side)) for side in shape]
    count = math.prod(sides)
    end = offset + count * np.dtype(dtype).itemsize
    if count < 0 or end > len(content):
        raise SafelightError(f"{path}: its weights are cut off; fetch both files again.")
    levels = np.frombuffer(content, dtype, count, offset).reshape(sides)
    return torch.from_numpy(levels.astype(np.float32)), end


def _tables(value: Value) -> Iterator[Mapping[str, Value]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
