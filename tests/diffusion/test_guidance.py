import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.guider_utils import rescale_noise_cfg

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.guidance import (
    alone,
    away_from,
    between,
    both,
    by_step,
    cfg,
    chained,
    composed,
    guided,
    linear,
    over_steps,
    rescaled,
    where,
)
from safelight.diffusion.parameterization import edm, eps, flow, v, x0
from safelight.diffusion.projection import Momentum, perpendicular, projected
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
    made = cfg(denoise, COND, UNCOND, scale)(X, SIGMA)
    expected = _apart(UNCOND) + scale * (_apart(COND) - _apart(UNCOND))
    torch.testing.assert_close(made, expected)
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


def test_several_things_each_by_its_scale_in_one_batch():
    first = Conditioning(context=torch.full((2, 1, 3), 0.5), vector=torch.zeros(2, 4))
    denoise = _Counting()
    made, steered = chained(denoise, [UNCOND, first, COND], [1.5, 7.0])(X, SIGMA)
    none, one, all_ = _apart(UNCOND), _apart(first), _apart(COND)
    torch.testing.assert_close(made, none + 1.5 * (one - none) + 7.0 * (all_ - one))
    torch.testing.assert_close(steered, all_)
    assert denoise.batches == [6]
    equal, _ = chained(_Counting(), [UNCOND, first, COND], [3.0, 3.0])(X, SIGMA)
    torch.testing.assert_close(equal, none + 3.0 * (all_ - none))  # which is guidance by one scale


def test_sides_that_carry_different_parts_are_refused():
    with pytest.raises(ValueError, match="vector"):
        cfg(_Counting(), COND, Conditioning(context=UNCOND.context), 3.0)


def test_several_prompts_each_by_its_weight():
    denoise, other = _Counting(), Conditioning(context=COND.context * 3, vector=COND.vector)
    weights = torch.tensor([[1.0, -0.5], [2.0, 0.0]])  # a row for each prompt
    made = guided(linear(composed(denoise, [COND, other], weights, UNCOND), 3.0))(X, SIGMA)
    none, first, second = (_apart(cond) for cond in (UNCOND, COND, other))
    expected = none + 3 * torch.stack(
        [
            (first - none)[0] + 2 * (second - none)[0],
            -0.5 * (first - none)[1],
        ]
    )
    torch.testing.assert_close(made, expected)
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


def _random(seed):
    return torch.randn(X.shape, generator=torch.Generator().manual_seed(seed))


def _steer(x, sigma):
    """Some guided x0, and one under the prompt alone."""
    return _random(0) * 3, _random(1)


@pytest.mark.parametrize("parameterization", [eps, v, x0, flow, edm(0.5)])
@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_rescaling_is_diffusers_of_what_the_network_put_out(parameterization, factor):
    scalings = parameterization(SIGMA)
    skip, out = (per_image(c, X) for c in (scalings.c_skip, scalings.c_out))
    output, steered = ((x0 - skip * X) / out for x0 in _steer(X, SIGMA))
    wanted = skip * X + out * rescale_noise_cfg(output, steered, factor)
    ours = guided(rescaled(_steer, parameterization, factor))(X, SIGMA)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("eta", "threshold", "momentum"), [(0.0, 0.0, 0.0), (0.4, 2.5, 0.0), (0.0, 4.0, -0.5)]
)
def test_projected_guidance_is_diffusers_over_several_calls(eta, threshold, momentum):
    buffer = MomentumBuffer(momentum) if momentum else None
    calls = iter(range(6))
    steer = projected(
        lambda x, sigma: (_random(next(calls)), _random(next(calls))),
        5.0,
        eta=eta,
        norm_threshold=threshold,
        momentum=momentum,
    )
    for i in range(0, 6, 2):
        wanted = normalized_guidance(
            _random(i), _random(i + 1), 4.0, buffer, eta, threshold, use_original_formulation=True
        )
        torch.testing.assert_close(steer(X, SIGMA)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [5.0, torch.tensor([2.0, 7.0])])
def test_projected_guidance_without_its_three_parts_is_classifier_free(scale):
    plain = cfg(_Counting(), COND, UNCOND, scale)(X, SIGMA)
    ours = guided(projected(both(_Counting(), COND, UNCOND), scale))(X, SIGMA)
    torch.testing.assert_close(ours, plain)


