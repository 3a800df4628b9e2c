"""Networks by the engine that computes them."""

from typing import TypeVar

from safelight.engine.choosing import Chosen
from safelight.engine.store import own_store
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.prepared import prepared
from safelight.models.unet import UNet
from safelight.types import Network

A = TypeVar("A", bound=AnyAutoencoder)


def accelerated(unet: UNet, ready: UNet, engine: Chosen) -> Network:
    """What a U-Net gives, up to rounding, by an engine; `ready` is the same U-Net made ready for
    many calls (`models.prepared`).
    """
    if engine == "openvino" and type(unet) is UNet:
        from safelight.engine.compiled_networks import CompiledUNet

        return CompiledUNet(unet, ready, own_store())
    return ready


def accelerated_autoencoder(autoencoder: A, engine: Chosen) -> A:
    """A second autoencoder that gives what the first gives, up to rounding, by an engine."""
    if engine == "openvino":
        from safelight.engine.compiled_networks import compiled_autoencoder

        return compiled_autoencoder(autoencoder, own_store())
    return prepared(autoencoder)
