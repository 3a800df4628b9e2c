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
from torch import Tensor, nn

from safelight.diffusion.denoiser import Denoiser, per_image
from safelight.diffusion.guidance import cfg
from safelight.diffusion.objective import SigmaLaw
from safelight.diffusion.solvers import PURE_NOISE
from safelight.errors import SafelightError
from safelight.models.adversary_heads import AdversaryHeads, HeadConfig
from safelight.train import losses
from safelight.train.adversarial_views import View, Viewer
from safelight.train.discriminator import frozen_call
from safelight.train.latent_task import Conditioner
from safelight.train.score_distillation import WEIGHTINGS, Weighting, score_distillation
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch, Conditioning

Latents = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class AdversarialConfig:
    """What a student is asked for.

    `chances` says how often it is asked at each of its steps, the first, from noise alone, first;
    there are as many steps as chances (LADD, section 3.3). `distillation` weighs the teacher's
    opinion, at a `guidance` of its own, against the adversary's (lambda of ADD, eq. 1), and 0
    leaves it out; `weighting` is its c(t). `r1` weighs the penalty on the heads' gradients (gamma
    of ADD, eq. 3). The logit of the noise at which a latent adversary looks has `mean` and `std`.
    """

    chances: tuple[float, ...] = (0.7, 0.1, 0.1, 0.1)
    distillation: float = 2.5
    weighting: Weighting = "exponential"
    guidance: float = 7.5
    r1: float = 1e-5
    mean: float = 1.0
    std: float = 1.0
    blocks: Literal["all", "down"] = "all"
    heads: HeadConfig = field(default_factory=HeadConfig)
    lr_scale: float = 1.0  # of the heads

    def __post_init__(self):
        if not self.chances or min(self.chances) < 0 or not 0 < sum(self.chances) < math.inf:
            raise SafelightError(
                "chances should be one number of 0 or more for each step, not all 0; got "
                f"{list(self.chances)}."
            )
        if self.chances[0] == 0:
            raise SafelightError(
                "The first of chances should be above 0, or the student never learns to begin "
                f"from noise; got {list(self.chances)}."
            )
        for name in ("distillation", "r1", "lr_scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SafelightError(f"{name} should be at least 0, got {getattr(self, name)}.")
        if not 0 < self.std < math.inf:
            raise SafelightError(f"std should be above 0, got {self.std}.")


@dataclass(frozen=True)
class Teacher:
    """Who judges a student's work: a frozen denoiser, and the noise levels that it is asked at."""

    denoiser: Denoiser
    sigmas: SigmaLaw


Real = Callable[[Latents, Conditioning, Draws], Latents]
"""Latents of a batch, and what they are conditioned on, to those that count as real."""


class AdversarialTask:
    """Trains `modules` (the student's network, or a part of it, among them) in the phase "main",
    and the discriminator's heads in the phase "adversary".

    `levels` (n,) are the noise levels of the student's steps, falling, one for each of
    `config.chances`. At the first the student begins from noise alone, as a sampler does; at the
    others it is given real latents with noise. `real` may put others in the place of a batch's
    latents, such as the teacher's samples (`adversarial_reals`).

    Raises `SafelightError` if levels and chances differ in number, and for a student that predicts
    the noise but begins where nothing else is.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        student: Denoiser,
        teacher: Teacher,
        condition: Conditioner,
        viewer: Viewer,
        levels: Float[Tensor, " n"],
        config: AdversarialConfig,
        real: Real | None = None,
    ):
        if len(levels) != len(config.chances):
            raise SafelightError(
                f"Expected a chance for each of {len(levels)} steps, got {len(config.chances)}."
            )
        if student.parameterization(levels[:1]).c_out.abs().item() > PURE_NOISE:
            raise SafelightError(
                "A student that predicts the noise learns nothing where x is noise alone, as this "
                'model\'s last time is; take a teacher with prediction_type = "v_prediction", or '
                "one without rescale_betas_zero_snr."
            )
        self._student, self._teacher, self._condition = student, teacher, condition
        self._viewer, self._levels, self._config, self._real = viewer, levels.float(), config, real
        self._heads = AdversaryHeads(viewer.widths, viewer.about_dim, config.heads)
        self._phases = {
            "main": Phase(modules),
            "adversary": Phase({"heads": self._heads}, averaged=False, lr_scale=config.lr_scale),
        }

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The student, and the heads."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The student's loss (ADD, eq. 1, 2 and 4), then the heads' (ADD, eq. 3).

        Differs from ADD in that heads and places are averaged, so that weights hold for any number
        of blocks, and in that the heads' loss is half of theirs, as hinge losses are elsewhere.
        """
        if batch.latents is None:
            raise ValueError("Adversarial distillation trains on latents; this batch holds none.")
        if draws.first == 0:  # a batch in parts is judged by the same heads throughout
            self._heads.iterate()
        x0 = batch.latents.contiguous(memory_format=torch.channels_last)
        cond = self._conditioned(batch.captions, x0.device)
        if self._real is not None:
            x0 = self._real(x0, cond, draws)
        x, sigma, begun = self._given(x0, draws)
        made = self._student(x, sigma, cond)
        view = self._viewer(x0, cond, begun, draws)
        maps = view.made(made)
        logits = [
            frozen_call(head, part, view.about)
            for head, part in zip(self._heads, maps, strict=True)
        ]
        fooled = _mean([losses.hinge_generator(part) for part in logits])
        parts: dict[str, Tensor] = {"fooled": fooled}
        total = fooled
        if self._config.distillation:
            parts["distillation"] = self._distillation(made, cond, draws)
            total = total + self._config.distillation * parts["distillation"]
        maps = [part.detach() for part in maps]
        yield Loss("main", total, {"loss": total, **parts})

        total, parts = self._judged(view, maps)
        yield Loss("adversary", total, parts)

    def _given(
        self, x0: Latents, draws: Draws
    ) -> tuple[Latents, Float[Tensor, " b"], Bool[Tensor, " b"]]:
        """What the student is run on: x, its noise level, and whether it is noise alone."""
        chances = self._config.chances
        ends = torch.tensor(list(accumulate(chances))[:-1]).to(x0.device) / sum(chances)
        place = (draws.uniform(_STEP)[:, None] >= ends).sum(1)
        sigma, begun = self._levels.to(x0.device)[place], place == 0
        noised = per_image(sigma, x0) * draws.normal(x0.shape, _NOISE)
        return torch.where(begun[:, None, None, None], noised, x0 + noised), sigma, begun

    def _distillation(self, made: Latents, cond: Conditioning, draws: Draws) -> Tensor:
        """What the guided teacher finds wrong with the student's x0."""
        teacher, config = self._teacher, self._config
        sigma = draws.rows(teacher.sigmas(draws.total, draws.generator(_TEACHER_SIGMA)))
        noise = draws.normal(made.shape, _TEACHER_NOISE)
        null = self._conditioned(("",) * len(made), made.device)
        guided = cfg(teacher.denoiser, cond, null, config.guidance)
        weight = WEIGHTINGS[config.weighting]
        return score_distillation(made, guided, sigma, noise, weight).mean()

    def _judged(self, view: View, made: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The heads' loss, and its parts; `made` are detached."""
        real = [part.detach().requires_grad_() for part in view.real()]
        of_real, of_made = self._heads(real, view.about), self._heads(made, view.about)
        pairs = zip(of_real, of_made, strict=True)
        hinge = _mean([losses.hinge_discriminator(*pair) for pair in pairs])
        parts = {"adversary": hinge, "real": _mean([part.mean() for part in of_real])}
        total = hinge
        if self._config.r1:
            pairs = zip(of_real, real, strict=True)
            parts["r1"] = _mean([losses.r1(*pair) for pair in pairs])
            total = total + 0.5 * self._config.r1 * parts["r1"]
        return total, parts

    @torch.no_grad()
    def _conditioned(self, captions: tuple[str, ...], device: torch.device) -> Conditioning:
        dtype = self._student.dtype
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return self._condition(captions)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


_STEP, _NOISE, _TEACHER_SIGMA, _TEACHER_NOISE = 0, 1, 2, 3  # streams of random numbers