def _prompts(x, sigma, cond):
    """x0 of each prompt, which `cond.vector` numbers."""
    return torch.stack([_random(int(row[0]))[0] for row in cond.vector])


def _numbered(number):
    return Conditioning(vector=torch.full((2, 1), float(number)))


def test_perpendicular_guidance_is_the_published_formula():
    cond, negative, null = (_prompts(X, SIGMA, _numbered(n)) for n in (0, 1, 2))
    steer = perpendicular(_prompts, _numbered(0), _numbered(1), _numbered(2), 6.0, 0.7)
    ours, steered = steer(X, SIGMA)
    for row in range(2):
        wanted, unwanted = (cond - null)[row].flatten(), (negative - null)[row].flatten()
        unwanted = unwanted - unwanted.dot(wanted) / wanted.norm() ** 2 * wanted
        towards = (wanted - 0.7 * unwanted).reshape(null[row].shape)
        torch.testing.assert_close(ours[row], null[row] + 6.0 * towards)
    assert torch.equal(steered, cond)


def test_perpendicular_guidance_leaves_a_negative_prompt_that_is_the_prompt_alone():
    steer = perpendicular(_prompts, _numbered(0), _numbered(0), _numbered(2), 6.0, 1.0)
    plain = cfg(_prompts, _numbered(0), _numbered(2), 6.0)
    torch.testing.assert_close(steer(X, SIGMA)[0], plain(X, SIGMA))


def test_a_worse_prediction_pushes_away_and_the_same_one_does_nothing():
    denoise = _Counting()
    same = guided(away_from(alone(denoise, COND), guided(alone(denoise, COND)), 3.0))
    assert torch.equal(same(X, SIGMA), _apart(COND))
    worse = guided(alone(denoise, UNCOND))  # as classifier-free guidance has it
    ours = guided(away_from(alone(denoise, COND), worse, 3.0))(X, SIGMA)
    torch.testing.assert_close(ours, cfg(denoise, COND, UNCOND, 4.0)(X, SIGMA))


@pytest.mark.parametrize(
    ("interval", "rows"), [((0.0, 9.0), (1, 1)), ((1.5, 9.0), (0, 1)), ((3.0, 9.0), (0, 0))]
)
def test_guidance_in_an_interval_is_that_of_the_rows_within(interval, rows):
    denoise = _Counting()
    steer = linear(both(denoise, COND, UNCOND), 5.0)
    ours = guided(where(between(*interval), steer, alone(denoise, COND)))(X, SIGMA)
    apart = (_apart(COND), cfg(_Counting(), COND, UNCOND, 5.0)(X, SIGMA))
    for row, inside in enumerate(rows):
        assert torch.equal(ours[row], apart[inside][row])
    assert denoise.batches == {(1, 1): [4], (0, 1): [4, 2], (0, 0): [2]}[rows]


def test_the_ends_of_an_interval_are_in_it():
    assert between(1.0, 2.0)(torch.tensor([0.9, 1.0, 2.0, 2.1])).tolist() == [False, True, True, 0]


def test_scales_over_steps_hold_from_their_level_down_to_the_next():
    sigmas = torch.tensor([10.0, 3.3, 1.1, 0.0], dtype=torch.float64)
    scale = over_steps(sigmas, [7.0, 5.0, 1.0])
    asked = torch.tensor([12.0, 10.0, 6.0, 3.3, 2.0, 1.1, 0.5])
    assert scale(asked).tolist() == [7, 7, 7, 5, 5, 1, 1]


def test_momentum_is_that_of_the_run_where_its_prompt_changes():
    def sides(x, sigma):
        return 3 * x, x

    options = {"eta": 0.5, "momentum": -0.5}
    whole = guided(projected(sides, 4.0, **options))
    memory = Momentum()
    halves = [guided(projected(sides, 4.0, memory=memory, **options)) for _ in range(2)]
    assert torch.equal(halves[0](X, SIGMA), whole(X, SIGMA))
    assert torch.equal(halves[1](2 * X, SIGMA), whole(2 * X, SIGMA))
