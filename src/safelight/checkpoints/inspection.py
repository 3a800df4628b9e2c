"""What a file or folder of weights is, from its names, shapes and entries."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from safelight.checkpoints.detect import PURPOSES, describe_folder, describe_state
from safelight.checkpoints.families import (
    UNET,
    UPSCALER,
    VAE,
    family_of,
    in_channels_of,
    is_super_resolution,
)
from safelight.checkpoints.files import State, read_shapes
from safelight.checkpoints.folder import INDEX
from safelight.checkpoints.weights_file import is_safetensors, read_weights_file
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Inspection:
    """What a file or folder is.

    `parts` holds each component of a folder, or each part of a single file, with its description;
    `precisions` the number of weights in each; `metadata` the text entries of a file's header.
    """

    kind: str
    layout: str
    parts: Mapping[str, str]
    precisions: Mapping[str, int]
    size: int  # bytes on the disk
    metadata: Mapping[str, str]
    is_whole_model: bool = False  # in one file: it makes pictures by itself

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(self.precisions.values())


def inspect(path: Path) -> Inspection:
    """Says what is at a path.

    Raises `SafelightError`, one line, if it is neither weights nor a model's folder, or broken.
    """
    if path.is_dir():
        return _inspect_folder(path)
    state, layout, metadata = names_of(path)
    kind, parts = _whole(state, str(path))
    return Inspection(
        kind or describe_state(state),
        layout,
        parts,
        _precisions(state.values()),
        path.stat().st_size,
        metadata,
        is_whole_model=kind is not None,
    )


def names_of(path: Path) -> tuple[State, str, Mapping[str, str]]:
    """The names and shapes in a file of weights, without their values; its layout; its text
    entries.
    """
    if path.is_file() and is_safetensors(path):
        state, metadata = read_shapes(path)
        return state, "safetensors", metadata
    return read_weights_file(path, values=False).state, "PyTorch's pickle", {}


def _whole(state: Mapping[str, Tensor], source: str) -> tuple[str | None, dict[str, str]]:
    """What a whole model in one file is, and its parts; None for any other file."""
    try:
        family = family_of(state, source)
    except SafelightError:
        known = "CompVis' super-resolution, a whole model" if is_super_resolution(state) else None
        return known, {}
    channels = in_channels_of(state)
    prefixes = {"U-Net": UNET, "autoencoder": VAE}
    prefixes |= {f"text tower {i}": part.prefix for i, part in enumerate(family.text, start=1)}
    prefixes |= {"image tower": family.vision} if family.vision else {}
    parts: dict[str, str] = {}
    for name, prefix in prefixes.items():
        count = sum(tensor.numel() for key, tensor in state.items() if key.startswith(prefix))
        parts[name] = f"{count / 1e6:,.2f} M weights"
    if any(key.startswith("model_ema.") for key in state):
        parts["moving averages"] = "not read"
    purpose = "" if family is UPSCALER else PURPOSES.get(channels, "")
    crossings = [key for key in state if key.startswith(UNET) and key.endswith("attn2.to_k.weight")]
    width = state[crossings[0]].shape[-1] if crossings and state[crossings[0]].ndim else 0
    if width != family.context:
        return f"a whole model of its own sizes, in the layout of {family.name}{purpose}", parts
    return f"{family.name}{purpose}, a whole model", parts


def _inspect_folder(path: Path) -> Inspection:
    files = sorted(file for file in path.rglob("*.safetensors") if file.is_file())
    if not files and not (path / INDEX).is_file():
        raise SafelightError(f"{path} is {describe_folder(path)}, without weights in safetensors.")
    precisions: Counter[str] = Counter()
    states: dict[str, State] = {}
    for file in files:
        state, _ = read_shapes(file)
        precisions += Counter(_precisions(state.values()))
        states.setdefault(str(file.parent.relative_to(path)), {}).update(state)
    return Inspection(
        describe_folder(path),
        "folder",
        {
            name: f"{describe_state(state)}, {_count(state) / 1e6:,.2f} M weights"
            for name, state in states.items()
        },
        precisions,
        sum(file.stat().st_size for file in files),
        {},
    )


def _count(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def _precisions(tensors: Iterable[Tensor]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return dict(counts.most_common())
