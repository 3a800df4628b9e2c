"""A network with other layers in some places, beside the network as it is."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def substituted(network: M, layers: Mapping[str, nn.Module]) -> M:
    """A second network with `layers` at their paths, which shares every other weight with the
    first; the first stays as it is.

    Raises `AttributeError` for a path that is not there.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = deepcopy(network, shared)
    for path, layer in layers.items():
        twin.get_submodule(path)
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, layer)
    return twin
