"""Samplers by name."""

from collections.abc import Callable

from torch import Tensor

from safelight.config import near
from safelight.diffusion.solvers import (
    sample_ddim,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
)
from safelight.diffusion.solvers_multistep import sample_dpmpp_2m, sample_plms
from safelight.errors import SafelightError

Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "ddim": sample_ddim,
    "euler": sample_euler,
    "euler_a": sample_euler_ancestral,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "plms": sample_plms,
}


def sampler_by_name(name: str) -> Sampler:
    if name not in SAMPLERS:
        raise SafelightError(f"Unknown sampler {name!r}. {near(name, SAMPLERS)}")
    return SAMPLERS[name]
