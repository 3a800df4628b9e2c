"""Guidance: a combinator from a conditional denoiser to the callable that a sampler sees."""

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.types import ConditionalDenoise, Conditioning, Denoise


def cfg(
    denoise: ConditionalDenoise,
    cond: Conditioning,
    uncond: Conditioning,
    scale: float | Float[Tensor, " b"],
) -> Denoise:
    """Classifier-free guidance, `uncond + scale * (cond - uncond)` (Ho and Salimans 2022, eq. 6).

    `scale` is one number, or one per row of the batch (b,). Both sides go through the network in
    one doubled batch, so their conditionings must carry the same parts, equally long. Scale 1 calls
    it with `cond` alone, scale 0 with `uncond` alone.
    """
    if isinstance(scale, (int, float)) and scale in (0, 1):
        only = cond if scale == 1 else uncond
        return lambda x, sigma: denoise(x, sigma, only)

    both = Conditioning.cat([uncond, cond])

    def guided(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        without, steered = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        strength = per_image(scale.to(x.device), x) if isinstance(scale, Tensor) else scale
        return without + strength * (steered - without)

    return guided
