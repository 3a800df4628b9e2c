"""Guidance by the part of a difference that stands at right angles to another prediction."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.guidance import Latents, Levels, Scale, Sides, Steer, strength_of
from safelight.types import ConditionalDenoise, Conditioning

_TINY = 1e-12  # a squared length below which a direction is none


@dataclass
class Momentum:
    """What projected guidance remembers of a run: the last average of its differences."""

    average: Tensor | None = None


def projected(
    sides: Sides,
    scale: Scale,
    *,
    eta: float = 1.0,
    norm_threshold: float = 0.0,
    momentum: float = 0.0,
    memory: Momentum | None = None,
) -> Steer:
    """Adaptive projected guidance (Sadat et al. 2024, arXiv 2410.02416): `cond +
    (scale - 1) * (orthogonal + eta * parallel)`, where the two add up to `cond - uncond` and the
    second points along `cond`.

    The difference is first averaged with those of earlier calls, `momentum` (negative in the paper)
    times the last average being added to it, and then shortened to a length of `norm_threshold` at
    most; 0 leaves its length as it is. Eta 1 without the two is classifier-free guidance. Its
    calls are remembered in `memory`, its own by default: take a new one for each run of a sampler.
    """
    kept = memory or Momentum()

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        steered, without = sides(x, sigma)
        difference = steered - without
        if momentum:
            if kept.average is not None:
                difference = difference + momentum * kept.average
            kept.average = difference
        if norm_threshold:
            length = difference.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
            difference = difference * (norm_threshold / length).clamp(max=1)
        parallel = _along(difference, steered)
        update = difference - parallel + eta * parallel
        return steered + (strength_of(scale, x, sigma) - 1) * update, steered

    return steer


def perpendicular(
    denoise: ConditionalDenoise,
    cond: Conditioning,
    negative: Conditioning,
    null: Conditioning,
    scale: Scale,
    weight: float,
) -> Steer:
    """Guidance away from the part of a negative prompt that does not contradict the prompt
    (Armandpour et al. 2023, arXiv 2304.04968): `null + scale * (wanted - weight *
    unwanted)`, where `wanted` is `cond - null` and `unwanted` the part of `negative - null` at
    right angles to it.

    All three go through the network in one batch.
    """
    all_three = Conditioning.cat([cond, negative, null])

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        steered, avoided, without = denoise(
            torch.cat([x] * 3), torch.cat([sigma] * 3), all_three
        ).chunk(3)
        wanted, unwanted = steered - without, avoided - without
        unwanted = unwanted - _along(unwanted, wanted)
        towards = wanted - weight * unwanted
        return without + strength_of(scale, x, sigma) * towards, steered

    return steer


def _along(vector: Latents, direction: Latents) -> Float[Tensor, "b c h w"]:
    """The part of a vector that points along a direction, row by row."""
    dims = (1, 2, 3)
    product = (vector * direction).sum(dim=dims, keepdim=True)
    return product / direction.square().sum(dim=dims, keepdim=True).clamp(min=_TINY) * direction
