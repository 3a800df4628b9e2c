"""What a video model in training makes of a few clips, shown below them, frame by frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from safelight.app.preview_sampling import preview_latents
from safelight.app.recipe_parts import PreviewConfig
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.clips import without_numbers
from safelight.data.clip_latents import ClipCache
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.diffusion.inpainting import keeping, kept_frames
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.video import Number, any_known
from safelight.rng import SeededNoise, chained
from safelight.train.latent_task import Conditioner
from safelight.train.loop import Preview
from safelight.train.video_task import Told


@dataclass(frozen=True)
class Filmed:
    """A video model: its denoiser, noise levels, what it is told of captions and clips, and the
    autoencoder of its frames.
    """

    denoiser: Denoiser
    scheduler: SchedulerConfig
    condition: Conditioner
    told: Told
    autoencoder: AnyAutoencoder


def video_preview(
    model: Filmed, config: PreviewConfig, cache: ClipCache
) -> Callable[[int], Preview]:
    """A sheet of a row of frames for each clip: the real ones, through the autoencoder; what is
    made of their caption, numbers and first frame; and, where the model is not always given one,
    of the caption and numbers alone. Guided by caption and frame, by DDIM.

    The clips are evenly chosen among those of the commonest shape.

    Raises `SafelightError` if the network knows fewer times than there are steps.
    """
    group = max(cache.groups, key=lambda group: len(group.items))
    items = list(dict.fromkeys(group.items))
    chosen = items[:: max(1, len(items) // config.columns)][: config.columns]
    windows = [
        cache.window(item, cache.encoded(item, group.bucket, False, 0), 0, stride)
        for item in chosen
        for stride in cache.strides(cache.clips.items[item])[:1]
    ]
    captions = [cache.clips.items[item].captions[0] for item in chosen]
    real = (torch.stack([w.mean for w in windows]) - model.told.shift) * model.told.scale
    numbers: dict[Number, Tensor] = {
        "fps": torch.tensor([float(w.fps) for w in windows]),
        "motion": torch.tensor([float(w.motion) for w in windows]),
    }
    correlation = model.told.temporal.correlation(numbers["motion"])
    noise = SeededNoise([config.seed + i for i in range(real.shape[0] * real.shape[1])])
    model.scheduler.sigmas(config.steps)  # raises now for too many
    given_as = model.told.temporal.given
    kinds = {"none": (False,), "repeated": (True,)}
    shown = kinds.get(given_as, (True, False))

    def drawn(shape: Sequence[int], index: int) -> Tensor:
        clips = rearrange(noise(shape, index), "(b f) c h w -> b f c h w", f=real.shape[1])
        return chained(clips, correlation).flatten(0, 1)

    def sample(given: bool, device: torch.device) -> Tensor:
        clips = real.to(device)
        known = torch.zeros(clips.shape[:2], dtype=torch.bool, device=device)
        known[:, 0] = given
        here: dict[Number, Tensor] = {name: rows.to(device) for name, rows in numbers.items()}
        sides = ((captions, known), ([""] * len(captions), torch.zeros_like(known)))
        cond, uncond = (
            model.told.of_clips(model.condition(prompts), clips, there, here)
            for prompts, there in sides
        )
        if model.told.temporal.null_numbers:
            uncond = without_numbers(uncond)
        denoise = cfg(model.denoiser, cond, uncond, config.scale)
        shape = (clips.shape[0] * clips.shape[1], *clips.shape[2:])
        if given and any_known(given_as):
            denoise = keeping(denoise, kept_frames(clips, known, drawn(shape, 0).to(device)))
        return preview_latents(denoise, model.scheduler, config.steps, drawn, shape, device)

    def pictures(z: Tensor) -> Tensor:
        frames = [
            model.autoencoder.decode(model.autoencoder.unscale(z[first : first + _AT_ONCE]))
            for first in range(0, len(z), _AT_ONCE)
        ]
        pixels = torch.cat(frames).float().cpu()
        return rearrange(pixels, "(b f) c h w -> b f c h w", b=len(chosen))

    def preview(step: int) -> Preview:
        device = next(model.autoencoder.parameters()).device
        rows = [pictures(real.flatten(0, 1).to(device))]
        rows += [pictures(sample(given, device)) for given in shown]
        sheet = torch.stack(rows, 1)  # (b, kinds, f, 3, h, w)
        return Preview(rearrange(sheet, "b k f c h w -> c (b k h) (f w)"))

    return preview


_AT_ONCE = 16  # frames that are decoded together
