"""What a video training tells of its clips."""

import pytest
import torch

from safelight.train.task import Draws
from safelight.train.video_task import VideoConfig, known_frames


def test_first_and_last_frames_are_known_as_often_as_they_should():
    clips = 20_000
    draws = Draws(0, 3, clips, 0, clips, torch.device("cpu"))
    known = known_frames(VideoConfig(first=0.6, last=0.3), draws, 5)
    assert not known[:, 1:-1].any()
    first, last = known[:, 0], known[:, -1]
    shares = {
        (a, b): float(((first == a) & (last == b)).float().mean())
        for a in (True, False)
        for b in (True, False)
    }
    assert shares == pytest.approx(
        {(True, True): 0.18, (True, False): 0.42, (False, True): 0.12, (False, False): 0.28},
        abs=0.02,
    )
    repeated = known_frames(VideoConfig(given="repeated", first=0.6), draws, 5)
    assert torch.equal(repeated[:, 0], first)
    assert not repeated[:, 1:].any()
