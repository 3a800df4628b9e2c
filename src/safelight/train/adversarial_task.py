"""Adversarial distillation: a student makes in one to four steps what is to be told from the real
thing by no discriminator, and to be found right by its teacher.

Source: Sauer et al. 2023 (ADD, arXiv 2311.17042), which made SDXL-Turbo; Sauer et al. 2024 (LADD,
arXiv 2403.12015).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser, per_image
from safelight.diffusion.objective import SigmaLaw
from safelight.errors import SafelightError
from safelight.models.adversary_heads import AdversaryHeads, HeadConfig
from safelight.train import losses
from safelight.train.adversarial_views import View, Viewer
from safelight.train.discriminator import frozen_call
from safelight.train.distillation import (
    FIRST_STREAM,
    Answer,
    Asked,
    DistillationConfig,
    Latents,
    Told,
    asked_of,
    latents_of,
    noise_of,
)
from safelight.train.score_distillation import WEIGHTINGS, Weighting, score_distillation
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch


@dataclass(frozen=True)
class AdversarialConfig:
    """What a student is asked for, and by whom.

    `chances` says how often it is asked at each of its steps, the first, from noise alone, first;
    empty, that is 7 times in 10 and the others share the rest (as LADD has it). `real` says what
    it is to be told from: encoded "pictures", or samples of the "teacher". `score` weighs the
    teacher's opinion against the adversary's (lambda of ADD, eq. 1), and 0 leaves it out;
    `weighting` is its c(t). `r1` weighs the penalty on the heads' gradients (gamma of ADD, eq. 3).
    A latent adversary looks through all blocks of the teacher, or those on the way "down", at
    noise whose log has `mean` and `std`. A pixel adversary may be told what the real picture shows.
    """

    chances: tuple[float, ...] = ()
    real: Literal["pictures", "teacher"] = "pictures"
    score: float = 2.5
    weighting: Weighting = "exponential"
    r1: float = 1e-5
    blocks: Literal["all", "down"] = "all"
    mean: float = 1.0
    std: float = 1.0
    told_picture: bool = True
    heads: HeadConfig = field(default_factory=HeadConfig)
    lr_scale: float = 1.0  # of the heads

    def __post_init__(self):
        if not all(0 <= chance < math.inf for chance in self.chances) or (
            self.chances and self.chances[0] == 0
        ):
            raise SafelightError(
                "adversarial.chances should be numbers of 0 or more, one for each step, and the "
                f"first, from noise alone, above 0; got {list(self.chances)}."
            )
        for name in ("score", "r1"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SafelightError(
                    f"adversarial.{name} should be at least 0, got {getattr(self, name)}."
                )
        for name in ("std", "lr_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise SafelightError(
                    f"adversarial.{name} should be above 0, got {getattr(self, name)}."
                )
        if not math.isfinite(self.mean):
            raise SafelightError(f"adversarial.mean should be finite, got {self.mean}.")

    def chances_of(self, steps: int) -> tuple[float, ...]:
        """The chance of each of so many steps; they sum to 1.

        Raises `SafelightError` if another number is given.
        """
        if not self.chances:
            return (1.0,) if steps == 1 else (0.7, *[0.3 / (steps - 1)] * (steps - 1))
        if len(self.chances) != steps:
            raise SafelightError(
                f"Expected one of adversarial.chances for each of {steps} steps, got "
                f"{len(self.chances)}."
            )
        return tuple(chance / sum(self.chances) for chance in self.chances)


@dataclass(frozen=True)
class Judge:
    """A frozen teacher who judges the student's work, and the noise levels at which it is asked."""

    answer: Answer
    sigmas: SigmaLaw


Real = Callable[[Latents, Asked, Draws], Latents]
"""Latents of a batch, and what they are asked under, to those that count as real."""


