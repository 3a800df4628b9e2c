"""How good moving pictures are: flicker, the first frame kept, motion as asked, and a distance.

Clips are (f, 3, h, w), pixels in [-1, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safelight.data.motion import HEIGHT, flow, flow_ready, motion_between
from safelight.eval.distances import pooled_features
from safelight.eval.quality import psnr
from safelight.pictures import to_image

Clip = Float[Tensor, "f 3 h w"]
Clips = Float[Tensor, "n f 3 h w"]


def warp_error(clip: Clip) -> float:
    """How much a clip flickers: the mean squared difference, in levels from 0 to 1, between each
    frame and the next one carried back along the optical flow to it, where both see the same thing
    (Lai et al. 2018, arXiv 1808.00449, eq. 8 and 9; the flow is by OpenCV). A clip that does not
    change has 0, and one of which no two frames show the same thing anywhere is not a number.

    Raises `SafelightError` if OpenCV is not installed.
    """
    frames = [np.asarray(to_image(frame)) for frame in clip]
    grey = [flow_ready(frame) for frame in frames]  # says so where OpenCV is not installed
    import cv2

    wide = grey[0].shape[1]
    way_of = cv2.INTER_AREA if wide < frames[0].shape[1] else cv2.INTER_LINEAR
    colours = [
        cv2.resize(frame, (wide, HEIGHT), interpolation=way_of).astype(np.float32) / 255
        for frame in frames
    ]
    x, y = np.meshgrid(np.arange(wide, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    errors: list[float] = []
    for here, there in zip(range(len(frames) - 1), range(1, len(frames)), strict=True):
        way, back = flow(grey[here], grey[there]), flow(grey[there], grey[here])
        at = (x + way[..., 0], y + way[..., 1])
        carried = cv2.remap(colours[there], *at, cv2.INTER_LINEAR)
        returned = cv2.remap(back, *at, cv2.INTER_LINEAR)
        inside = (at[0] >= 0) & (at[0] <= wide - 1) & (at[1] >= 0) & (at[1] <= HEIGHT - 1)
        # Lai et al. 2018, eq. 9 after Ruder et al. 2016: what comes back elsewhere was hidden
        missed = np.square(way + returned).sum(-1)
        reach = np.square(way).sum(-1) + np.square(returned).sum(-1)
        seen = inside & (missed <= 0.01 * reach + 0.5)
        if seen.any():
            errors.append(float(np.square(carried - colours[here]).mean(-1)[seen].mean()))
    return float(np.mean(errors)) if errors else float("nan")


def first_frame_psnr(clips: Clips, given: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """How well each clip's first frame is the picture that was given, in dB."""
    return psnr(clips[:, 0], given)


def speed(clip: Clip, fps: float) -> float:
    """The measured motion of a clip that is shown at `fps`, in heights of the picture a second, by
    the flow from each of its frames to the next (`data.motion`).

    Compare only clips of the same rate: of frames further apart the flow finds less of the way. A
    training's buckets are of every frame of a file.
    """
    frames = [np.asarray(to_image(frame)) for frame in clip]
    return float(motion_between(frames).mean()) * fps


def clip_features(pooled: Callable[[Tensor], Tensor], clips: Clips) -> Float[Tensor, "n d2"]:
    """What a network for pictures sees of clips: its features of the frames, averaged, and after
    them how much each feature changes from a frame to the next on average, as a Fréchet distance
    between clips takes it (`eval.distances`).

    It is no FVD, which looks through a network of videos (Unterthiner et al. 2018, arXiv
    1812.01717).
    """
    frames = clips.shape[1]
    rows = rearrange(pooled_features(pooled, clips.flatten(0, 1)), "(n f) d -> n f d", f=frames)
    change = (rows[:, 1:] - rows[:, :-1]).abs().mean(1)
    return torch.cat([rows.mean(1), change], dim=1)


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's: 1 where the one rises whenever the other does, 0 where they have nothing to do
    with each other. Equal values share their mean rank; 0 if all are equal.

    Raises `ValueError` for sequences of different lengths.
    """
    if len(xs) != len(ys):
        raise ValueError(f"A correlation needs as many of both, got {len(xs)} and {len(ys)}.")
    a, b = (ranks - ranks.mean() for ranks in (_ranks(xs), _ranks(ys)))
    norm = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / norm if norm else 0.0


def _ranks(values: Sequence[float]) -> Float[np.ndarray, " n"]:
    array = np.asarray(values, dtype=np.float64)
    _, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[places]
