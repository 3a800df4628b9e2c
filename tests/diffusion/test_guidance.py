import pytest
import torch

from safelight.diffusion.guidance import by_step, cfg, cfg_composed
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


def test_several_prompts_each_by_its_weight():
    denoise, other = _Counting(), Conditioning(context=COND.context * 3, vector=COND.vector)
    weights = torch.tensor([[1.0, -0.5], [2.0, 0.0]])  # a row for each prompt
    guided = cfg_composed(denoise, [COND, other], weights, UNCOND, 3.0)(X, SIGMA)
    none, first, second = (_apart(cond) for cond in (UNCOND, COND, other))
    expected = none + 3 * torch.stack(
        [
            (first - none)[0] + 2 * (second - none)[0],
            -0.5 * (first - none)[1],
        ]
    )
    torch.testing.assert_close(guided, expected)
    assert denoise.batches == [6]


@pytest.mark.parametrize(
    ("sigma", "step"),
    [(20.0, 0), (14.6, 0), (5.0, 0), (3.0001, 0), (3.0, 1), (1.0, 2), (0.5, 2), (0.0, 2)],
)
def test_a_denoiser_for_each_step(sigma, step):
    sigmas = torch.tensor([14.6, 3.0, 1.0, 0.0], dtype=torch.float64)
    denoises = [lambda x, sigma, i=i: x + i for i in range(3)]
    levels = torch.full((2,), sigma)
    assert torch.equal(by_step(denoises, sigmas)(X, levels), X + step)
