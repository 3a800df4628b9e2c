"""LoRAs that are trained here: put into a U-Net, and written in the field's layouts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from safelight.checkpoints.files import write_state
from safelight.checkpoints.rules import their_name
from safelight.checkpoints.tables.unet import UNET
from safelight.config import near
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.nn.deltas import LowRank
from safelight.nn.lora import adaptable, fresh, inject

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name by which diffusers finds a LoRA in a folder."""

Layout: TypeAlias = Literal["diffusers", "kohya"]

_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    "time_emb_proj",
)
"""Those of the published training of LCM-LoRA (Luo et al. 2023, arXiv 2311.05556)."""


@dataclass(frozen=True)
class LoraConfig:
    """A LoRA to train: its rank, its alpha (by default the rank; the strength is alpha / rank), and
    the layers it changes, by the ends of diffusers' names as peft's `target_modules`.

    Written in the `layout` of "diffusers" (peft's names) or of "kohya" (`lora_unet_...`).
    """

    rank: int = 64
    alpha: float | None = None
    targets: tuple[str, ...] = _TARGETS
    layout: Layout = "diffusers"

    def __post_init__(self):
        if self.rank < 1:
            raise SafelightError(f"lora.rank should be at least 1, got {self.rank}.")
        if self.alpha is not None and not self.alpha > 0:
            raise SafelightError(f"lora.alpha should be above 0, got {self.alpha}.")
        if not self.targets:
            raise SafelightError(
                'lora.targets names no layer; leave it out, or name some, such as ["to_q", "to_v"].'
            )


def inject_fresh(unet: UNet, config: LoraConfig, name: str = "lora") -> dict[str, LowRank]:
    """Puts a LoRA that adds nothing yet into a U-Net; what it adds by the path of each layer.

    Raises `SafelightError` for a target that is no layer of the U-Net.
    """
    layers = dict(adaptable(unet))
    theirs = {path: _theirs(path) for path in layers}
    for target in config.targets:
        if not any(_ends(their, target) for their in theirs.values()):
            last = {their.rpartition(".")[2] for their in theirs.values()}
            raise SafelightError(f"lora.targets: no layer ends in {target!r}. {near(target, last)}")
    alpha = float(config.rank) if config.alpha is None else config.alpha
    deltas = {
        path: fresh(layers[path], config.rank, alpha)
        for path, their in theirs.items()
        if any(_ends(their, target) for target in config.targets)
    }
    inject(unet, name, deltas)
    return deltas


def write_lora(path: Path, deltas: Mapping[str, LowRank], layout: Layout) -> None:
    """Writes a U-Net's LoRA, by the paths of its layers, as one safetensors file of half precision.

    In diffusers' layout, which has no alpha, it is in `up`: the file is then of alpha = rank,
    whoever reads it. kohya's has an `alpha` a layer.
    """
    state: dict[str, Tensor] = {}
    for place, delta in deltas.items():
        down, up = delta.down.detach(), delta.up.detach()
        if layout == "diffusers":
            name = f"unet.{_theirs(place)}"
            state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": delta.scale * up}
        else:
            name = f"lora_unet_{_theirs(place).replace('.', '_')}"
            alpha = torch.tensor(delta.scale * down.shape[0])
            state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            state[f"{name}.alpha"] = alpha
    write_state(path, {key: tensor.cpu().half() for key, tensor in state.items()})


def _theirs(path: str) -> str:
    return their_name(UNET, f"{path}.weight").removesuffix(".weight")


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
