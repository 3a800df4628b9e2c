"""The average of the weights over time, which is what a training exports."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# torch's many-tensor operations have an underscore, but its documentation lists them
_lerp = torch._foreach_lerp_  # pyright: ignore
_copy = torch._foreach_copy_  # pyright: ignore


class Averages:
    """Exponential moving averages of the weights of some modules, by module and tensor name.

    After update n (from 1) the decay is `min(decay, n / (n + 9))`, so that early averages forget
    the initial weights. The first update copies the weights exactly.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float):
        self.decay = decay
        self.updates = 0
        self._live = {
            f"{name}.{key}": tensor
            for name, module in modules.items()
            for key, tensor in module.state_dict(keep_vars=True).items()
        }
        self.tensors: dict[str, Tensor] = {
            name: tensor.detach().clone(memory_format=torch.preserve_format)
            for name, tensor in self._live.items()
        }
        self._pairs = [
            (average, self._live[name].detach())
            for name, average in self.tensors.items()
            if average.is_floating_point()
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Moves every average towards the weights as they are now."""
        averages, live = self._columns()
        weight = 1 - self.decay_now
        self.updates += 1
        if averages:
            _lerp(averages, live, weight)

    @property
    def decay_now(self) -> float:
        """What the next update keeps of the average."""
        return min(self.decay, self.updates / (self.updates + 9))

    @contextmanager
    def applied(self) -> Generator[None]:
        """Puts the averages into the modules for as long as the context lasts."""
        averages, live = self._columns()
        kept = [tensor.clone() for tensor in live]
        with torch.no_grad():
            _copy(live, averages)
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(live, kept)

    def _columns(self) -> tuple[list[Tensor], list[Tensor]]:
        return [average for average, _ in self._pairs], [live for _, live in self._pairs]
