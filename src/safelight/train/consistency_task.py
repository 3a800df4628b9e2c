"""Distillation to a few steps by consistency: LCM, and its generalisation TCD.

Both ask that two neighbouring points of the teacher's way, of which the teacher's own step leads
from one to the other, are taken to the same place. Source: Luo et al. 2023 (arXiv 2310.04378),
algorithm 1; Zheng et al. 2024 (arXiv 2402.19159), algorithm 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.errors import SafelightError
from safelight.train.distillation import (
    FIRST_STREAM,
    Answer,
    DistillationConfig,
    Latents,
    Levels,
    asked_of,
    latents_of,
    noise_of,
)
from safelight.train.latent_task import Conditioner
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


class ConsistencyTask:
    """Teaches a student to go from any taught time to the end of the teacher's way ("lcm"), or to
    any place on it ("tcd"), in one step.

    `phases` are what is trained and what follows it. `follow` is called as each step begins, and
    moves the target after the student; it sees what the step before has made of the student.
    """

    def __init__(
        self,
        phases: Mapping[str, Phase],
        trio: Trio,
        condition: Conditioner,
        schedule: DiscreteSchedule,
        config: DistillationConfig,
        follow: Callable[[], None],
    ):
        self._phases, self._trio, self._condition = phases, trio, condition
        self._schedule, self._config, self._follow = schedule, config, follow
        self._taught = taught_times(schedule, config.times)

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student, and its average if targets are by that."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The distance between the student's jump and its target's, from one teacher step below."""
        if draws.first == 0:
            self._follow()
        x0 = latents_of(batch)
        asked = asked_of(batch, draws, self._condition, self._config)
        t, below = self._times(draws)
        end = (draws.uniform(_END) * (below + 1)).floor().minimum(below)  # of the way, for TCD
        sigma, landing, final = (self._schedule.t_to_sigma(times) for times in (t, below, end))
        x = x0 + per_image(sigma, x0) * noise_of(draws, x0)
        trio, consistent = self._trio, self._config.method == "lcm"

        def jump(answer: Answer, x: Latents, sigma: Levels, t: Levels) -> Latents:
            denoised = answer(x, sigma, asked)
            return (
                bounded(denoised, x, sigma, t) if consistent else moved(denoised, x, sigma, final)
            )

        with torch.no_grad():
            down = step_down(trio.teacher(x, sigma, asked), x, landing / sigma)
            wanted = jump(trio.target, down, landing, below)
        loss = self._distance(jump(trio.student, x, sigma, t), wanted)
        yield Loss("main", loss, {"loss": loss})

    def _times(self, draws: Draws) -> tuple[Levels, Levels]:
        """For each image one of the taught times, and where the teacher's step from it lands."""
        taught = self._taught.to(draws.device)
        place = (draws.uniform(_TIME) * len(taught)).long().clamp(max=len(taught) - 1)
        stride = len(self._schedule) // self._config.times
        return taught[place], (taught[place] - stride).clamp(min=0)

    def _distance(self, got: Latents, wanted: Latents) -> Float[Tensor, ""]:
        if self._config.loss == "huber":
            return pseudo_huber(got, wanted, self._config.huber_c)
        return (got - wanted).square().mean()


def taught_times(schedule: DiscreteSchedule, count: int) -> Float[Tensor, " n"]:
    """The `count` times, float32, ascending, at which a student is taught, the last of them the
    schedule's (section 4.3; where `sigmas.lcm_sigmas` stops).

    Raises `SafelightError` for more than there are.
    """
    if count > len(schedule):
        raise SafelightError(
            f"distillation.times = {count} is more than the {len(schedule)} times of the model."
        )
    return torch.arange(1, count + 1, dtype=torch.float32) * (len(schedule) // count) - 1


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
