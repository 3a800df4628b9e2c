"""Guidance: combinators from a conditional denoiser to the callable that a sampler sees.

`cfg` and `cfg_image` are whole. What they are made of goes together in other ways: `both` asks a
denoiser for its two sides, a `Steer` leads from them to the guided x0, further guidance is put upon
it (`away_from`, `rescaled`, `where`), and `guided` gives what a sampler takes.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.parameterization import Parameterization
from safelight.types import ConditionalDenoise, Conditioning, Denoise

Latents = Float[Tensor, "b c h w"]
Levels = Float[Tensor, " b"]

Sides: TypeAlias = Callable[[Latents, Levels], tuple[Latents, Latents]]
"""x at noise level sigma to two x0: under the prompt, and under what guidance leads away from."""
Steer: TypeAlias = Callable[[Latents, Levels], tuple[Latents, Latents]]
"""x at noise level sigma to two x0: the guided one, and that under the prompt alone."""
ScaleOf: TypeAlias = Callable[[Levels], Levels]
_ROUNDING = 1e-5  # of a level in float32
Scale: TypeAlias = float | Levels | ScaleOf
"""How strong guidance is: one number, one for each row of the batch (b,), or sigma to that."""


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
        return guided(alone(denoise, cond if scale == 1 else uncond))
    return guided(linear(both(denoise, cond, uncond), scale))


def cfg_image(
    denoise: ConditionalDenoise,
    cond: Conditioning,
    image_only: Conditioning,
    uncond: Conditioning,
    scale: float,
    image_scale: float,
) -> Denoise:
    """Guidance towards a prompt and a picture, each by its own scale; see `chained`.

    `image_only` has the picture and not the prompt, `uncond` neither.
    """
    return guided(chained(denoise, [uncond, image_only, cond], [image_scale, scale]))


def guided(steer: Steer) -> Denoise:
    """What a sampler takes."""
    return lambda x, sigma: steer(x, sigma)[0]


def alone(denoise: ConditionalDenoise, cond: Conditioning) -> Steer:
    """No guidance: the prompt alone."""

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        steered = denoise(x, sigma, cond)
        return steered, steered

    return steer


def both(denoise: ConditionalDenoise, cond: Conditioning, uncond: Conditioning) -> Sides:
    """The two sides of classifier-free guidance, in one doubled batch."""
    two = Conditioning.cat([uncond, cond])

    def sides(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        without, steered = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), two).chunk(2)
        return steered, without

    return sides


def composed(
    denoise: ConditionalDenoise,
    conds: Sequence[Conditioning],
    weights: Float[Tensor, "k b"],
    uncond: Conditioning,
) -> Sides:
    """The two sides of guidance towards several prompts at once, each by a weight of its own for
    each row, so that guidance by a scale is `uncond + sum_k weights[k] * scale * (cond_k - uncond)`
    (Liu et al. 2022, arXiv 2206.01714, eq. 11).

    All go through the network in one batch.
    """
    count = len(conds)
    together = Conditioning.cat([uncond, *conds])

    def sides(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        without, *each = denoise(
            torch.cat([x] * (count + 1)), torch.cat([sigma] * (count + 1)), together
        ).chunk(count + 1)
        directions = (
            per_image(weight.to(x.device), x) * (one - without)
            for weight, one in zip(weights, each, strict=True)
        )
        return sum(directions, without), without

    return sides


def by_step(denoises: Sequence[Denoise], sigmas: Float[Tensor, " n"]) -> Denoise:
    """Another denoiser in each step: `denoises[i]` from `sigmas[i]` down to above `sigmas[i + 1]`.

    A pure function of sigma; so a sampler that looks ahead to where its step goes, as Heun's, sees
    the next step's denoiser there.
    """

    def stepped(x: Latents, sigma: Levels) -> Latents:
        return denoises[int(_step_at(sigmas, sigma)[0])](x, sigma)

    return stepped


def linear(sides: Sides, scale: Scale) -> Steer:
    """Classifier-free guidance; see `cfg`."""

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        steered, without = sides(x, sigma)
        return without + strength_of(scale, x, sigma) * (steered - without), steered

    return steer


def chained(
    denoise: ConditionalDenoise, links: Sequence[Conditioning], scales: Sequence[Scale]
) -> Steer:
    """Guidance towards several things, each by its own scale: from the first of `links`, which has
    none of them, to the last, which has all, each is told one thing more than the one before, and
    `scale * (with it - without it)` is added (Brooks et al. 2023, arXiv 2211.09800, eq. 3, where
    they are a picture and a prompt).

    `scales` are one fewer than `links`. All go through the network in one batch.
    """
    every = Conditioning.cat(links)

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        count = len(links)
        outputs = denoise(torch.cat([x] * count), torch.cat([sigma] * count), every).chunk(count)
        led = outputs[0]
        for before, after, scale in zip(outputs[:-1], outputs[1:], scales, strict=True):
            led = led + strength_of(scale, x, sigma) * (after - before)
        return led, outputs[-1]

    return steer


def away_from(steer: Steer, worse: Denoise, weight: float) -> Steer:
    """Guidance away from a worse prediction under the same prompt: `weight * (steered - worse)` is
    added.

    With a smaller or less trained model and a weight of `w - 1` that is autoguidance (Karras et al.
    2024, arXiv 2406.02507); with the model's own attention perturbed, perturbed-attention guidance
    (Ahn et al. 2024, arXiv 2403.17377). Upon classifier-free guidance the terms
    add up.
    """

    def further(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        so_far, steered = steer(x, sigma)
        return so_far + weight * (steered - worse(x, sigma)), steered

    return further


def rescaled(steer: Steer, parameterization: Parameterization, factor: float) -> Steer:
    """Guidance whose network output keeps the deviation that it has under the prompt alone, by the
    part `factor`, 0 to 1 (Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16).

    What they rescale is the network's output `(x0 - c_skip * x) / c_out`, so here it is
    `x0 - c_skip * x`; c_out falls out of the ratio of the two deviations.
    """

    def again(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        so_far, steered = steer(x, sigma)
        skipped = per_image(parameterization(sigma).c_skip, x) * x
        output = so_far - skipped
        ratio = _deviation(steered - skipped) / _deviation(output)
        return skipped + (factor * ratio + (1 - factor)) * output, steered

    return again


def where(inside: Callable[[Levels], Bool[Tensor, " b"]], steer: Steer, otherwise: Steer) -> Steer:
    """`steer` at the noise levels that are `inside`, `otherwise` at the others; neither is asked in
    vain.
    """

    def chosen(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        rows = inside(sigma)
        if rows.all():
            return steer(x, sigma)
        if not rows.any():
            return otherwise(x, sigma)
        pairs = zip(steer(x, sigma), otherwise(x, sigma), strict=True)
        first, second = (torch.where(rows[:, None, None, None], a, b) for a, b in pairs)
        return first, second

    return chosen


def between(low: float, high: float) -> Callable[[Levels], Bool[Tensor, " b"]]:
    """Whether a noise level lies in an interval, its ends included: where guidance works, for
    `where` (Kynkäänniemi et al. 2024, arXiv 2404.07724).
    """
    return lambda sigma: (low <= sigma) & (sigma <= high)


def over_steps(sigmas: Float[Tensor, " n"], scales: Sequence[float]) -> ScaleOf:
    """A scale for each step as a function of the noise level, which is all that guidance sees.

    `sigmas` (n + 1,) fall, `scales` are n. At the level that a step starts from, and between that
    and the next, where samplers of higher order look too, it is that step's.
    """
    values = torch.tensor(scales)
    return lambda sigma: values.to(sigma)[_step_at(sigmas, sigma)]


def _step_at(sigmas: Float[Tensor, " n"], sigma: Levels) -> Int64[Tensor, " b"]:
    """The step in which a sampler asks at each noise level: the last to start from it or above."""
    starts = sigmas[:-1].to(sigma)
    return ((starts >= sigma[:, None] * (1 - _ROUNDING)).sum(1) - 1).clamp(min=0)


def strength_of(scale: Scale, x: Latents, sigma: Levels) -> float | Float[Tensor, "b 1 1 1"]:
    """A scale as a factor of x."""
    if isinstance(scale, (int, float)):
        return scale
    return per_image((scale if isinstance(scale, Tensor) else scale(sigma)).to(x.device), x)


def _deviation(x: Latents) -> Float[Tensor, "b 1 1 1"]:
    return x.std(dim=(1, 2, 3), keepdim=True)
