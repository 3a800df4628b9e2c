"""Where a sampler stops on its way down: falling noise levels, laid out as diffusers' classes do.

Every layout gives (steps + 1,) float64 levels; the last is `final_sigma`, 0 by default.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.noise_schedule import DiscreteSchedule
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
    count = len(schedule)
    if not 1 <= steps <= count - end_included:
        raise SafelightError(f"Expected 1 to {count - end_included} steps, got {steps}.")
    points = steps + end_included
    if spacing == "trailing":
        times = (count - torch.arange(steps, dtype=torch.float64) * (count / steps)).round() - 1
    elif spacing == "leading":
        times = torch.arange(points, dtype=torch.float64) * (count // points) + steps_offset
        times = times.flip(0)[:steps]
    else:
        times = torch.linspace(0, count - 1, points, dtype=torch.float64)
        times = (times.round() if whole_times else times).flip(0)[:steps]
    return _ended(schedule.t_to_sigma(times), final_sigma)


def karras_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels evenly spaced in `sigma^(1 / rho)` (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(
        sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64
    )
    return _ended(ramp**rho, final_sigma)


def exponential_sigmas(
    steps: int, sigma_min: float, sigma_max: float, *, final_sigma: float = 0.0
) -> Float[Tensor, " n"]:
    """Levels evenly spaced in log sigma."""
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log()
    ramp = torch.linspace(ends[0].item(), ends[1].item(), steps, dtype=torch.float64)
    return _ended(ramp.exp(), final_sigma)


def _ended(sigmas: Float[Tensor, " n"], final_sigma: float) -> Float[Tensor, " m"]:
    return torch.cat([sigmas, sigmas.new_tensor([final_sigma])])
