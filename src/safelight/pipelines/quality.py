"""Approximations that are asked for by one word."""

import math

from safelight.models.deep_reuse import Deep, DeepReuse
from safelight.pipelines.choices import Quality
from safelight.types import Network

FIRST = 0.2
"""The part of the steps, from the first on, that are computed whole in every quality."""

EVERY: dict[Quality, int] = {"exact": 1, "fast": 3, "fastest": 5}
"""The steps after them of which one is computed whole."""


def approximated(network: Deep, quality: Quality, steps: int) -> Network:
    """A network for one run of a sampler of so many steps, by the approximation of a quality."""
    if EVERY[quality] == 1:
        return network
    return DeepReuse(network, math.ceil(FIRST * steps), EVERY[quality])
