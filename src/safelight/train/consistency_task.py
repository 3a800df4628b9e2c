"""Distillation to a few steps by consistency: LCM, and its generalisation TCD.

Both ask that two neighbouring points of the teacher's way, of which the teacher's own step leads
from one to the other, are taken to the same place. Source: Luo et al. 2023 (arXiv 2310.04378),
algorithm 1; Zheng et al. 2024 (arXiv 2402.19159), algorithm 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.errors import SafelightError
from safelight.train.distillation import (
    FIRST_STREAM,
    Answer,
    DistillationConfig,
    Latents,
    Levels,
    Told,
    asked_of,
    latents_of,
    noise_of,
)
from safelight.train.losses import pseudo_huber
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0  # of LCM's boundary, as in diffusers' LCMScheduler


@dataclass(frozen=True)
class Trio:
    """Who takes part: the student, what gives its targets (itself, or its average), the teacher."""

    student: Answer
    target: Answer
    teacher: Answer


@dataclass(frozen=True)
class Places:
    """From which noise level and time x jumps, and the noise level where a jump of TCD ends."""

    sigma: Levels
    t: Levels
    end: Levels


class ConsistencyTask:
    """Teaches a student to go from any taught time to the end of the teacher's way ("lcm"), or to
    any place on it ("tcd"), in one step.

    `phases` are what is trained and what follows it. `follow` is called as each step begins, and
    moves the target after the student; it sees what the step before has made of the student.

    Differs from both papers in that only every so many-th time is taught, because the samplers stop
    at no others.
    """

    def __init__(
        self,
        phases: Mapping[str, Phase],
        trio: Trio,
        told: Told,
        schedule: DiscreteSchedule,
        config: DistillationConfig,
        follow: Callable[[], None],
    ):
        self._phases, self._trio, self._told = phases, trio, told
        self._schedule, self._config, self._follow = schedule, config, follow
        self._taught = taught_times(schedule, config.times)
        self._jump = _to_the_end if config.method == "lcm" else _to_a_place
        huber = partial(pseudo_huber, c=config.huber_c)
        self._distance = huber if config.loss == "huber" else nn.functional.mse_loss

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student, and its average if targets are by that."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The distance between the student's jump and its target's, from one teacher step below."""
        if draws.first == 0:
            self._follow()
        x0 = latents_of(batch)
        asked = asked_of(batch, draws, self._told, self._config)
        t, below = self._times(draws)
        end = (draws.uniform(_END) * (below + 1)).floor().minimum(below)  # of the way, for TCD
        sigma, landing, final = (self._schedule.t_to_sigma(times) for times in (t, below, end))
        x = x0 + per_image(sigma, x0) * noise_of(draws, x0)
        trio = self._trio
        with torch.no_grad():
            down = step_down(trio.teacher(x, sigma, asked), x, landing / sigma)
            denoised = trio.target(down, landing, asked)
            wanted = self._jump(denoised, down, Places(landing, below, final))
        got = self._jump(trio.student(x, sigma, asked), x, Places(sigma, t, final))
        loss = self._distance(got, wanted)
        yield Loss("main", loss, {"loss": loss})

    def _times(self, draws: Draws) -> tuple[Levels, Levels]:
        """For each image one of the taught times, and where the teacher's step from it lands."""
        taught = self._taught.to(draws.device)
        place = (draws.uniform(_TIME) * len(taught)).long().clamp(max=len(taught) - 1)
        stride = len(self._schedule) // self._config.times
        return taught[place], (taught[place] - stride).clamp(min=0)


def taught_times(schedule: DiscreteSchedule, count: int) -> Float[Tensor, " n"]:
    """The `count` times, float32, ascending, at which a student is taught, the last of them the
    schedule's (section 4.3; where `sigmas.lcm_sigmas` stops).

    Raises `SafelightError` for more than there are, and for a number that does not divide theirs.
    """
    total = len(schedule)
    if count > total:
        raise SafelightError(
            f"distillation.times = {count} is more than the {total} times of the model."
        )
    if total % count:
        divisors = [number for number in range(1, total + 1) if total % number == 0]
        raise SafelightError(
            f"distillation.times = {count} should divide the {total} times of the model, such as "
            f"{min(divisors, key=lambda number: abs(number - count))}."
        )
    return torch.arange(1, count + 1, dtype=torch.float32) * (total // count) - 1


def _to_the_end(denoised: Latents, x: Latents, at: Places) -> Latents:
    return bounded(denoised, x, at.sigma, at.t)


def _to_a_place(denoised: Latents, x: Latents, at: Places) -> Latents:
    return moved(denoised, x, at.sigma, at.end)


def step_down(denoised: Latents, x: Latents, ratio: Levels) -> Latents:
    """DDIM's step, by which `ratio` of the noise is left (Luo et al. 2023, eq. 12)."""
    return torch.lerp(denoised, x, per_image(ratio, x))


def bounded(denoised: Latents, x: Latents, sigma: Levels, t: Levels) -> Latents:
    """LCM's consistency function, `c_skip(t) z + c_out(t) x0` for z = x at unit variance, which is
    z itself at t = 0 (Luo et al. 2023, eq. 9; c_skip and c_out by diffusers' `LCMScheduler`).
    """
    scaled = TIMESTEP_SCALING * t
    total = scaled.square() + SIGMA_DATA**2
    c_skip, c_out = SIGMA_DATA**2 / total, scaled * total.rsqrt()
    z = per_image((sigma**2 + 1).rsqrt(), x) * x
    return per_image(c_skip, x) * z + per_image(c_out, x) * denoised


def moved(denoised: Latents, x: Latents, sigma: Levels, end: Levels) -> Latents:
    """TCD's function: x jumps to the noise level `end`, and is given at unit variance there (Zheng
    et al. 2024, eq. 10, order 1); it is x itself where `end` is sigma.
    """
    return per_image((end**2 + 1).rsqrt(), x) * step_down(denoised, x, end / sigma)


_TIME, _END = FIRST_STREAM, FIRST_STREAM + 1
