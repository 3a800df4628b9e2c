"""AdamW or Muon in groups, the learning rate over time, and the precision that suits a machine."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from safelight.errors import SafelightError
from safelight.nn.precision import multiplies_bfloat16
from safelight.train.muon import Muon

PrecisionName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class OptimConfig:
    """How weights are changed.

    `optimizer` "muon" orthogonalises the updates of matrices and kernels (`train.muon`), at about
    AdamW's scale; embeddings and vectors are left to AdamW. Muon learns more from a step, at a
    price that a batch of enough work hides.

    The learning rate rises linearly over `warmup` steps, then stays or falls along a cosine to
    `final_lr` of itself. A constant one falls to that over the last `cooldown` steps, linearly:
    such a training can be gone on with for more steps from a checkpoint before its fall, as if they
    had been meant from the start (Hägele et al. 2024, arXiv 2405.18392).

    What a training adds to a network that has learned already, to tell it a condition or the
    scale of guidance, learns at `fresh_lr` times the learning rate.

    Weight decay spares vectors (norms and biases). Gradients longer than `clip` (over all of a
    phase's weights; 0 for never) are shortened. A batch is worked off in `accumulate` parts, which
    saves memory and changes nothing else; but against an adversary each part balances the two
    losses by its own gradients, so that sums differ a little.

    `precision` "auto" takes bfloat16 autocast where the hardware multiplies it, else float32.
    `compile` lets torch compile the networks; `recompute` saves memory by gradient checkpointing.
    """

    lr: float = 1e-4
    fresh_lr: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 100
    cooldown: int = 0
    final_lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    precision: PrecisionName = "auto"
    compile: bool = False
    recompute: bool = False

    def __post_init__(self):
        for name in ("lr", "fresh_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise SafelightError(f"optim.{name} should be above 0, got {getattr(self, name)}.")
        leasts = {"accumulate": 1, "warmup": 0, "cooldown": 0, "final_lr": 0}
        leasts |= {"weight_decay": 0, "clip": 0}
        for name, least in leasts.items():
            if not least <= getattr(self, name) < math.inf:
                raise SafelightError(
                    f"optim.{name} should be at least {least}, got {getattr(self, name)}."
                )
        if self.cooldown and self.schedule == "cosine":
            raise SafelightError(
                'optim.cooldown is of schedule = "constant"; a cosine falls anyway.'
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SafelightError(f"optim.betas should be in [0, 1), got {list(self.betas)}.")


def lr_at(config: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        left = min((steps - step) / config.cooldown, 1.0) if config.cooldown else 1.0
        return config.lr * (config.final_lr + (1 - config.final_lr) * left)
    passed = (step - config.warmup) / max(steps - config.warmup, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


def adamw(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) in torch's fused form, with weight decay on
    matrices and kernels only.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def muon(parameters: Iterable[nn.Parameter], config: OptimConfig) -> Muon:
    """Muon on matrices and kernels, fused AdamW on vectors and embedding tables.

    A matrix with more than 8 rows a column is taken for a table, whose rows are learned one by one.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [p for p in trained if p.ndim > 1 and p.shape[0] <= 8 * p[0].numel()]
    chosen = {id(p) for p in matrices}
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "orthogonal": True},
        {"params": [p for p in trained if id(p) not in chosen], "weight_decay": 0.0},
    ]
    return Muon(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


OPTIMISERS = {"adamw": adamw, "muon": muon}


def autocast_dtype(precision: PrecisionName, device: torch.device) -> torch.dtype | None:
    """The dtype that networks run in under autocast, or None for plain float32.

    A CPU without bfloat16 instructions emulates it several times slower than float32.
    """
    if precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device)):
        return torch.bfloat16
    return None


def prepare(module: nn.Module, config: OptimConfig, device: torch.device) -> None:
    """Moves a network to its device, channels last, and sets up recomputation and compilation."""
    module.to(device=device)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim == 4:  # `Module.to` would refuse a network that has kernels of 5 axes
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    if config.recompute and hasattr(module, "gradient_checkpointing"):
        setattr(module, "gradient_checkpointing", True)  # noqa: B010
    if config.compile:
        has_forward = type(module).forward is not nn.Module.forward  # an autoencoder has none
        for part in [module] if has_forward else module.children():
            part.compile()
