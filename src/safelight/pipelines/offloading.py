"""Networks that wait in the CPU's memory until they work."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def at_work(networks: Iterable[nn.Module], device: str | None) -> Generator[None]:
    """The networks' weights on the device while they work; None: where they are.

    What waited is put back as it was, and not copied, so that weights mapped from a file stay so;
    nothing may be written into them meanwhile. One thread at a time.
    """
    if device is None:
        yield
        return
    tensors = {id(one): one for network in networks for one in _weights(network)}
    waiting = [(one, one.data) for one in tensors.values()]
    try:
        with torch.inference_mode(False):  # whose tensors could not take their place
            for one, home in waiting:
                one.data = moved(home, device)
        yield
    finally:
        for one, home in waiting:
            one.data = home


def moved(weights: Tensor, device: str) -> Tensor:
    """Weights on a device."""
    return weights.to(device)


def _weights(network: nn.Module) -> Iterable[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
