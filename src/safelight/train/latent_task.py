"""The training of latent diffusion: a U-Net, and its text tower if it learns along.

Source: Rombach et al. 2022 (arXiv 2112.10752), eq. 3; Ho and Salimans 2022 (arXiv 2207.12598),
algorithm 1, for the dropped captions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from safelight.diffusion import objective
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import DiscreteSchedule, FlowSchedule
from safelight.diffusion.objective import SigmaLaw, Weight, diffusion_loss
from safelight.diffusion.parameterization import Edm
from safelight.errors import SafelightError
from safelight.train.beside import Dropped, put_beside
from safelight.train.fresh import Fresh
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch, Conditioning

Conditioner = Callable[[Sequence[str]], Conditioning]
"""Captions to what steers the network; the empty caption is the null of guidance."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """At which noise levels a denoiser is trained, how they weigh, and how often without a caption.

    `sigmas` "uniform" takes every time of the schedule equally often; "log_normal" and
    "logit_normal" draw ln(sigma) from a normal distribution of `mean` and `std`. A flow's shift
    moves the times of "uniform" and "logit_normal". Weights are those of `diffusion.objective`;
    `sigma_data` is of "edm", by default that of an EDM network, else 1, to which latents are
    scaled. `caption_dropout` is what makes guidance possible.
    """

    sigmas: Literal["uniform", "log_normal", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: float = 1.0
    weight: Literal["uniform", "min_snr", "snr", "edm"] = "uniform"
    gamma: float = 5.0  # of min_snr
    sigma_data: float | None = None
    caption_dropout: float = 0.1

    def __post_init__(self):
        if not 0 <= self.caption_dropout <= 1:
            raise SafelightError(
                f"caption_dropout should be between 0 and 1, got {self.caption_dropout}."
            )
        for name in ("std", "gamma", "sigma_data"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SafelightError(f"objective.{name} should be above 0, got {value}.")


@dataclass(frozen=True)
class LatentObjective:
    """What is asked of the denoiser: at which noise levels, how weighted, and how often without its
    caption.
    """

    sigmas: SigmaLaw
    weight: Weight
    caption_dropout: float = 0.1


def latent_objective(config: ObjectiveConfig, denoiser: Denoiser) -> LatentObjective:
    """The objective of a configuration, for a denoiser's schedule and parameterization."""
    schedule, parameterization = denoiser.schedule, denoiser.parameterization
    shift = schedule.shift if isinstance(schedule, FlowSchedule) else 1.0
    if config.sigmas == "log_normal":
        sigmas = objective.log_normal(config.mean, config.std)
    elif config.sigmas == "logit_normal":
        sigmas = objective.logit_normal(config.mean, config.std, shift)
    elif isinstance(schedule, DiscreteSchedule):
        sigmas = objective.uniform_t(schedule)
    else:
        sigmas = objective.uniform_time(schedule, shift)
    own = parameterization.sigma_data if isinstance(parameterization, Edm) else 1.0
    sigma_data = own if config.sigma_data is None else config.sigma_data
    weights: dict[str, Weight] = {
        "uniform": objective.uniform,
        "min_snr": objective.min_snr(config.gamma, parameterization),
        "snr": objective.snr(parameterization),
        "edm": objective.edm(sigma_data, parameterization),
    }
    return LatentObjective(sigmas, weights[config.weight], config.caption_dropout)


class LatentTask:
    """Trains `modules` (the denoiser's network, or a part of it, among them) to denoise latents.

    `beside` are the conditions beside the caption, in the order in which they are put in; `fresh`
    is what of the weights is new.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        denoiser: Denoiser,
        condition: Conditioner,
        objective: LatentObjective,
        beside: Mapping[str, Dropped] | None = None,
        fresh: Sequence[Fresh] = (),
    ):
        self._denoiser, self._condition, self._objective = denoiser, condition, objective
        self._beside = beside or {}
        self._phases = {"main": Phase(modules, fresh=fresh)}

    @property
    def phases(self) -> Mapping[str, Phase]:
        """All modules, under one optimiser."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The diffusion loss of a batch of latents."""
        if batch.latents is None:
            raise ValueError("Latent diffusion trains on latents; this batch holds none.")
        x0 = batch.latents.contiguous(memory_format=torch.channels_last)
        wanted = self._objective
        sigma = draws.rows(wanted.sigmas(draws.total, draws.generator(_SIGMA)))
        noise = draws.normal(x0.shape, _NOISE)
        chances = cast(list[float], draws.uniform(_DROP).tolist())
        captions = [
            "" if chance < wanted.caption_dropout else caption
            for chance, caption in zip(chances, batch.captions, strict=True)
        ]
        with torch.autocast(
            x0.device.type, self._denoiser.dtype, enabled=self._denoiser.dtype is not None
        ):
            cond = put_beside(self._condition(captions), batch, self._beside, draws)
        loss = diffusion_loss(self._denoiser, x0, cond, sigma, noise, wanted.weight).mean()
        yield Loss("main", loss, {"loss": loss})


_SIGMA, _NOISE, _DROP = 0, 1, 2  # streams of random numbers
