"""What a video model is told of a clip beside its prompt: frames that are known, and numbers."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
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

    Latents of frames that are not known count for nothing. Where they are "placed", or told
    "around" each frame, they are scaled as x's are. Where they are "repeated", the first frame's
    alone are told, unscaled, as Stable Video Diffusion has it (arXiv 2311.15127, appendix D.1);
    zeros if it is not known.

    Raises `ValueError` for a model that is told no frames.
    """
    if temporal.given == "none":
        raise ValueError("This model is told no frames.")
    frames = latents.shape[1]
    if temporal.given == "repeated":
        first = latents[:, 0] * known[:, 0, None, None, None]
        rows = repeat(first, "b c h w -> (b f) c h w", f=frames)
    else:
        places = torch.arange(frames, device=latents.device).expand(len(known), -1)
        told_of = _around(known) if temporal.given == "around" else (places,)
        told = [_told_at(latents, known, at) for at in told_of]
        rows = rearrange(torch.cat(told, 2), "b f c h w -> (b f) c h w")
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


def _told_at(
    latents: Float[Tensor, "b f c h w"], known: Bool[Tensor, "b f"], at: Int[Tensor, "b f"]
) -> Float[Tensor, "b f c_and_one h w"]:
    """What each frame is told of the one in the place `at`: its latents, and 1 / (n + 1) for one n
    frames away; zeros where that is not known, or no frame.
    """
    frames = latents.shape[1]
    place = at.clamp(0, frames - 1)
    there = (place == at) & known.gather(1, place)
    away = (at - torch.arange(frames, device=at.device)).abs()
    nearness = (there / (away + 1)).to(latents)[:, :, None, None, None]
    taken = latents[torch.arange(len(at), device=at.device)[:, None], place]
    return torch.cat([taken * (nearness > 0), nearness.expand(-1, -1, -1, *latents.shape[3:])], 2)


def _around(known: Bool[Tensor, "b f"]) -> tuple[Int[Tensor, "b f"], Int[Tensor, "b f"]]:
    """The last known place up to each frame, and the first one from it on; -1 and the number of
    frames where there is none.
    """
    frames = known.shape[1]
    places = torch.arange(frames, device=known.device)
    up_to = torch.where(known, places, -1).cummax(1).values
    return up_to, torch.where(known, places, frames).flip(1).cummin(1).values.flip(1)
