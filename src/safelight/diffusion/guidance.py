"""Guidance: a combinator from a conditional denoiser to the callable that a sampler sees."""

from collections.abc import Sequence

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


def cfg_image(
    denoise: ConditionalDenoise,
    cond: Conditioning,
    image_only: Conditioning,
    uncond: Conditioning,
    scale: float,
    image_scale: float,
) -> Denoise:
    """Guidance towards a prompt and a picture, each by its own scale (Brooks et al. 2023, arXiv
    2211.09800, eq. 3): `uncond + image_scale * (image_only - uncond) + scale * (cond -
    image_only)`.

    `image_only` has the picture and not the prompt, `uncond` neither. All three go through the
    network in one batch.
    """
    all_three = Conditioning.cat([cond, image_only, uncond])

    def guided(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        steered, kept, without = denoise(
            torch.cat([x] * 3), torch.cat([sigma] * 3), all_three
        ).chunk(3)
        return without + image_scale * (kept - without) + scale * (steered - kept)

    return guided


def cfg_composed(
    denoise: ConditionalDenoise,
    conds: Sequence[Conditioning],
    weights: Float[Tensor, "k b"],
    uncond: Conditioning,
    scale: float,
) -> Denoise:
    """Guidance towards several prompts at once, each by a weight of its own for each row: `uncond +
    sum_k weights[k] * scale * (cond_k - uncond)` (Liu et al. 2022, arXiv 2206.01714, eq. 11).

    All go through the network in one batch.
    """
    count = len(conds)
    together = Conditioning.cat([uncond, *conds])

    def guided(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        without, *steered = denoise(
            torch.cat([x] * (count + 1)), torch.cat([sigma] * (count + 1)), together
        ).chunk(count + 1)
        directions = (
            per_image(scale * weight.to(x.device), x) * (one - without)
            for weight, one in zip(weights, steered, strict=True)
        )
        return sum(directions, without)

    return guided


def by_step(denoises: Sequence[Denoise], sigmas: Float[Tensor, " n"]) -> Denoise:
    """Another denoiser in each step: `denoises[i]` from `sigmas[i]` down to above `sigmas[i + 1]`.

    A pure function of sigma; so a sampler that looks ahead to where its step goes, as Heun's, sees
    the next step's denoiser there.
    """
    starts = [sigma.item() * (1 + _ROUNDING) for sigma in sigmas[:-1]]

    def stepped(
        x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        begun = sum(sigma[0].item() <= start for start in starts)
        return denoises[max(begun, 1) - 1](x, sigma)

    return stepped


_ROUNDING = 1e-6  # of a level in float32
