"""What a student in training makes of a few prompts, below what its teacher makes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from safelight.app.preview_sampling import preview_latents
from safelight.app.recipe import PreviewConfig
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.data.latents import LatentCache
from safelight.diffusion.samplers import Sampler
from safelight.diffusion.solvers import sample_ddim
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.rng import SeededNoise
from safelight.train.distillation import Answer, Told
from safelight.train.loop import Preview


@dataclass(frozen=True)
class Shown:
    """Teacher and student, the teacher's noise levels, what both are told, the autoencoder, and
    the lowest and highest scale that the student is `taught`: it is asked for no other.
    """

    teacher: Answer
    student: Answer
    scheduler: SchedulerConfig
    told: Told
    autoencoder: AnyAutoencoder
    taught: tuple[float, float]


def distillation_preview(
    shown: Shown, config: PreviewConfig, cache: LatentCache, folder_at: Callable[[int], Folder]
) -> Callable[[int], Preview]:
    """Pictures of the teacher in `preview.steps` steps by DDIM, guided, above those of the student
    in its own; `folder_at` is the student's model after so many steps of training.

    Of the recipe's prompts, or of captions of the data. Raises `SafelightError` if the network
    knows fewer times than there are steps.
    """
    items = cache.pictures.items
    captions = [item.captions[0] for item in items[:: max(1, len(items) // config.columns)]]
    prompts = list(config.prompts or captions[: config.columns])
    group = max(cache.groups, key=lambda group: len(group.items))
    width, height = (side // shown.autoencoder.factor for side in group.bucket)
    shape = (len(prompts), latent_channels(shown.autoencoder), height, width)
    noise = SeededNoise([config.seed + i for i in range(len(prompts))])
    shown.scheduler.sigmas(config.steps)  # raises now for too many

    def sample(
        answer: Answer, scale: float, scheduler: SchedulerConfig, steps: int, solve: Sampler
    ) -> Tensor:
        device = next(shown.autoencoder.parameters()).device
        asked = shown.told.asked(prompts, torch.full((len(prompts),), scale, device=device))
        z = preview_latents(
            lambda x, sigma: answer(x, sigma, asked), scheduler, steps, noise, shape, device, solve
        )
        return shown.autoencoder.decode(shown.autoencoder.unscale(z)).float().cpu()

    def preview(step: int) -> Preview:
        student = folder_at(step)
        steps = student.defaults.steps or config.steps
        low, high = shown.taught
        rows = [
            sample(shown.teacher, config.scale, shown.scheduler, config.steps, sample_ddim),
            sample(
                shown.student,
                min(max(config.scale, low), high),
                student.scheduler,
                steps,
                student.scheduler.solver(steps),
            ),
        ]
        return Preview(rearrange(torch.stack(rows), "row b c h w -> c (row h) (b w)"))

    return preview
