"""What distillations share: how a recipe asks for one, what a batch is asked, and who answers.

A teacher is guided by two calls; a student answers in one, told the scale of guidance if it has an
embedding for that.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight.conditioners.numbers import with_guidance
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig
from safelight.train.latent_task import Conditioner
from safelight.train.task import Draws
from safelight.types import Batch, Conditioning

Latents = Float[Tensor, "b c h w"]
Levels = Float[Tensor, " b"]
Method: TypeAlias = Literal["lcm", "tcd", "guidance", "progressive", "adversarial"]


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is taught, and for how many `steps` of its sampler.

    Methods: "lcm" (Luo et al. 2023), "tcd" (Zheng et al. 2024), "guidance" (Meng et al. 2023, stage
    one), "progressive" (Salimans and Ho 2022) and "adversarial" (`train.adversarial_task`), whose
    student is never told a scale. Pictures are guided by scales drawn evenly from
    `scale`; the student is told them by an embedding of `guidance_dim` features, 0 for none: then
    it has the mean of these scales in its weights.

    `times` is how many of the network's times are taught by "lcm" and "tcd", whose teacher steps
    down from each to the next. Distances are `loss`, "huber" with its `huber_c`. Targets are by the
    student's average, which keeps `target_decay` a step; 0 is the student itself.
    "progressive" begins with a teacher of `teacher_steps` and halves them down to `steps`; in as
    many an adversary's teacher samples, if it does.
    """

    method: Method = "lcm"
    steps: int = 4
    scale: tuple[float, float] = (3.0, 15.0)
    guidance_dim: int = 256
    caption_dropout: float = 0.0
    times: int = 50
    loss: Literal["huber", "l2"] = "huber"
    huber_c: float = 0.001
    target_decay: float = 0.95
    teacher_steps: int = 32

    def __post_init__(self):
        for name, least in {"steps": 1, "guidance_dim": 0, "times": 1, "teacher_steps": 1}.items():
            if getattr(self, name) < least:
                raise SafelightError(
                    f"distillation.{name} should be at least {least}, got {getattr(self, name)}."
                )
        low, high = self.scale
        if not 1 <= low <= high < math.inf:
            raise SafelightError(
                "distillation.scale should be the lowest and the highest scale, such as [3, 15], "
                f"both at least 1; got {list(self.scale)}."
            )
        if not 0 < self.huber_c < math.inf:
            raise SafelightError(f"distillation.huber_c should be above 0, got {self.huber_c}.")
        if not 0 <= self.caption_dropout <= 1:
            raise SafelightError(
                f"distillation.caption_dropout should be in [0, 1], got {self.caption_dropout}."
            )
        if not 0 <= self.target_decay < 1:
            raise SafelightError(
                f"distillation.target_decay should be in [0, 1), got {self.target_decay}."
            )
        if self.method == "progressive" and self.rounds < 1:
            raise SafelightError(
                f"distillation.teacher_steps = {self.teacher_steps} should be "
                f"distillation.steps = {self.steps} doubled once or more, such as {8 * self.steps}."
            )

    @property
    def told_dim(self) -> int:
        """The width of what the student is told of the scale, 0 for nothing."""
        return 0 if self.method == "adversarial" else self.guidance_dim

    @property
    def rounds(self) -> int:
        """How often "progressive" halves the steps; 0 if they do not halve to `steps`."""
        rounds = round(math.log2(self.teacher_steps / self.steps))
        return rounds if self.steps * 2**rounds == self.teacher_steps else 0


@dataclass(frozen=True)
class Asked:
    """What the pictures of a batch are asked under: their captions, none, and guidance scales."""

    cond: Conditioning
    null: Conditioning
    scale: Levels


@dataclass(frozen=True)
class Told:
    """What steers the networks: a caption by `condition`, the empty one where it is dropped; and in
    one row the `null` that guidance steers away from, as it is when pictures are made.

    Text towers run under autocast to `dtype`, if any.
    """

    condition: Conditioner
    null: Conditioning
    dtype: torch.dtype | None = None

    @torch.no_grad()
    def asked(self, captions: Sequence[str], scale: Levels) -> Asked:
        """What pictures are asked under that have captions and scales."""
        with torch.autocast(scale.device.type, self.dtype, enabled=self.dtype is not None):
            cond = self.condition(captions)
        return Asked(cond, Conditioning.cat([self.null] * len(captions)), scale)


Answer: TypeAlias = Callable[[Latents, Levels, Asked], Latents]
"""x at noise level sigma to x0, as asked; guided."""


def asked_of(batch: Batch, draws: Draws, told: Told, config: DistillationConfig) -> Asked:
    """What a step asks of teacher and student; nothing here is trained."""
    chances = cast(list[float], draws.uniform(_DROP).tolist())
    captions = [
        "" if chance < config.caption_dropout else caption
        for chance, caption in zip(chances, batch.captions, strict=True)
    ]
    low, high = config.scale
    return told.asked(captions, low + (high - low) * draws.uniform(_SCALE))


def noise_of(draws: Draws, x0: Latents) -> Latents:
    """The noise of a step."""
    return draws.normal(x0.shape, _NOISE)


def latents_of(batch: Batch) -> Latents:
    """The latents of a batch, channels last; `ValueError` if it holds none."""
    if batch.latents is None:
        raise ValueError("Distillation trains on latents; this batch holds none.")
    return batch.latents.contiguous(memory_format=torch.channels_last)


def by_itself(denoiser: Denoiser, unet: UNetConfig) -> Answer:
    """The answer of a network in one call, told the scale if it has an embedding for that."""
    if unet.guidance_dim is None:
        return lambda x, sigma, asked: denoiser(x, sigma, asked.cond)
    return lambda x, sigma, asked: denoiser(x, sigma, with_guidance(asked.cond, asked.scale, unet))


def by_teacher(denoiser: Denoiser, unet: UNetConfig) -> Answer:
    """The answer of a frozen model, guided: both sides in one batch (Ho and Salimans 2022, eq. 6),
    or one call of a model that is told the scale.
    """
    alone = by_itself(denoiser, unet)

    @torch.no_grad()
    def answer(x: Latents, sigma: Levels, asked: Asked) -> Latents:
        if unet.guidance_dim is not None:
            return alone(x, sigma, asked)
        return cfg(denoiser, asked.cond, asked.null, asked.scale)(x, sigma)

    return answer


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, decay: float) -> None:
    """Moves the weights of one module towards those of another, of which `1 - decay` is taken."""
    _lerp(_floats(follower.state_dict().values()), _floats(leader.state_dict().values()), 1 - decay)


def _floats(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


_lerp = torch._foreach_lerp_  # pyright: ignore

_DROP, _SCALE, _NOISE = 0, 1, 2  # streams of random numbers; each objective's own are from 8 on
FIRST_STREAM = 8
