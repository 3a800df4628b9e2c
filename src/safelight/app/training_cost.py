"""What a training will take: seconds and memory, from a few steps of it on this machine."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from safelight.train.optim import OptimConfig, prepare
from safelight.train.task import Draws, Task, batch_part
from safelight.types import Batch

_COPIES = 6  # of the weights: themselves, gradients, two moments, the average, one on its way out
_SLACK = 1.3  # allocators and short-lived tensors, over what is kept for the backward pass


@dataclass(frozen=True)
class Cost:
    """What one picture and the networks take."""

    seconds_per_picture: float
    bytes_per_picture: int  # kept for the backward pass
    weight_bytes: int

    def seconds(self, pictures: int) -> float:
        """Time to train on so many pictures, counted as often as they are seen."""
        return pictures * self.seconds_per_picture

    def memory(self, batch_size: int) -> int:
        """Bytes that a training with batches of this size takes, besides what is taken already."""
        return round(_COPIES * self.weight_bytes + batch_size * self.bytes_per_picture * _SLACK)


def cost_of(task: Task, batch: Batch, optim: OptimConfig, device: torch.device) -> Cost:
    """Measures steps without changing the weights: the first for memory, two more for time."""
    modules = [module for phase in task.phases.values() for module in phase.modules.values()]
    for module in modules:
        prepare(module, optim, device)
    count = len(batch.captions)
    batch = batch_part(batch, 0, count, device)
    kept = _step(task, batch, device, modules, remember=True)
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        _step(task, batch, device, modules, remember=False)
        times.append(time.perf_counter() - began)
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    return Cost(min(times) / count, kept // count, weights)


def free_memory(device: torch.device) -> int:
    """Bytes that are free now, on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def in_words(seconds: float) -> str:
    """A span of time such as "about 2 h 10 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    return f"about {hours} h {rest} min" if hours else f"about {minutes} min"


def _step(
    task: Task, batch: Batch, device: torch.device, modules: list[nn.Module], *, remember: bool
) -> int:
    """One forward and backward pass; the bytes it kept in between, if they are to be counted."""
    count = len(batch.captions)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for m in modules for p in m.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    draws = Draws(seed=0, step=0, total=count, first=0, count=count, device=device)
    losses = task.losses(batch, draws)
    while True:
        if remember:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = next(losses, None)
        else:
            loss = next(losses, None)
        if loss is None:
            break
        loss.total.backward()
    for module in modules:
        module.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return sum(kept.values())
