"""Networks by the engine that computes them."""

from typing import TypeVar

from torch import nn

from safelight.engine.compiled_networks import CompiledUNet, Wrap, compiled_autoencoder
from safelight.engine.home import Home
from safelight.engine.names import BY_TORCH, Chosen
from safelight.engine.store import own_store
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.prepared import prepared
from safelight.models.unet import UNet
from safelight.types import Network

A = TypeVar("A", bound=AnyAutoencoder)


def accelerated(unet: UNet, steps: int, engine: Chosen) -> Network:
    """What a U-Net gives, up to rounding, by an engine; torch's is made ready for many calls
    (`models.prepared`).
    """
    if engine in BY_TORCH or type(unet) is not UNet:
        return prepared(unet, steps)
    return CompiledUNet(unet, wrapping(engine, fill=True))


def accelerated_autoencoder(autoencoder: A, engine: Chosen) -> A:
    """A second autoencoder that gives what the first gives, up to rounding, by an engine."""
    if engine in BY_TORCH:
        return prepared(autoencoder)
    return compiled_autoencoder(autoencoder, wrapping(engine, fill=True))


def wrapping(engine: Chosen, *, fill: bool) -> Wrap:
    """What makes of a module one that the engine computes; `fill` as of `Compiled`."""
    if engine in BY_TORCH:
        return lambda module: module
    if engine == "compile":
        from safelight.engine.inductor import Inducted

        return Inducted
    from safelight.engine.compiled import Compiled

    store = own_store()

    def compiled(module: nn.Module) -> nn.Module:
        return Compiled(module, Home(module, store), fill=fill)

    return compiled
