"""Samplers by name: ours, and those that diffusers and other programs use."""

import re
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from safelight.config import near
from safelight.diffusion.solvers import (
    sample_ddim,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lcm,
)
from safelight.diffusion.solvers_multistep import sample_dpmpp_2m, sample_plms
from safelight.errors import SafelightError
from safelight.types import Denoise, Noise, OnStep


@runtime_checkable
class Sampler(Protocol):
    """From x at `sigmas[0]` to x at `sigmas[-1]`; see `safelight.diffusion.solvers`."""

    def __call__(
        self,
        denoise: Denoise,
        x: Float[Tensor, "b c h w"],
        sigmas: Float[Tensor, " n"],
        *,
        noise: Noise,
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Runs all steps."""
        ...


SAMPLERS: dict[str, Sampler] = {
    "ddim": sample_ddim,
    "euler": sample_euler,
    "euler_a": sample_euler_ancestral,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "plms": sample_plms,
    "lcm": sample_lcm,
}

_OTHERS = {
    "euler_ancestral": "euler_a",
    "pndm": "plms",
}


def sampler_by_name(name: str) -> Sampler:
    """The sampler of a name in `SAMPLERS`, or of another program's spelling, such as "DPM++ 2M".

    Raises `SafelightError` for an unknown name, with the near ones.
    """
    return SAMPLERS[sampler_name(name)]


def sampler_name(name: str) -> str:
    """Our spelling of a sampler's name; errors as `sampler_by_name`."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().replace("++", "pp")).strip("_")
    plain = _OTHERS.get(plain, plain)
    if plain not in SAMPLERS:
        raise SafelightError(f"Unknown sampler {name!r}. {near(plain, SAMPLERS)}")
    return plain
