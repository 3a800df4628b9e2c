"""Measures of moving pictures, on clips of which the truth is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from safelight.eval import moving as moving_eval
from safelight.eval.moving import (
    clip_features,
    first_frame_psnr,
    rank_correlation,
    speed,
    warp_error,
)

pytest.importorskip("cv2")


def square(x: float, y: float = 24, size: int = 64) -> torch.Tensor:
    """A striped square on grey whose left edge is at x, with soft edges."""
    columns = torch.arange(size).float()
    inside = ((columns - x).clamp(0, 1) * (x + 20 - columns).clamp(0, 1))[None, :]
    rows = ((columns - y).clamp(0, 1) * (y + 20 - columns).clamp(0, 1))[:, None]
    stripes = 0.5 + 0.5 * torch.sin((columns[None] - x) / 2) * torch.cos(columns[:, None] / 2)
    return (inside * rows * (1 - 1.6 * stripes)).expand(3, size, size)


def moving(step: float, frames: int = 6) -> torch.Tensor:
    return torch.stack([square(8 + step * k) for k in range(frames)])


def test_motion_is_no_flicker():
    generator = torch.Generator().manual_seed(0)
    smooth = moving(2.0)
    brighter = smooth + 0.3 * torch.randn(6, 1, 1, 1, generator=generator)
    noisy = smooth + 0.2 * torch.randn(6, 3, 64, 64, generator=generator)
    errors = [warp_error(clip) for clip in (moving(0.0), smooth, brighter, noisy)]
    assert errors[0] == 0
    assert errors[1] < 0.25 * min(errors[2:])


def test_frames_with_nothing_in_common_have_no_flicker_to_tell_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moving_eval, "flow", lambda a, b: np.full((*a.shape, 2), 1e3, np.float32))
    assert math.isnan(warp_error(moving(2.0)))


def test_fine_stripes_of_a_large_picture_do_not_flicker():
    columns = (torch.arange(520) % 2).float() * 2 - 1
    clip = torch.stack([columns.roll(k).expand(3, 520, 520) for k in range(3)])
    assert warp_error(clip) < 1e-3


def test_speed_is_in_heights_a_second():
    slow, fast = speed(moving(1.0), 10.0), speed(moving(2.0), 10.0)
    share = (20 / 64) ** 2
    assert 0.6 < slow / (share * 10 / 64) < 2.5  # what is around is drawn along by the window
    assert 1.6 < fast / slow < 2.4
    assert speed(moving(1.0), 20.0) == pytest.approx(2 * slow)
    assert speed(moving(0.0), 10.0) == 0


def test_the_first_frame():
    clips = torch.stack([moving(1.0), moving(2.0)])
    given = clips[:, 0].clone()
    given[1] += 0.2
    values = first_frame_psnr(clips, given)
    assert values[0] > 60
    assert values[1] == pytest.approx(20.0, abs=0.1)


def test_features_tell_a_clip_from_a_still_and_another_order():
    def pooled(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((1, 3))[:, ::16]

    clip = torch.stack([square(8, 10 + 6 * k) for k in range(4)])
    still, shuffled = clip[:1].expand(4, -1, -1, -1), clip[[0, 2, 1, 3]]
    rows = clip_features(pooled, torch.stack([clip, still, shuffled]))
    half = rows.shape[1] // 2
    assert rows.shape[1] == 2 * 14
    assert torch.allclose(rows[0, :half], rows[2, :half], atol=1e-5)
    assert float(rows[1, half:].abs().max()) == 0
    assert rows[2, half:].sum() > 1.2 * rows[0, half:].sum() > 0


def test_rank_correlation_is_spearmans():
    xs, ys = [1.0, 5.0, 2.0, 2.0, 9.0, -1.0], [0.1, 4.0, 4.0, 3.0, 2.0, 0.0]
    assert rank_correlation(xs, ys) == pytest.approx(spearmanr(xs, ys).statistic)
    assert rank_correlation(xs, [x**3 for x in xs]) == pytest.approx(1)
    assert rank_correlation(xs, [-x for x in xs]) == pytest.approx(-1)
    assert rank_correlation(xs, [2.0] * 6) == 0
    with pytest.raises(ValueError, match="6 and 2"):
        rank_correlation(xs, [1.0, 2.0])
