import pytest
import torch

from safelight.diffusion.guidance import cfg
from safelight.types import Conditioning

X = torch.arange(24.0).reshape(2, 3, 2, 2)
SIGMA = torch.tensor([1.0, 2.0])
COND = Conditioning(context=torch.full((2, 1, 3), 2.0), vector=torch.ones(2, 4))
UNCOND = Conditioning(context=torch.full((2, 1, 3), -1.0), vector=torch.zeros(2, 4))


class _Counting:
    def __init__(self):
        self.batches = []

    def __call__(self, x, sigma, cond):
        self.batches.append(len(x))
        assert len(x) == len(sigma) == len(cond.context) == len(cond.vector)
        return x * sigma[:, None, None, None] + cond.context[:, 0, :, None, None]


def _apart(cond):
    return _Counting()(X, SIGMA, cond)


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5, -1.0])
def test_guidance_extrapolates_in_one_doubled_batch(scale):
    denoise = _Counting()
    guided = cfg(denoise, COND, UNCOND, scale)(X, SIGMA)
    expected = _apart(UNCOND) + scale * (_apart(COND) - _apart(UNCOND))
    torch.testing.assert_close(guided, expected)
    assert denoise.batches == [4]


@pytest.mark.parametrize(("scale", "only"), [(1.0, COND), (0.0, UNCOND)])
def test_one_side_alone_is_one_plain_call(scale, only):
    denoise = _Counting()
    assert torch.equal(cfg(denoise, COND, UNCOND, scale)(X, SIGMA), _apart(only))
    assert denoise.batches == [2]


def test_a_scale_for_each_image():
    scale = torch.tensor([1.0, 6.0])
    guided = cfg(_Counting(), COND, UNCOND, scale)(X, SIGMA)
    for row in range(2):
        alone = cfg(_Counting(), COND, UNCOND, scale[row].item())(X, SIGMA)
        torch.testing.assert_close(guided[row], alone[row])


def test_sides_that_carry_different_parts_are_refused():
    with pytest.raises(ValueError, match="vector"):
        cfg(_Counting(), COND, Conditioning(context=UNCOND.context), 3.0)
