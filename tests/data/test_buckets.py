import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.data.buckets import View, aspect_buckets, cut, nearest_bucket

WHITE = (255, 255, 255)


@given(st.integers(1, 32), st.integers(1, 40), st.floats(1, 4))
def test_buckets_keep_to_area_multiple_and_aspect(multiple: int, side: int, max_aspect: float):
    area = (side * multiple) ** 2
    buckets = aspect_buckets(area, multiple, max_aspect)
    assert (side * multiple, side * multiple) in buckets
    assert len(set(buckets)) == len(buckets)
    for width, height in buckets:
        assert width % multiple == height % multiple == 0
        assert width * height <= area
        assert max(width, height) <= max_aspect * min(width, height)
        assert (height, width) in buckets
        # Nothing is wasted: one side could not be longer by a multiple.
        assert (min(width, height)) * (max(width, height) + multiple) > area or (
            min(width, height) + multiple
        ) * max(width, height) > area


def test_known_buckets():
    assert aspect_buckets(256**2, 64) == ((192, 320), (256, 256), (320, 192))
    with pytest.raises(ValueError, match="no room for 64 x 64"):
        aspect_buckets(63 * 63, 64)


@given(st.floats(-1, 1), st.integers(100, 5000), st.sampled_from([(256, 32), (512, 64), (64, 8)]))
def test_the_aspect_error_is_bounded(log_aspect: float, height: int, grid: tuple[int, int]):
    side, multiple = grid
    buckets = aspect_buckets(side**2, multiple, 2.0)
    size = (max(1, round(height * 2**log_aspect)), height)
    aspects = sorted(math.log(w / h) for w, h in buckets)
    widest_gap = max(b - a for a, b in itertools.pairwise(aspects))
    bound = max(widest_gap / 2, math.log(2.0) - aspects[-1])
    width, height = buckets[nearest_bucket(size, buckets)]
    error = abs(math.log(size[0] / size[1]) - math.log(width / height))
    assert error <= bound + 0.01  # the size itself is rounded to pixels
    assert error == pytest.approx(min(abs(math.log(size[0] / size[1]) - a) for a in aspects))


def test_of_equal_aspects_the_larger_is_taken():
    assert nearest_bucket((10, 10), ((4, 4), (8, 8), (2, 2))) == 1


def ramp(width: int, height: int) -> np.ndarray:
    """Red rises across, green rises down."""
    rows = np.zeros((height, width, 3), np.uint8)
    rows[..., 0] = np.linspace(0, 255, width).round()
    rows[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return rows


def test_a_picture_of_the_buckets_size_is_not_touched():
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    assert np.array_equal(cut(levels, (9, 6), View(), WHITE), levels)
    assert np.array_equal(cut(levels, (9, 6), View(flip=True), WHITE), levels[:, ::-1])


@given(st.floats(0, 1), st.floats(0, 1))
def test_without_scaling_a_cut_is_a_window_of_the_same_pixels(across: float, down: float):
    levels = np.random.default_rng(0).integers(0, 256, (20, 8, 3), dtype=np.uint8)
    top = round(down * 12)
    window = cut(levels, (8, 8), View(across=across, down=down), WHITE)
    assert np.array_equal(window, levels[top : top + 8])


@given(
    *[st.integers(1, 60)] * 4,
    st.builds(View, st.floats(1.0, 3.0), st.floats(0, 1), st.floats(0, 1), st.booleans()),
)
def test_a_cut_has_the_buckets_size_whatever_the_picture(
    width: int, height: int, across: int, down: int, view: View
):
    rows = cut(ramp(width, height), (across, down), view, WHITE)
    assert rows.shape == (down, across, 3)


def test_the_view_says_what_is_seen():
    levels = ramp(128, 64)
    left = cut(levels, (32, 32), View(across=0.0), WHITE)
    right = cut(levels, (32, 32), View(across=1.0), WHITE)
    assert left[..., 0].max() < 131 < right[..., 0].max()
    assert right[..., 0].min() > 124
    near = cut(levels, (32, 32), View(zoom=2.0), WHITE)
    assert int(near[..., 1].max()) - int(near[..., 1].min()) == pytest.approx(128, abs=6)
    assert near[..., 1].mean() == pytest.approx(127.5, abs=1)


def test_nothing_is_distorted():
    yy, xx = np.mgrid[:200, :400]
    disc = ((xx - 200) ** 2 + (yy - 100) ** 2 < 60**2).astype(np.uint8) * 255
    rows = cut(np.repeat(disc[..., None], 3, 2), (96, 64), View(zoom=1.3), WHITE)
    inside = rows[..., 0] > 127
    assert inside.any(0).sum() == pytest.approx(inside.any(1).sum(), abs=1)


def test_transparency_is_laid_over_the_background():
    levels = np.zeros((4, 4, 4), np.uint8)
    levels[:2, :, 3] = 255
    rows = cut(levels, (4, 4), View(), (9, 8, 7))
    assert rows[0, 0].tolist() == [0, 0, 0]
    assert rows[3, 3].tolist() == [9, 8, 7]
