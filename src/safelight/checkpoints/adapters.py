"""LoRA, DoRA, LoHa and LoKr files, and whole differences, in the layouts of kohya, diffusers, peft
and ComfyUI, for a given model.

A file's names are matched with those of the model's own layers, each spelled in every layout; so a
file of another family is told by the first layer that the model has not.
"""

import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from safelight.checkpoints.adapter_names import Place, spellings
from safelight.checkpoints.files import State
from safelight.checkpoints.folder import Folder, text_names
from safelight.checkpoints.weights_file import read_weights_file
from safelight.config import read_json
from safelight.errors import SafelightError, first_line
from safelight.nn.deltas import Addition, Decomposed, Hadamard, Kronecker, LowRank, Whole
from safelight.nn.lora import eject, fused, inject

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
    ".diff": "diff",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector.default": "magnitude",
    ".lora_magnitude_vector.default.weight": "magnitude",
    ".dora_scale": "dora_scale",
    **{f".{name}": name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{f".{name}": name for name in ("hada_t1", "hada_t2", "lokr_t2", "lokr_w1", "lokr_w2")},
    **{f".lokr_{name}": f"lokr_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")},
}
"""How a layer's tensors end, and what they are."""
_KINDS = (
    ("diff",),
    ("down", "up", "mid"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
"""The parts that belong together."""
_UNSUPPORTED = {".diff_b": "differences of biases"}
_UNDERSCORED = ("lora_unet_", "lora_te")
"""How names without dots begin."""
_METADATA = "lora_adapter_metadata"
"""The text entry in which diffusers keeps peft's configuration."""
_PEFT_FILE, _PEFT_CONFIG = "adapter_model", "adapter_config.json"
_PEFT_ALPHA = 8  # peft's, where the configuration does not say


@dataclass(frozen=True)
class Adapter:
    """What a file adds to each layer of a model's networks, by network and path."""

    deltas: Mapping[str, Mapping[str, nn.Module]]
    layout: str  # such as "LoRA", "LoKr" or "DoRA"

    @property
    def layers(self) -> int:
        """How many layers it changes."""
        return sum(len(paths) for paths in self.deltas.values())


def read_adapter(path: Path, model: Folder) -> Adapter:
    """Reads an adapter for a model from one file.

    Raises `SafelightError`, one line, if the file is broken, incomplete, of a kind that is not
    known, or changes layers that the model has not.
    """
    opened = read_weights_file(path)
    known = networks(model)
    places = spellings(known, model.unet.config)
    told = _told_beside(path, known) or _told_in(opened.metadata, str(path))
    deltas: dict[str, dict[str, nn.Module]] = {}
    kinds: set[str] = set()
    for name, parts in _grouped(opened.state, str(path)).items():
        place = places.get(name)
        if place is None:
            raise SafelightError(
                f"{path} changes {name!r}, which the model has not; it is made for "
                f"{_made_for(opened.state)}."
            )
        try:
            kind, delta = _delta(parts, place, told)
            shape = delta.shape
        except (LookupError, ValueError, ArithmeticError, RuntimeError) as error:
            raise SafelightError(
                f"{path}: what it adds to {name!r} is broken ({first_line(error)})."
            ) from error
        if shape != place.shape:
            raise SafelightError(
                f"{path} adds {_times(shape)} weights to {name!r}, which has "
                f"{_times(place.shape)} in this model; it is made for {_made_for(opened.state)}."
            )
        if place.path in deltas.get(place.network, {}):
            raise SafelightError(f"{path} changes {name!r} twice, under two names.")
        kinds.add(kind)
        deltas.setdefault(place.network, {})[place.path] = delta
    if not deltas:
        raise SafelightError(f"{path} holds no adapter.")
    return Adapter(deltas, " and ".join(sorted(kinds)))


def adapter_files(path: Path) -> tuple[Path, ...]:
    """The files that an adapter is read from: itself, and peft's configuration beside
    `adapter_model.safetensors`, which says how strong it is.
    """
    config = path.with_name(_PEFT_CONFIG)
    return (path, config) if path.stem == _PEFT_FILE and config.is_file() else (path,)


@contextmanager
def merged(model: Folder, files: Mapping[Path, float]) -> Generator[None]:
    """A model with adapters' files, each with its strength, in its weights while it lasts; the
    weights are what they were, to the bit, afterwards. Errors as `read_adapter`.
    """
    deltas = [(read_adapter(path, model).deltas, strength) for path, strength in files.items()]
    with ExitStack() as stack:
        for network, module in networks(model).items():
            for place, (parts, strength) in enumerate(deltas):
                inject(module, f"file-{place}", parts.get(network, {}), strength)
            stack.callback(eject, module)
        stack.enter_context(fused_networks(model))
        yield


@contextmanager
def fused_networks(model: Folder) -> Generator[None]:
    """The networks of a model with their adapters in their weights while it lasts, as `fused`."""
    with ExitStack() as stack:
        for module in networks(model).values():
            stack.enter_context(fused(module))
        yield


def networks(model: Folder) -> dict[str, nn.Module]:
    """The networks of a model that adapters change, by diffusers' names."""
    towers = zip(text_names(model), model.text_towers, strict=True)
    return {"unet": model.unet, **{name: tower for (name, _), tower in towers}}


def _grouped(state: State, source: str) -> dict[str, dict[str, Tensor]]:
    """A file's tensors by layer, as the file spells it, and part."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        for ending, what in _UNSUPPORTED.items():
            if key.endswith(ending):
                raise SafelightError(f"{source} holds {what} ({key!r}), which are not supported.")
        ending = next((ending for ending in _PARTS if key.endswith(ending)), None)
        if ending is None:
            raise SafelightError(f"{source} holds {key!r}, which is no part of an adapter.")
        name = key.removesuffix(ending)
        if name.startswith(_UNDERSCORED):  # diffusers' conversion to kohya's leaves a dot in some
            name = name.replace(".", "_")
        parts = grouped.setdefault(name, {})
        if _PARTS[ending] in parts:
            raise SafelightError(f"{source} holds {key!r} under another name as well.")
        parts[_PARTS[ending]] = tensor
    return grouped


def _delta(
    parts: Mapping[str, Tensor], place: Place, told: "_Configuration"
) -> tuple[str, Addition | Decomposed]:
    """What one layer's tensors make of its weight, and what that is called.

    Raises `KeyError` for a part that is missing, `ValueError` if they misfit.
    """
    known = {name: tensor.float() for name, tensor in parts.items()}
    for name, tensor in known.items():
        if not tensor.isfinite().all():
            raise ValueError(f"its {name} is {tensor.item() if tensor.ndim == 0 else 'not finite'}")
    magnitude = _magnitude(known, place.weight)
    if not known.keys() - {"alpha"} and magnitude is not None:
        raise ValueError("it is a magnitude without its matrices")
    if told.decomposed(place) not in (None, magnitude is not None):
        raise ValueError(
            f"its configuration has use_dora {told.decomposed(place)}, and it has "
            f"{'no' if magnitude is None else 'a'} magnitude"
        )
    kind, addition = _addition(known, place, told)
    if magnitude is None:
        return kind, addition
    values, of_inputs = magnitude
    return (
        "DoRA" if kind == "LoRA" else f"{kind} with DoRA",
        Decomposed(addition, values, of_inputs=of_inputs),
    )


def _magnitude(known: dict[str, Tensor], weight: torch.Size) -> tuple[Tensor, bool] | None:
    """Takes DoRA's magnitudes from a layer's parts: a vector, and whether it is of its inputs.

    peft's is of the outputs, (out,), or (1, out, 1, 1) for a kernel. LyCORIS' says by its shape of
    which it is: (out, 1, ...), or (1, in, ...), its only one before version 3.1.1.
    """
    name = next((name for name in ("magnitude", "dora_scale") if name in known), None)
    if name is None:
        return None
    values = known.pop(name)
    shape = _without_ones(values.shape)
    of_outputs = [_without_ones(weight[:1])]
    if name == "magnitude":
        of_outputs.append(_without_ones((1, weight[0])))
    if shape in of_outputs:
        return values.flatten(), False
    if name == "dora_scale" and shape == _without_ones((1, weight[1])):
        return values.flatten(), True
    raise ValueError(
        f"its magnitude is {tuple(values.shape)}, and the layer has {weight[0]:,} outputs and "
        f"{weight[1]:,} inputs"
    )


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the ones at its end."""
    length = max((place for place, size in enumerate(shape, start=1) if size != 1), default=0)
    return tuple(shape[:length])


def _addition(
    known: dict[str, Tensor], place: Place, told: "_Configuration"
) -> tuple[str, Addition]:
    given = known.pop("alpha", None)
    alpha = told.alpha(place) if given is None else given.item()
    if alpha is not None and not math.isfinite(alpha):
        raise ValueError(f"its alpha is {alpha}")
    if not any(set(names) >= known.keys() > set() for names in _KINDS):
        raise ValueError(f"its parts are of no one kind: {', '.join(sorted(known)) or 'alpha'}")
    if "down" in known or "up" in known:
        down, up = known["down"], known["up"]
        rank = down.shape[0]
        divisor = math.sqrt(rank) if told.stabilised(place) else rank
        scale = 1.0 if alpha is None else alpha / divisor
        return "LoRA", LowRank(down, up, scale, known.get("mid"))
    if "diff" in known:  # whose alpha, if any, says nothing
        return "difference", Whole(known["diff"])
    if "hada_w1_a" in known:
        cores = None
        if "hada_t1" in known:
            cores = known["hada_t1"], known["hada_t2"]
        rank = known["hada_w1_b"].shape[0]
        first = known["hada_w1_a"], known["hada_w1_b"]
        second = known["hada_w2_a"], known["hada_w2_b"]
        scale = 1.0 if alpha is None else alpha / rank
        return "LoHa", Hadamard(first, second, scale, cores)
    return "LoKr", _kronecker(known, alpha)


def _kronecker(known: Mapping[str, Tensor], alpha: float | None) -> Kronecker:
    rank: int | None = None
    factors: list[Tensor] = []
    for name in ("lokr_w1", "lokr_w2"):
        whole = known.get(name)
        if whole is None:
            a, b = known[f"{name}_a"], known[f"{name}_b"]
            rank = b.shape[0]
            core = known.get("lokr_t2") if name == "lokr_w2" else None
            if core is not None:
                whole = torch.einsum("pqhw,po,qi->oihw", core, a, b)
            elif b.ndim == 4:
                whole = torch.einsum("or,rihw->oihw", a, b)
            else:
                whole = a @ b
        factors.append(whole)
    scale = 1.0 if rank is None or alpha is None else alpha / rank
    return Kronecker(factors[0], factors[1], scale)


@dataclass(frozen=True)
class _Configuration:
    """What peft's configuration says, each key after its network's name, as diffusers writes them
    into the header.
    """

    values: Mapping[str, object]

    def alpha(self, place: Place) -> float | None:
        """The alpha of a layer; None if it is the rank."""
        words = place.theirs.split(".")
        known = self._patterns.get(place.network, {})
        ends = (".".join(words[start:]) for start in range(len(words)))
        fitting = [known[end] for end in ends if end in known]
        if fitting:
            return min(fitting)[1]
        whole = self.values.get(f"{place.network}.lora_alpha")
        return float(whole) if isinstance(whole, (int, float)) else None

    @cached_property
    def _patterns(self) -> dict[str, dict[str, tuple[int, float]]]:
        """The alphas of layers by how their names end, and their order: the first counts."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for key, pattern in self.values.items():
            network, _, what = key.rpartition(".")
            if what == "alpha_pattern" and isinstance(pattern, dict):
                found[network] = {
                    end: (number, float(own))
                    for number, (end, own) in enumerate(cast(dict[str, object], pattern).items())
                    if isinstance(own, (int, float))
                }
        return found

    def stabilised(self, place: Place) -> bool:
        """Whether alpha is divided by the rank's root (rsLoRA, Kalajdzievski 2023, arXiv
        2312.03732, theorem 3.2) instead of the rank.
        """
        return self.values.get(f"{place.network}.use_rslora") is True

    def decomposed(self, place: Place) -> bool | None:
        """Whether its layers have DoRA's magnitudes; None where it does not say."""
        told = self.values.get(f"{place.network}.use_dora")
        return told if isinstance(told, bool) else None


def _told_beside(path: Path, known: Mapping[str, nn.Module]) -> _Configuration | None:
    """What peft's own configuration says, where it lies beside the file."""
    files = adapter_files(path)
    if len(files) == 1:
        return None
    config = read_json(files[1])
    if config.get("peft_type") != "LORA":
        raise SafelightError(
            f"{files[1]} is of peft's kind {config.get('peft_type')!r}; with its configuration "
            "only 'LORA' is read."
        )
    told = {"lora_alpha": _PEFT_ALPHA, **config}
    return _Configuration({f"{name}.{key}": value for name in known for key, value in told.items()})


def _told_in(metadata: Mapping[str, str], source: str) -> _Configuration:
    if _METADATA not in metadata:
        return _Configuration({})
    try:
        values = json.loads(metadata[_METADATA])
    except (ValueError, RecursionError) as error:
        raise SafelightError(f"{source}: {_METADATA} in its header is not valid JSON.") from error
    if not isinstance(values, dict):
        raise SafelightError(f"{source}: {_METADATA} in its header is no table.")
    return _Configuration(cast(dict[str, object], values))


def _times(shape: tuple[int, int]) -> str:
    return f"{shape[0]:,} x {shape[1]:,}"


def _made_for(state: State) -> str:
    """The family that a file's cross-attention betrays."""
    widths = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
    for key, tensor in state.items():
        crosses = "attn2" in key and "to_k" in key and tensor.ndim > 1
        if crosses and key.endswith(("down.weight", "A.weight")):
            return widths.get(tensor.shape[1], f"a context of width {tensor.shape[1]}")
    return "another model"
