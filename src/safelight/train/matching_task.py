"""Distillation by matching what the teacher says of the same noised picture: of guidance, which two
calls become one by, and of steps, two of which become one.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.objective import SigmaLaw
from safelight.diffusion.parameterization import Parameterization
from safelight.diffusion.sigmas import model_sigmas
from safelight.errors import SafelightError
from safelight.train.consistency_task import step_down
from safelight.train.distillation import (
    FIRST_STREAM,
    Answer,
    Asked,
    DistillationConfig,
    Latents,
    Levels,
    Told,
    asked_of,
    latents_of,
    noise_of,
)
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch


class GuidanceTask:
    """Teaches a student to say in one call what its teacher says guided, at every noise level and
    every scale (Meng et al. 2023, arXiv 2210.03142, section 3.1, stage one).

    The distance is squared, between outputs as the network makes them: of eps, v or x0. Differs
    from the paper's, of weighted x0 (eq. 3), because the teacher was trained on its outputs.
    """

    def __init__(
        self,
        phases: Mapping[str, Phase],
        student: Answer,
        teacher: Answer,
        told: Told,
        parameterization: Parameterization,
        sigmas: SigmaLaw,
        config: DistillationConfig,
    ):
        self._phases, self._student, self._teacher = phases, student, teacher
        self._told, self._config = told, config
        self._parameterization, self._sigmas = parameterization, sigmas

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student alone."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The distance between what both say of the same noised latents."""
        x0 = latents_of(batch)
        asked = asked_of(batch, draws, self._told, self._config)
        sigma = draws.rows(self._sigmas(draws.total, draws.generator(_SIGMA)))
        x = x0 + per_image(sigma, x0) * noise_of(draws, x0)
        wanted = self._teacher(x, sigma, asked)
        error = self._student(x, sigma, asked) - wanted
        loss = (error / per_image(self._parameterization(sigma).c_out, x)).square().mean()
        yield Loss("main", loss, {"loss": loss})


class ProgressiveTask:
    """Teaches a student to do in one step of DDIM what its teacher does in two, and again with the
    student as teacher, until the steps are few (Salimans and Ho 2022, arXiv 2202.00512, algorithm
    2).

    Each round takes `round_steps` of the training. The first teacher is `teacher`; those of later
    rounds are `former`, which `succeed` makes what the student is as a round begins: its weights as
    they are then, not their average, which begins anew so that no two rounds mix in it. The loss
    has the paper's truncated SNR weight (eq. 9).

    Differs from the paper in that times are the whole ones of the network, laid out as diffusers'
    "trailing" ones are, because its samplers stop at no others; and in that the optimiser goes on
    through the rounds, because its moments are still of these weights.
    """

    def __init__(
        self,
        phases: Mapping[str, Phase],
        student: Answer,
        teachers: tuple[Answer, Answer],
        told: Told,
        schedule: DiscreteSchedule,
        config: DistillationConfig,
        round_steps: int,
        succeed: Callable[[], None],
    ):
        self._phases, self._student, self._teachers = phases, student, teachers
        self._told, self._config = told, config
        self._round_steps, self._succeed = round_steps, succeed
        self._levels = [
            model_sigmas(schedule, config.teacher_steps >> done, "trailing").float()
            for done in range(config.rounds)
        ]

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student, and the former one that teaches it."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The student's weighted error at x0, of the x0 that leads to where the teacher gets."""
        done = round_at(draws.step, self._round_steps, self._config.rounds)
        begins = done > 0 and draws.step == done * self._round_steps
        if begins and draws.first == 0:
            self._succeed()
        x0 = latents_of(batch)
        asked = asked_of(batch, draws, self._told, self._config)
        levels = self._levels[done].to(draws.device)
        count = len(levels) // 2
        place = 2 * (draws.uniform(_PLACE) * count).long().clamp(max=count - 1)
        three = levels[place], levels[place + 1], levels[place + 2]
        x = x0 + per_image(three[0], x0) * noise_of(draws, x0)
        with torch.no_grad():
            wanted = two_steps(self._teachers[min(done, 1)], x, three, asked)
        error = (self._student(x, three[0], asked) - wanted).square().flatten(1).mean(1)
        loss = (three[0].pow(-2).clamp(min=1) * error).mean()
        yield Loss("main", loss, {"loss": loss}, restart=begins)


def two_steps(
    answer: Answer, x: Latents, sigmas: tuple[Levels, Levels, Levels], asked: Asked
) -> Latents:
    """The x0 by which one DDIM step from the first level to the last leads to where two lead over
    the middle one (Salimans and Ho 2022, algorithm 2), as a mean of the two x0 that are seen: no
    difference of large numbers.
    """
    sigma, middle, last = sigmas
    first = answer(x, sigma, asked)
    second = answer(step_down(first, x, middle / sigma), middle, asked)
    left = last / middle  # of the noise, by the second step
    weight = (1 - left) / (1 - last / sigma)
    return torch.lerp(first, second, per_image(weight, x))


def round_at(step: int, round_steps: int, rounds: int) -> int:
    """How many rounds are done before a step."""
    return min(step // round_steps, rounds - 1)


def round_length(steps: int, rounds: int) -> int:
    """The steps of one of so many rounds; `SafelightError` if a training of `steps` does not divide
    into them.
    """
    if steps % rounds or steps < rounds:
        raise SafelightError(
            f"loop.steps = {steps} should divide into the {rounds} rounds that halve the steps, "
            f"such as {max(steps // rounds, 1) * rounds}."
        )
    return steps // rounds


_SIGMA, _PLACE = FIRST_STREAM, FIRST_STREAM + 1
