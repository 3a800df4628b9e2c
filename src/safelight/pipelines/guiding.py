"""Guidance as settings ask for it, put together from the combinators of `safelight.diffusion`."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import (
    Scale,
    Steer,
    alone,
    away_from,
    between,
    both,
    guided,
    linear,
    linear_image,
    over_steps,
    rescaled,
    where,
)
from safelight.diffusion.projection import perpendicular, projected
from safelight.models.unet import UNet
from safelight.nn.identity_attention import with_identity_attention
from safelight.pipelines.guidance_settings import Guidance, Projection
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Settings
from safelight.pipelines.settling_guidance import check_layers
from safelight.types import Conditioning, Denoise

_GUIDE_SCALE = 2.0


@dataclass(frozen=True)
class Conditions:
    """What a picture is made under.

    Attributes:
        cond: the prompt.
        uncond: what guidance leads away from: the negative prompt, or nothing.
        null: nothing, where that is needed beside a negative prompt.
    """

    cond: Conditioning
    uncond: Conditioning
    null: Conditioning | None = None


@dataclass(frozen=True)
class Denoisers:
    """A model, and a weaker one of the same latents that guides it under the same prompt, if
    any.
    """

    own: Denoiser
    unet: UNet  # the network of `own`
    guide: Denoise | None = None


def guided_denoise(
    denoisers: Denoisers,
    conditions: Conditions,
    settings: Settings,
    kind: Kind,
    sigmas: Float[Tensor, " n"],
) -> Denoise:
    """The denoiser under the prompt, guided as the settings say; for one run of a sampler.

    `sigmas` are the noise levels of all steps.
    """
    own, guidance = denoisers.own, settings.guidance
    steer = _classifier_free(own, conditions, settings, kind, sigmas)
    if guidance.pag_scale:
        perturbed = _perturbed(denoisers, guidance)
        steer = away_from(steer, guided(alone(perturbed, conditions.cond)), guidance.pag_scale)
    if denoisers.guide is not None:
        weight = (_GUIDE_SCALE if guidance.guide_scale is None else guidance.guide_scale) - 1
        steer = away_from(steer, denoisers.guide, weight)
    if guidance.rescale:
        steer = rescaled(steer, own.parameterization, guidance.rescale)
    if guidance.interval is not None:
        steer = where(between(*guidance.interval), steer, alone(own, conditions.cond))
    return guided(steer)


def _classifier_free(
    own: Denoiser,
    conditions: Conditions,
    settings: Settings,
    kind: Kind,
    sigmas: Float[Tensor, " n"],
) -> Steer:
    """Guidance by the scale, in one of its forms; none where that is 1 or less."""
    plain = alone(own, conditions.cond)
    if kind.guided or settings.scale <= 1:
        return plain
    if settings.guidance.scales is None:
        return _by_scale(own, conditions, settings, kind, settings.scale) or plain
    scale = over_steps(sigmas, settings.guidance.scales.over(settings.steps))
    steer = _by_scale(own, conditions, settings, kind, scale) or plain
    return where(lambda sigma: scale(sigma) > 1, steer, plain)


def _by_scale(
    own: Denoiser, conditions: Conditions, settings: Settings, kind: Kind, scale: Scale
) -> Steer | None:
    """None where the scale of an image rules guidance out."""
    cond, uncond, guidance = conditions.cond, conditions.uncond, settings.guidance
    if kind.beside == "image" and cond.concat is not None:
        by_image = 1.0 if settings.image_scale is None else settings.image_scale
        if by_image < 1:
            return None
        neither = replace(uncond, concat=torch.zeros_like(cond.concat))
        return linear_image(own, cond, uncond, neither, scale, by_image)
    if guidance.perp_neg is not None and conditions.null is not None:
        return perpendicular(own, cond, uncond, conditions.null, scale, guidance.perp_neg)
    if guidance.apg == Projection():
        return linear(both(own, cond, uncond), scale)
    apg = guidance.apg
    return projected(
        both(own, cond, uncond),
        scale,
        eta=apg.eta,
        norm_threshold=apg.norm_threshold,
        momentum=apg.momentum,
    )


def _perturbed(denoisers: Denoisers, guidance: Guidance) -> Denoiser:
    """The model with the identity for the attention maps of chosen layers."""
    own = denoisers.own
    check_layers(denoisers.unet, guidance)
    network = with_identity_attention(denoisers.unet, guidance.pag_layers)
    return Denoiser(network, own.parameterization, own.schedule, own.dtype)
