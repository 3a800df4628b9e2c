"""The training of latent diffusion: a U-Net, and its text tower if it learns along.

Source: Rombach et al. 2022 (arXiv 2112.10752), eq. 3; Ho and Salimans 2022 (arXiv 2207.12598),
algorithm 1, for the dropped captions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.objective import SigmaLaw, Weight, diffusion_loss
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch, Conditioning

Conditioner = Callable[[Sequence[str]], Conditioning]
"""Captions to what steers the network; the empty caption is the null of guidance."""


@dataclass(frozen=True)
class LatentObjective:
    """What is asked of the denoiser: at which noise levels, how weighted, and how often without its
    caption, which is what makes guidance possible.
    """

    sigmas: SigmaLaw
    weight: Weight
    caption_dropout: float = 0.1


class LatentTask:
    """Trains `modules` (the denoiser's network among them) to denoise latents."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        denoiser: Denoiser,
        condition: Conditioner,
        objective: LatentObjective,
    ):
        self._denoiser, self._condition, self._objective = denoiser, condition, objective
        self._phases = {"main": Phase(modules)}

    @property
    def phases(self) -> Mapping[str, Phase]:
        """All modules, under one optimiser."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The diffusion loss of a batch of latents."""
        if batch.latents is None:
            raise ValueError("Latent diffusion trains on latents; this batch holds none.")
        x0 = batch.latents.contiguous(memory_format=torch.channels_last)
        objective = self._objective
        sigma = draws.rows(objective.sigmas(draws.total, draws.generator(_SIGMA)))
        noise = draws.normal(x0.shape, _NOISE)
        dropped = (draws.uniform(_DROP) < objective.caption_dropout).tolist()
        captions = [
            "" if drop else caption for drop, caption in zip(dropped, batch.captions, strict=True)
        ]
        with torch.autocast(
            x0.device.type, self._denoiser.dtype, enabled=self._denoiser.dtype is not None
        ):
            cond = self._condition(captions)
        loss = diffusion_loss(self._denoiser, x0, cond, sigma, noise, objective.weight).mean()
        yield Loss("main", loss, {"loss": loss})


_SIGMA, _NOISE, _DROP = 0, 1, 2  # streams of random numbers
