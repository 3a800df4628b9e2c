"""The latents of a clip: a model of short clips, guided, through a sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.frame_windows import by_clip, over_windows
from safelight.diffusion.guidance import by_step, cfg
from safelight.diffusion.inpainting import keeping
from safelight.models.motion import MotionUNet
from safelight.models.video import VideoUNet
from safelight.pipelines.clip_conditions import Sides, Told
from safelight.pipelines.clip_request import ClipSettings
from safelight.rng import chained_clip
from safelight.types import ConditionalDenoise, Denoise, Noise

_FEW = 2  # frames at a time in the layers of pictures, where memory is low


@dataclass(frozen=True)
class Steps:
    """What is told in each step, how, and in which precision the network works; and what is told of
    the frames that are known, where these `stay` as they are.
    """

    sides: Sequence[Sides]
    settings: ClipSettings
    dtype: torch.dtype
    stay: Told | None = None


def sampled_clip(
    folder: Folder, steps: Steps, noise: Noise, device: str, report: Callable[[int], None]
) -> Float[Tensor, "f c h w"]:
    """Scaled latents of the frames of one clip, of which those that are known stay as they are;
    `report` is told, after each step, how many frames times steps are done.
    """
    settings = steps.settings
    scheduler = folder.scheduler.with_sampler(settings.sampler)
    sigmas = scheduler.sigmas(settings.steps)
    network = folder.unet
    assert isinstance(network, (VideoUNet, MotionUNet))  # which `clip_kind` sees to
    network.chunk = _FEW if settings.low_memory else None
    half = None if steps.dtype == torch.float32 else steps.dtype
    denoise: ConditionalDenoise = Denoiser(
        network, scheduler.parameterization(), scheduler.schedule(), half
    )
    if settings.low_memory:
        denoise = by_clip(denoise)
    if settings.frames > settings.window or settings.loop:
        denoise = over_windows(denoise, settings.window, settings.overlap, loop=settings.loop)
    factor, channels = folder.autoencoder.factor, folder.unet.config.out_channels
    shape = (settings.frames, channels, settings.height // factor, settings.width // factor)
    if isinstance(network, VideoUNet) and network.temporal.chains:
        moves = torch.tensor([settings.motion])
        noise = chained_clip(noise, network.temporal.correlation(moves))
    drawn = noise(shape, 0)
    kept = None if steps.stay is None else steps.stay.kept(drawn)
    guided = _guided(denoise, steps, sigmas, device)
    if kept is not None:
        guided = keeping(guided, kept)

    def on_step(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        report(settings.frames * (step + 1))

    solve = scheduler.solver(settings.steps)
    x = drawn * scheduler.initial_scale(sigmas)
    x = solve(guided, x, sigmas, noise=noise, on_step=on_step) * scheduler.final_scale(sigmas)
    return x if kept is None else kept.beside(x)


def _guided(
    denoise: ConditionalDenoise, steps: Steps, sigmas: Float[Tensor, " n"], device: str
) -> Denoise:
    """Classifier-free guidance by a scale for each frame (arXiv 2311.15127, section 4.3)."""
    settings = steps.settings
    ends = settings.first_scale, settings.scale
    scale: float | Tensor = torch.linspace(*ends, settings.frames, device=device)
    if max(ends) <= 1:
        scale = 1.0
    different = {id(sides): cfg(denoise, *sides, scale) for sides in steps.sides}
    if len(different) == 1:
        return next(iter(different.values()))
    return by_step([different[id(sides)] for sides in steps.sides], sigmas)
