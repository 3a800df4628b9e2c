"""Inpainting by a model that was not trained for it: what stays is put back at each step."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.types import Denoise


@dataclass(frozen=True)
class Kept:
    """What stays of a picture.

    Attributes:
        x0: its latents.
        mask: 1 where they are made anew, 0 where they stay.
        noise: what they are noised with at every level.
    """

    x0: Float[Tensor, "b c h w"]
    mask: Float[Tensor, "b 1 h w"]
    noise: Float[Tensor, "b c h w"]

    def beside(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Finished latents with what stays in its place, where a sampler's last step extrapolates
        past it.
        """
        return torch.lerp(self.x0, x, self.mask)


def kept_frames(
    clips: Float[Tensor, "b f c h w"], known: Bool[Tensor, "b f"], noise: Float[Tensor, "n c h w"]
) -> Kept:
    """What stays of clips whose frames are rows: those that are known, whole."""
    anew = (~known.flatten()).to(noise)[:, None, None, None]
    return Kept(clips.flatten(0, 1).to(noise), anew.expand(-1, 1, *noise.shape[2:]), noise)


def keeping(denoise: Denoise, kept: Kept) -> Denoise:
    """A denoiser that sees `kept` at its own noise level around what is made anew, and gives it
    back untouched (Lugmayr et al. 2022, arXiv 2201.09865, eq. 8; without their resampling).

    diffusers does the same to x after each step, and so not before the first: there, at strength 1,
    the network sees pure noise once where ours sees the noised picture, as ComfyUI's does.
    """
    x0, mask, noise = kept.x0, kept.mask, kept.noise

    def masked(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        around = x0 + per_image(sigma, x) * noise
        return torch.lerp(x0, denoise(torch.lerp(around, x, mask), sigma), mask)

    return masked
