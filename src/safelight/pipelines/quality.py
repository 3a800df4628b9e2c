"""Approximations that are asked for by one word."""

from safelight.models.deep_reuse import Deep, DeepReuse
from safelight.pipelines.choices import Quality
from safelight.types import Network

EVERY: dict[Quality, int] = {"exact": 1, "fast": 2, "fastest": 3}
"""The steps of which one computes the deep layers of the U-Net."""


def approximated(network: Deep, quality: Quality) -> Network:
    """A network for one run of a sampler, by the approximation of a quality."""
    every = EVERY[quality]
    return network if every == 1 else DeepReuse(network, every)
