"""How much moves in a clip: dense optical flow between its frames, and the bucket of it."""

import functools
import importlib.util
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

from safelight.errors import SafelightError
from safelight.models.video import MOST_MOTION
from safelight.pictures import Levels

HEIGHT = 128
"""Pixels to which pictures are brought for the flow: on 64 pixels it comes out twice too long."""


def motion_between(frames: Sequence[Levels]) -> Float[np.ndarray, " n"]:
    """How far the picture moves from each frame (h, w, 3) to the next: the mean length of the
    optical flow over all pixels, as a part of the picture's height; float32, one less than frames.

    Raises `SafelightError` if OpenCV is not installed.
    """
    grey = [flow_ready(frame) for frame in frames]
    return np.array(
        [np.hypot(*np.moveaxis(flow(a, b), -1, 0)).mean() / HEIGHT for a, b in pairwise(grey)],
        dtype=np.float32,
    )


def flow(
    first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 2"]:
    """Where each pixel of the first picture goes to in the second, in pixels to the right and down
    (Farnebäck 2003, by OpenCV).
    """
    import cv2

    _one_thread()
    start = np.zeros((*first.shape, 2), dtype=np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(first, second, start, 0.5, 3, 7, 3, 5, 1.2, 0))


def flow_ready(frame: Levels) -> UInt8[np.ndarray, "high wide"]:
    """A picture (h, w, 3) in grey, `HEIGHT` pixels high, as `flow` takes it.

    Raises `SafelightError` if OpenCV is not installed.
    """
    need_opencv()
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    size = (max(1, round(grey.shape[1] * HEIGHT / grey.shape[0])), HEIGHT)
    shrinks = size[0] < grey.shape[1]
    return np.asarray(
        cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    )


def need_opencv() -> None:
    """Raises `SafelightError` if OpenCV is not installed."""
    if importlib.util.find_spec("cv2") is None:
        raise SafelightError(
            "Motion is measured by OpenCV, which is not installed; run: pip install "
            "'safelight[video]'"
        )


def bucket_of(speed: float) -> int:
    """The motion bucket, 0 to 255, of a speed in heights of the picture a second.

    `255 speed / (speed + 0.06)`: so 0 is a still, and 127, which Stable Video Diffusion is told by
    default, a picture whose pixels move a seventeenth of its height in a second on average. Differs
    from Stable Video Diffusion's own, which is not published.
    """
    speed = max(speed, 0.0)
    return round(MOST_MOTION * speed / (speed + _HALFWAY))


def speed_of(bucket: float) -> float:
    """The speed in heights a second that a bucket below 255 stands for: `bucket_of` back."""
    return _HALFWAY * bucket / (MOST_MOTION - min(bucket, MOST_MOTION - 0.5))


_HALFWAY = 0.06


@functools.cache
def _one_thread() -> None:
    """OpenCV's own threads would fight with torch's, and gain nothing on small pictures."""
    import cv2

    cv2.setNumThreads(1)
