"""Where a sampler stops on its way down: falling noise levels, laid out as diffusers' classes do.

Every layout gives (steps + 1,) float64 levels; the last is `final_sigma`, 0 by default.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.beta_distribution import beta_quantiles
from safelight.diffusion.noise_schedule import DiscreteSchedule, FlowSchedule
from safelight.errors import SafelightError

Spacing = Literal["leading", "trailing", "linspace"]


def model_sigmas(
    schedule: DiscreteSchedule,
    steps: int,
    spacing: Spacing = "trailing",
    *,
    steps_offset: int = 0,
    final_sigma: float = 0.0,
    whole_times: bool = True,
    end_included: bool = False,
) -> Float[Tensor, " n"]:
    """The noise levels at evenly spaced times of the network (Lin et al. 2023, table 2).

    "leading" counts up from 0 plus `steps_offset`, "trailing" down from the last time, "linspace"
    takes both ends. `whole_times` rounds linspace's times, as diffusers' DDIM, PNDM and DPM-Solver
    do and Euler and Heun do not. `end_included` counts the end at time 0 among the points that are
    spaced, as DPM-Solver does with leading and linspace.

    Raises `SafelightError` if there are more steps than times.
    """
    times = _times(len(schedule), steps, spacing, steps_offset, whole_times, end_included)
    return _ended(schedule.t_to_sigma(times), final_sigma)


def ddim_landings(
    schedule: DiscreteSchedule,
    steps: int,
    spacing: Spacing = "leading",
    *,
    steps_offset: int = 0,
    final_sigma: float = 0.0,
) -> Float[Tensor, " n"]:
    """Where each of diffusers' DDIM steps lands (steps,): always `num_times // steps` below its own
    time, and at `final_sigma` below time 0.

    That is the next level with "leading", and with "trailing" where the steps divide the times;
    else it is beside it, and `sample_ddim` needs these for diffusers' picture.
    """
    times = _times(len(schedule), steps, spacing, steps_offset, True, False)
    landings = times - len(schedule) // steps
    sigmas = schedule.t_to_sigma(landings)
    return torch.where(landings < 0, torch.full_like(sigmas, final_sigma), sigmas)


def pndm_calls(
    schedule: DiscreteSchedule,
    steps: int,
    spacing: Spacing = "leading",
    *,
    steps_offset: int = 0,
    final_sigma: float = 0.0,
    start: int = 0,
) -> Float[Tensor, "m 3"]:
    """What diffusers' PNDM does in each call from place `start` of its list of times on: the level
    that the network is asked at, that which x is taken to have, and that which the step goes to.

    The list has the second time twice, for the corrector of the first step, which goes the same way
    again. Its pipelines cut `start` times off and do not move the corrector, so that from a later
    step on the network is asked one level below x. Steps go `num_times // steps` down, as
    `ddim_landings`.
    """
    times = _times(len(schedule), steps, spacing, steps_offset, True, False)
    times = torch.cat([times[:2], times[1:]])[start:]
    stride = len(schedule) // steps
    leaves, lands = times.clone(), times - stride
    leaves[1:2] += stride
    lands[1:2] = times[1:2]
    ends = torch.where(lands < 0, final_sigma, schedule.t_to_sigma(lands))
    return torch.stack([schedule.t_to_sigma(times), schedule.t_to_sigma(leaves), ends], dim=-1)


def tcd_landings(
    schedule: DiscreteSchedule, sigmas: Float[Tensor, " n"], *, gamma: float = 0.3
) -> Float[Tensor, " m"]:
    """Where each of diffusers' TCD steps jumps to (n - 1,): `1 - gamma` of its target's time, a
    whole one (Zheng et al. 2024, arXiv 2402.19159, algorithm 4).
    """
    times = ((1 - gamma) * schedule.sigma_to_t(sigmas[1:])).floor()
    return torch.minimum(schedule.t_to_sigma(times), sigmas[1:])


def lcm_sigmas(
    schedule: DiscreteSchedule, steps: int, *, distilled: int = 50, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """The levels of diffusers' `LCMScheduler` and `TCDScheduler`: some of the `distilled` times
    that the model was taught, then `final_sigma` (Luo et al. 2023, arXiv 2310.04378, section 4.3).

    Raises `SafelightError` for more steps than such times.
    """
    taught = np.arange(1, min(distilled, len(schedule)) + 1)
    times = taught * (len(schedule) // distilled) - 1
    check_steps(steps, len(times))
    chosen = np.floor(np.linspace(0, len(times), steps, endpoint=False)).astype(np.int64)
    levels = schedule.t_to_sigma(torch.from_numpy(times[::-1][chosen].astype(float)))
    return _ended(levels, final_sigma)


def split_at(schedule: DiscreteSchedule, sigmas: Float[Tensor, " n"], part: float) -> int:
    """The number of steps before the first whose time lies in the last `1 - part` of the
    schedule's, which is where one model hands x over to another (diffusers' `denoising_end` and
    `denoising_start`).
    """
    cutoff = round(len(schedule) * (1 - part))
    times = schedule.sigma_to_t(sigmas[:-1])
    return int((times >= cutoff - 1e-6).sum().item())


def flow_sigmas(schedule: FlowSchedule, steps: int) -> Float[Tensor, " n"]:
    """The levels of diffusers' `FlowMatchEulerDiscreteScheduler`: u evenly from 1 down to the
    shifted 1 / num, then shifted again, which is how Stable Diffusion 3 samples (Esser et al. 2024,
    eq. 23); then 0.
    """
    check_steps(steps, schedule.num)
    least = schedule.sigma_min / (1 + schedule.sigma_min)
    u = torch.linspace(1, least, steps, dtype=torch.float64)
    sigmas = schedule.shift * schedule.t_to_sigma(schedule.num * u)
    return _ended(sigmas.clamp(max=schedule.sigma_max), 0.0)


def solver_flow_sigmas(schedule: FlowSchedule, steps: int) -> Float[Tensor, " n"]:
    """The levels of diffusers' `DPMSolverMultistepScheduler` with `use_flow_sigmas`: u evenly from
    1 - 1 / num down to 0, shifted once (Esser et al. 2024, eq. 23).
    """
    check_steps(steps, schedule.num)
    u = torch.linspace(1 - 1 / schedule.num, 0, steps + 1, dtype=torch.float64)
    return schedule.shift * u / (1 - u)


def unipc_flow_sigmas(schedule: FlowSchedule, steps: int) -> Float[Tensor, " n"]:
    """The levels of diffusers' `UniPCMultistepScheduler` with `use_flow_sigmas`: u evenly from 1 to
    1 / num, the last left out, shifted once; pure noise stands at u = 1 - 1e-6.
    """
    check_steps(steps, schedule.num)
    u = torch.linspace(1, 1 / schedule.num, steps + 1, dtype=torch.float64)[:-1]
    shifted = schedule.shift * u / (1 + (schedule.shift - 1) * u)
    shifted[0] -= 1e-6
    return _ended(shifted / (1 - shifted), 0.0)


def karras_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels evenly spaced in `sigma^(1 / rho)` (Karras et al. 2022, eq. 5)."""
    check_steps(steps)
    ramp = torch.linspace(
        sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64
    )
    return _ended(ramp**rho, final_sigma)


