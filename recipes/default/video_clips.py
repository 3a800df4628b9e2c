"""Held-out clips as a video model is asked for them, and what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safelight.data.buckets import View, cut
from safelight.data.clip_files import decode_clip
from safelight.data.clips import ClipItem, ClipsConfig, scan_clips
from safelight.data.motion import bucket_of, motion_between
from safelight.pictures import WHITE, stack_pixels, to_image, to_pixels
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request
from safelight.pipelines.video import VideoPipeline


@dataclass(frozen=True)
class Wanted:
    """A real clip, (f, 3, h, w) in [-1, 1], with its caption, its rate and its motion bucket."""

    real: Tensor
    caption: str
    fps: float
    motion: int


def wanted(folder: Path, count: int, frames: int, stride: int, size: int) -> list[Wanted]:
    """At most `count` parts of the clips in a folder, as many of each clip as it has room for, the
    first of each clip first; each a square of `size` pixels.
    """
    found = scan_clips(folder, ClipsConfig(frames=frames, strides=(stride,))).items
    span = (frames - 1) * stride + 1
    parts = sorted(
        (number, index) for index, item in enumerate(found) for number in range(item.frames // span)
    )[:count]
    decoded: dict[int, list[np.ndarray]] = {}
    rows: list[Wanted] = []
    for number, index in parts:
        if index not in decoded:
            decoded[index] = _squares(found[index], size)
        levels = decoded[index][number * span : (number + 1) * span]
        speed = float(motion_between(levels).mean()) * found[index].fps
        rate = max(1, round(found[index].fps / stride))
        shown = stack_pixels(levels[::stride])
        rows.append(Wanted(shown, found[index].captions[0], rate, bucket_of(speed)))
    return rows


def made(
    pipeline: VideoPipeline,
    clips: Sequence[Wanted],
    *,
    given: bool,
    motion: float | None = None,
    steps: int | None = None,
) -> Tensor:
    """A clip for each, (n, f, 3, h, w): of its caption, rate and motion bucket (or `motion`), and
    of its first frame where that is `given`.
    """
    rows: list[Tensor] = []
    for seed, clip in enumerate(clips):
        result = pipeline.animate(
            to_image(clip.real[0]) if given else None,
            prompt=clip.caption,
            frames=len(clip.real),
            fps=float(clip.fps),
            motion=float(clip.motion if motion is None else motion),
            steps=steps,
            seed=seed,
            width=clip.real.shape[-1],
            height=clip.real.shape[-2],
            prompt_syntax="plain",
        )
        rows.append(torch.stack([to_pixels(frame) for frame in result.frames]))
    return torch.stack(rows)


def one_by_one(
    pipeline: ImagePipeline, clips: Sequence[Wanted], steps: int | None = None
) -> Tensor:
    """What the model of pictures makes of the caption for each frame by itself, each from its own
    noise, (n, f, 3, h, w).
    """
    rows: list[Tensor] = []
    for number, clip in enumerate(clips):
        frames, size = len(clip.real), clip.real.shape[-1]
        settings = pipeline.settle(Request("", steps=steps, width=size, height=size))
        seeds = [1000 * (number + 1) + k for k in range(frames)]
        rows.append(pipeline.sample([clip.caption] * frames, seeds, settings).cpu())
    return torch.stack(rows).clamp(-1, 1)


def _squares(item: ClipItem, size: int) -> list[np.ndarray]:
    frames = decode_clip(
        item.path, item.fps, (size, size), start=item.start, seconds=item.frames / item.fps
    )
    return [cut(np.array(frame), (size, size), View(), WHITE) for frame in frames]