class AdversarialTask:
    """Trains what `phases` name, the student's network or a part of it among them in "main", and
    the discriminator's heads in "adversary".

    `levels` (n,) are the noise levels of the student's steps, falling. At the first it begins from
    noise alone, as a sampler does; at the others it is given real latents with noise. `real` may
    put others in the place of a batch's latents, such as `adversarial_reals.teacher_samples`.

    Raises `SafelightError` if there are not as many chances as levels.
    """

    def __init__(
        self,
        phases: Mapping[str, Phase],
        student: Denoiser,
        judge: Judge,
        told: Told,
        viewer: Viewer,
        levels: Float[Tensor, " n"],
        configs: tuple[DistillationConfig, AdversarialConfig],
        real: Real | None = None,
    ):
        self._shared, self._config = configs
        self._student, self._judge, self._told = student, judge, told
        self._viewer, self._levels, self._real = viewer, levels.float(), real
        chances = self._config.chances_of(len(levels))
        self._ends = torch.tensor(list(accumulate(chances))[:-1])  # of all steps but the last
        self._heads = AdversaryHeads(viewer.widths, viewer.about_dim, self._config.heads)
        heads = Phase({"heads": self._heads}, averaged=False, lr_scale=self._config.lr_scale)
        self._phases = {**phases, "adversary": heads}

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student, and the heads."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The student's loss (ADD, eq. 1, 2 and 4), then the heads' (ADD, eq. 3).

        Differs from ADD in that heads and places are averaged, because weights then hold for any
        number of blocks, and in that the heads' loss is half of theirs, because hinge losses are
        elsewhere, too.
        """
        if draws.first == 0:  # a batch in parts is judged by the same heads throughout
            self._heads.iterate()
        asked = asked_of(batch, draws, self._told, self._shared)
        x0 = latents_of(batch)
        if self._real is not None:
            x0 = self._real(x0, asked, draws)
        x, sigma, begun = self._given(x0, draws)
        made = self._student(x, sigma, asked.cond)
        view = self._viewer(x0, asked.cond, begun, draws)
        maps = view.made(made)
        logits = [
            frozen_call(head, part, view.about)
            for head, part in zip(self._heads, maps, strict=True)
        ]
        total = _mean([losses.hinge_generator(part) for part in logits])
        parts = {"fooled": total}
        if self._config.score:
            parts["score"] = self._scored(made, asked, draws)
            total = total + self._config.score * parts["score"]
        maps = [part.detach() for part in maps]
        yield Loss("main", total, {"loss": total, **parts})

        total, parts = self._judged(view, maps)
        yield Loss("adversary", total, parts)

    def _given(
        self, x0: Latents, draws: Draws
    ) -> tuple[Latents, Float[Tensor, " b"], Bool[Tensor, " b"]]:
        """What the student is run on: x, its noise level, and whether it is noise alone."""
        place = (draws.uniform(_STEP)[:, None] >= self._ends.to(x0.device)).sum(1)
        sigma, begun = self._levels.to(x0.device)[place], place == 0
        noised = per_image(sigma, x0) * noise_of(draws, x0)
        return torch.where(begun[:, None, None, None], noised, x0 + noised), sigma, begun

    def _scored(self, made: Latents, asked: Asked, draws: Draws) -> Tensor:
        """What the guided teacher finds wrong with the student's x0."""
        judge = self._judge
        sigma = draws.rows(judge.sigmas(draws.total, draws.generator(_SCORE_SIGMA)))
        return score_distillation(
            made,
            lambda x, sigma: judge.answer(x, sigma, asked),
            sigma,
            draws.normal(made.shape, _SCORE_NOISE),
            WEIGHTINGS[self._config.weighting],
        ).mean()

    def _judged(self, view: View, made: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The heads' loss, and its parts; `made` are detached."""
        real = [part.detach().requires_grad_() for part in view.real()]
        of_real = self._heads.logits(real, view.about)
        of_made = self._heads.logits(made, view.about)
        pairs = zip(of_real, of_made, strict=True)
        total = _mean([losses.hinge_discriminator(*pair) for pair in pairs])
        parts = {"adversary": total, "real": _mean([part.mean() for part in of_real])}
        if self._config.r1:
            pairs = zip(of_real, real, strict=True)
            parts["r1"] = _mean([losses.r1(*pair) for pair in pairs])
            total = total + 0.5 * self._config.r1 * parts["r1"]
        return total, parts


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


_STEP, _SCORE_SIGMA, _SCORE_NOISE = range(FIRST_STREAM, FIRST_STREAM + 3)  # of random numbers
