"""What a video model is told of a clip beside its prompt: frames that are known, and numbers."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from safelight.conditioners.numbers import with_numbers
from safelight.models.unet import UNetConfig
from safelight.models.video import Number, TemporalConfig
from safelight.types import Conditioning


def with_known_frames(
    cond: Conditioning,
    latents: Float[Tensor, "b f c h w"],
    known: Bool[Tensor, "b f"],
    temporal: TemporalConfig,
) -> Conditioning:
    """Tells which frames of clips are known, and their latents, in channels beside x.

    Latents of frames that are not known count for nothing. Where they are "placed" they are scaled
    as x's are. Where they are "repeated", the first frame's alone are told, unscaled, as Stable
    Video Diffusion has it (arXiv 2311.15127, appendix D.1); zeros if it is not known.

    Raises `ValueError` for a model that is told no frames.
    """
    if temporal.given == "none":
        raise ValueError("This model is told no frames.")
    frames = latents.shape[1]
    seen = known[:, :, None, None, None].to(latents)
    if temporal.given == "repeated":
        rows = repeat(latents[:, 0] * seen[:, 0], "b c h w -> (b f) c h w", f=frames)
    else:
        mask = seen.expand(-1, -1, -1, *latents.shape[3:])
        rows = rearrange(torch.cat([latents * seen, mask], 2), "b f c h w -> (b f) c h w")
    concat = rows if cond.concat is None else torch.cat([cond.concat, rows], 1)
    return replace(cond, concat=concat, num_frames=frames)


def with_clip_numbers(
    cond: Conditioning,
    numbers: Mapping[Number, Tensor],
    temporal: TemporalConfig,
    unet: UNetConfig,
) -> Conditioning:
    """Tells the numbers of clips that the model takes: frames a second ("fps"), the motion bucket
    ("motion", 0 to 255) and the noise on a given picture ("augmentation"); (b,) each, one a clip.

    Raises `KeyError` for one that is missing.
    """
    if not temporal.numbers:
        return cond
    told = [numbers[name] - int(name == "fps") for name in temporal.numbers]  # of fps one less
    return with_numbers(cond, torch.stack(told, 1).float(), unet)


def without_numbers(cond: Conditioning, told: Bool[Tensor, " b"] | None = None) -> Conditioning:
    """The same of clips whose numbers are not told, but for those that are `told`: with zeros in
    the place of all features, which no number has.
    """
    if cond.vector is None:
        return cond
    if told is None:
        return replace(cond, vector=torch.zeros_like(cond.vector))
    return replace(cond, vector=cond.vector * told[:, None])
