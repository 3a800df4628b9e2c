import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safelight.diffusion.windows import windowed
from safelight.types import Conditioning

SIGMA = torch.tensor([1.0, 2.0])


def _picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(2, channels, height, width, generator=generator)


def _local(x, sigma, cond):
    """Depends on each place alone, with what is beside it and, twice as large, over it."""
    [hint] = cond.hints
    assert hint.shape[-2:] == (2 * x.shape[-2], 2 * x.shape[-1])
    return x * sigma[:, None, None, None] + cond.concat + hint[..., ::2, ::2]


def _whole(x, sigma, cond):
    """Depends on all that it sees."""
    return x - x.mean(dim=(2, 3), keepdim=True)


@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 8), st.data())
def test_what_a_place_alone_decides_is_the_same_through_windows(height, width, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    x = _picture(height, width)
    cond = Conditioning(concat=_picture(height, width, 1), hints=(_picture(2 * height, 2 * width),))
    made = windowed(_local, size, overlap, fade=data.draw(st.booleans()))(x, SIGMA, cond)
    torch.testing.assert_close(made, _local(x, SIGMA, cond))


@pytest.mark.parametrize("fade", [False, True])
def test_a_place_is_the_mean_of_the_windows_over_it(fade):
    x = _picture(4, 6)
    made = windowed(_whole, 4, 2, fade=fade)(x, SIGMA, Conditioning())
    left, right = (_whole(x[..., begin : begin + 4], SIGMA, None) for begin in (0, 2))
    weights = torch.ones(4)
    if fade:
        weights = torch.distributions.Normal(1.5, 0.1 * 4).log_prob(torch.arange(4.0)).exp()
    middle = left[..., 2:] * weights[2:] + right[..., :2] * weights[:2]
    middle = middle / (weights[2:] + weights[:2])
    torch.testing.assert_close(made, torch.cat([left[..., :2], middle, right[..., 2:]], dim=-1))


@pytest.mark.parametrize("size", [6, 7])
def test_one_window_over_all_is_the_denoiser_itself(size):
    x = _picture(5, 6)
    made = windowed(_whole, size, 3, fade=size == 7)(x, SIGMA, Conditioning())
    assert torch.equal(made, _whole(x, SIGMA, None))


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (Conditioning(residuals=(torch.zeros(2, 1, 4, 6),)), "Residuals of the whole"),
        (Conditioning(hints=(torch.zeros(2, 1, 8, 13),)), "not a whole number of times"),
        (Conditioning(hints=(torch.zeros(2, 1, 9, 12),)), "not a whole number of times"),
    ],
)
def test_what_cannot_be_cut_is_refused(cond, message):
    with pytest.raises(ValueError, match=message):
        windowed(_whole, 4, 2)(_picture(4, 6), SIGMA, cond)
