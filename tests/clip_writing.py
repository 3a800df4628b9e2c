"""Writes clips that no encoder of ours would."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_sounding(path: Path, frames: Sequence[Image.Image], seconds: float, rate: int = 10):
    """A video whose sound, and so its header, is longer than its pictures."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("ffv1", rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        sound = video.add_stream("pcm_s16le", rate=8000)
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())
        samples = np.zeros((1, round(8000 * seconds)), dtype=np.int16)
        audio = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        audio.sample_rate = 8000
        video.mux(sound.encode(audio))
        video.mux(sound.encode())