def exponential_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels evenly spaced in log sigma."""
    check_steps(steps)
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log()
    ramp = torch.linspace(ends[0].item(), ends[1].item(), steps, dtype=torch.float64)
    return _ended(ramp.exp(), final_sigma)


def edm_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, rho: float | None, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels of a range of sigma: Karras' by `rho`, or even in log sigma where that is None."""
    if rho is None:
        return exponential_sigmas(steps, sigma_min, sigma_max, final_sigma=final_sigma)
    return karras_sigmas(steps, sigma_min, sigma_max, rho=rho, final_sigma=final_sigma)


def beta_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels at even quantiles of Beta(0.6, 0.6) over sigma, as diffusers' `use_beta_sigmas` and
    AUTOMATIC1111 lay them out; `schedules` has those of the paper, over time.
    """
    check_steps(steps)
    evenly = 1 - torch.linspace(0, 1, steps, dtype=torch.float64)
    return _ended(sigma_min + (sigma_max - sigma_min) * beta_quantiles(evenly), final_sigma)


def _times(
    count: int,
    steps: int,
    spacing: Spacing,
    steps_offset: int,
    whole_times: bool,
    end_included: bool,
) -> Float[Tensor, " n"]:
    # In numpy, because its last digits decide which way diffusers rounds a time that ends in .5.
    # Differs from diffusers where arange gives it one time too many, -1, which no network knows.
    check_steps(steps, count - end_included)
    points = steps + end_included
    if spacing == "trailing":
        times = np.arange(count, 0, -count / steps)[:steps].round() - 1
    elif spacing == "leading":
        times = (np.arange(points) * (count // points))[::-1][:steps] + steps_offset
    else:
        times = np.linspace(0, count - 1, points)
        times = (times.round() if whole_times else times)[::-1][:steps]
    if times[0] > count - 1:
        raise SafelightError(
            f"{steps} steps with an offset of {steps_offset} reach beyond the last of the model's "
            f"{count} times; take fewer steps."
        )
    return torch.from_numpy(times.astype(np.float64))


def check_steps(steps: int, most: int | None = None) -> None:
    """Raises `SafelightError` for less than one step, or more than `most`."""
    if steps < 1 or (most is not None and steps > most):
        wanted = "at least 1 step" if most is None else f"1 to {most} steps"
        raise SafelightError(f"Expected {wanted}, got {steps}.")


def _ended(sigmas: Float[Tensor, " n"], final_sigma: float) -> Float[Tensor, " m"]:
    return torch.cat([sigmas, sigmas.new_tensor([final_sigma])])
