"""Guidance as settings ask for it, put together from the combinators of `safelight.diffusion`."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.guidance import (
    Latents,
    Levels,
    Scale,
    Sides,
    Steer,
    alone,
    away_from,
    between,
    both,
    chained,
    composed,
    guided,
    linear,
    over_steps,
    rescaled,
    where,
)
from safelight.diffusion.parameterization import Parameterization
from safelight.diffusion.projection import Momentum, perpendicular, projected
from safelight.pipelines.guidance_settings import GUIDE_SCALE, Projection
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Settings
from safelight.types import ConditionalDenoise, Conditioning, Denoise


@dataclass(frozen=True)
class Conditions:
    """What a picture is made under.

    Attributes:
        conds: the prompt, or those that AND joins.
        uncond: what guidance leads away from: the negative prompt, or nothing.
        weights: how strongly each of several prompts guides.
        null: nothing, where that is needed beside a negative prompt.
        links: between `uncond` and the one prompt, what is told one condition more each time, and
            the scale of the guidance by that.
    """

    conds: tuple[Conditioning, ...]
    uncond: Conditioning
    weights: Float[Tensor, "k b"] | None = None
    null: Conditioning | None = None
    links: tuple[tuple[Conditioning, float], ...] = ()


@dataclass(frozen=True)
class Denoisers:
    """A model; what its output means; the same with perturbed attention, if that guides it; and a
    weaker one of the same latents that guides it under the same prompt, if any.
    """

    own: ConditionalDenoise
    parameterization: Parameterization
    perturbed: ConditionalDenoise | None = None
    guide: Denoise | None = None


def guided_denoise(
    denoisers: Denoisers,
    conditions: Conditions,
    settings: Settings,
    kind: Kind,
    sigmas: Float[Tensor, " n"],
    memory: Momentum,
) -> Denoise:
    """The denoiser under the prompt, guided as the settings say; for one run of a sampler.

    `sigmas` are the noise levels of all steps; `memory` is what projected guidance remembers, one
    for a run even where its prompt changes.
    """
    own, guidance = denoisers.own, settings.guidance
    steer = _classifier_free(own, conditions, settings, kind, sigmas, memory)
    if denoisers.perturbed is not None:
        worse = guided(unguided(denoisers.perturbed, conditions))
        steer = away_from(steer, worse, guidance.pag_scale)
    if denoisers.guide is not None:
        weight = (GUIDE_SCALE if guidance.guide_scale is None else guidance.guide_scale) - 1
        steer = away_from(steer, denoisers.guide, weight)
    if guidance.rescale:
        steer = rescaled(steer, denoisers.parameterization, guidance.rescale)
    if guidance.interval is not None:
        steer = where(between(*guidance.interval), steer, unguided(own, conditions))
    return guided(steer)


def _classifier_free(
    own: ConditionalDenoise,
    conditions: Conditions,
    settings: Settings,
    kind: Kind,
    sigmas: Float[Tensor, " n"],
    memory: Momentum,
) -> Steer:
    """Guidance by the scale, in one of its forms; none where that is 1 or less."""
    plain = unguided(own, conditions)
    if kind.guided or (settings.scale <= 1 and not conditions.links):
        return plain
    if settings.guidance.scales is None:
        scale = max(settings.scale, 1.0)
        return _by_scale(own, conditions, settings, kind, scale, memory) or plain
    scale = over_steps(sigmas, settings.guidance.scales.over(settings.steps))
    steer = _by_scale(own, conditions, settings, kind, scale, memory) or plain
    return where(lambda sigma: scale(sigma) > 1, steer, plain)


def _by_scale(
    own: ConditionalDenoise,
    conditions: Conditions,
    settings: Settings,
    kind: Kind,
    scale: Scale,
    memory: Momentum,
) -> Steer | None:
    """None where the scale of an image rules guidance out."""
    cond, uncond, guidance = conditions.conds[0], conditions.uncond, settings.guidance
    if kind.beside == "image" and cond.concat is not None:
        by_image = 1.0 if settings.image_scale is None else settings.image_scale
        if by_image < 1:
            return None
        neither = replace(uncond, concat=torch.zeros_like(cond.concat))
        return chained(own, [neither, uncond, cond], [by_image, scale])
    if conditions.links:
        links = [link for link, _ in conditions.links]
        strengths = [strength for _, strength in conditions.links]
        return chained(own, [uncond, *links, cond], [*strengths, scale])
    if guidance.perp_neg is not None and conditions.null is not None:
        return perpendicular(own, cond, uncond, conditions.null, scale, guidance.perp_neg)
    if guidance.apg == Projection():
        return linear(_sides(own, conditions), scale)
    apg = guidance.apg
    return projected(
        _sides(own, conditions),
        scale,
        eta=apg.eta,
        norm_threshold=apg.norm_threshold,
        momentum=apg.momentum,
        memory=memory,
    )


def unguided(denoise: ConditionalDenoise, conditions: Conditions) -> Steer:
    """The prompt alone; of several, each by its weight."""
    if conditions.weights is None:
        return alone(denoise, conditions.conds[0])
    sides = _sides(denoise, conditions)

    def steer(x: Latents, sigma: Levels) -> tuple[Latents, Latents]:
        steered, _ = sides(x, sigma)
        return steered, steered

    return steer


def _sides(denoise: ConditionalDenoise, conditions: Conditions) -> Sides:
    if conditions.weights is None:
        return both(denoise, conditions.conds[0], conditions.uncond)
    return composed(denoise, conditions.conds, conditions.weights, conditions.uncond)
