"""Samplers by name: ours, and those that diffusers and other programs use."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from safelight.config import near
from safelight.diffusion.sampler_names import plain_name
from safelight.diffusion.solvers import (
    sample_ddim,
    sample_dpm2,
    sample_dpmpp_2s,
    sample_euler,
    sample_heun,
)
from safelight.diffusion.solvers_adams import sample_deis, sample_lms
from safelight.diffusion.solvers_ancestral import (
    sample_ddpm,
    sample_dpm2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_euler_ancestral,
)
from safelight.diffusion.solvers_consistency import sample_lcm, sample_tcd
from safelight.diffusion.solvers_multistep import sample_dpmpp_2m, sample_plms
from safelight.diffusion.solvers_restart import sample_restart
from safelight.diffusion.solvers_sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from safelight.diffusion.solvers_unipc import sample_unipc
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
    "ddpm": sample_ddpm,
    "euler": sample_euler,
    "euler_a": sample_euler_ancestral,
    "heun": sample_heun,
    "dpm2": sample_dpm2,
    "dpm2_a": sample_dpm2_ancestral,
    "lms": sample_lms,
    "plms": sample_plms,
    "dpmpp_2s": sample_dpmpp_2s,
    "dpmpp_2s_a": sample_dpmpp_2s_ancestral,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "unipc": sample_unipc,
    "deis": sample_deis,
    "lcm": sample_lcm,
    "tcd": sample_tcd,
    "restart": sample_restart,
}


def sampler_by_name(name: str) -> Sampler:
    """The sampler of a name in `SAMPLERS`, or of another program's spelling, such as "DPM++ 2M".

    Raises `SafelightError` for an unknown name, with the near ones.
    """
    return SAMPLERS[sampler_name(name)]


def sampler_name(name: str) -> str:
    """Our spelling of a sampler's name, without the schedule at its end (see `schedule_in`); errors
    as `sampler_by_name`.
    """
    plain, _ = plain_name(name)
    if plain not in SAMPLERS:
        raise SafelightError(f"Unknown sampler {name!r}. {near(plain, SAMPLERS)}")
    return plain


def schedule_in(name: str) -> str | None:
    """The schedule that a sampler's name ends with: "karras" of "DPM++ 2M Karras"."""
    return plain_name(name)[1]
