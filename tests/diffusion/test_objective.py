"""Targets, weights and laws of noise levels, each against its own definition."""

import math

import pytest
import torch

from safelight.diffusion import objective, parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    EdmSchedule,
    FlowSchedule,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.types import Conditioning

SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())
SIGMA = torch.tensor([0.03, 0.4, 1.0, 3.0, 14.0], dtype=torch.float64)
ROWS = SIGMA[:, None, None, None]
SHAPE = (5, 2, 3, 4)
GENERATOR = torch.Generator().manual_seed(0)
X0, NOISE, OUTPUT = (torch.randn(SHAPE, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
ALPHA = (1 + ROWS**2) ** -0.5
MEANINGS = {
    "eps": parameterization.eps,
    "v": parameterization.v,
    "x0": parameterization.x0,
    "flow": parameterization.flow,
    "edm": parameterization.edm(0.6),
}
TARGETS = {
    "eps": NOISE,
    "v": ALPHA * NOISE - ROWS * ALPHA * X0,
    "x0": X0,
    "flow": NOISE - X0,
}


def _loss(meaning, output=OUTPUT, weight=objective.uniform):
    denoiser = Denoiser(lambda x, t, cond: output, meaning, SCHEDULE)
    return objective.diffusion_loss(denoiser, X0, Conditioning(), SIGMA, NOISE, weight)


def _mean_square(error):
    return error.square().mean((1, 2, 3))


@pytest.mark.parametrize("name", TARGETS)
def test_the_loss_is_the_networks_own(name):
    loss = _loss(MEANINGS[name])
    assert loss.shape == (5,)
    torch.testing.assert_close(loss, _mean_square(OUTPUT - TARGETS[name]))
    answered = _loss(MEANINGS[name], TARGETS[name])
    torch.testing.assert_close(answered, torch.zeros_like(answered), rtol=0, atol=1e-20)


@pytest.mark.parametrize("name", MEANINGS)
@pytest.mark.parametrize(
    ("weight", "on_x0"),
    [
        (lambda m: objective.min_snr(5.0, m), SIGMA.pow(-2).clamp(max=5.0)),
        (lambda m: objective.min_snr(0.5, m), SIGMA.pow(-2).clamp(max=0.5)),
        (objective.snr, SIGMA.pow(-2)),
        (lambda m: objective.edm(0.6, m), (SIGMA**2 + 0.36) / (SIGMA * 0.6) ** 2),
    ],
    ids=["min_snr 5", "min_snr 0.5", "snr", "edm"],
)
def test_a_weight_is_that_on_the_x0_error_whatever_the_parameterization(name, weight, on_x0):
    meaning = MEANINGS[name]
    denoiser = Denoiser(lambda x, t, cond: OUTPUT, meaning, SCHEDULE)
    error = denoiser(X0 + ROWS * NOISE, SIGMA, Conditioning()) - X0
    torch.testing.assert_close(_loss(meaning, weight=weight(meaning)), on_x0 * _mean_square(error))


def test_min_snr_is_the_papers_for_each_output():
    # Hang et al. 2023, section 3.4
    snr = SIGMA.pow(-2)
    clipped = snr.clamp(max=5.0)
    for name, expected in {
        "eps": clipped / snr,
        "v": clipped / (snr + 1),
        "x0": clipped,
    }.items():
        torch.testing.assert_close(objective.min_snr(5.0, MEANINGS[name])(SIGMA), expected)


def test_snr_weight_is_the_eps_loss_and_edm_weight_is_one_for_edm():
    one = torch.ones_like(SIGMA)
    torch.testing.assert_close(objective.snr(parameterization.eps)(SIGMA), one)
    torch.testing.assert_close(objective.edm(0.6, MEANINGS["edm"])(SIGMA), one)
    assert torch.equal(objective.uniform(SIGMA), one)


def test_each_image_has_its_own_loss():
    one = _loss(parameterization.v)
    changed = OUTPUT.clone()
    changed[2] += 1
    other = _loss(parameterization.v, changed)
    assert (one != other).tolist() == [False, False, True, False, False]


def test_the_network_sees_the_noised_input_at_its_time():
    seen = {}

    def network(x, t, cond):
        seen.update(x=x, t=t)
        return OUTPUT

    denoiser = Denoiser(network, parameterization.eps, SCHEDULE)
    objective.diffusion_loss(denoiser, X0, Conditioning(), SIGMA, NOISE, objective.uniform)
    torch.testing.assert_close(seen["x"], ALPHA * X0 + ROWS * ALPHA * NOISE)
    assert torch.equal(seen["t"], SCHEDULE.sigma_to_t(SIGMA))


@pytest.mark.parametrize("name", ["v", "x0", "edm"])
def test_losses_stay_finite_and_right_at_zero_terminal_snr(name):
    schedule = DiscreteSchedule.from_betas(rescale_zero_terminal_snr(scaled_linear_betas()))
    sigma = torch.full((5,), schedule.sigma_max)
    x0, noise = X0.float(), NOISE.float()
    answer = {"v": -x0, "x0": x0, "edm": x0 / 0.6}[name]
    denoiser = Denoiser(lambda x, t, cond: answer, MEANINGS[name], schedule)
    loss = objective.diffusion_loss(
        denoiser, x0, Conditioning(), sigma, noise, objective.min_snr(5.0, MEANINGS[name])
    )
    assert loss.isfinite().all()
    unweighted = objective.diffusion_loss(
        denoiser, x0, Conditioning(), sigma, noise, objective.uniform
    )
    assert unweighted.max() < 1e-5


def _draw(law, n=20_000):
    sigma = law(n, torch.Generator().manual_seed(3))
    assert (sigma.shape, sigma.dtype) == ((n,), torch.float32)
    return sigma


def test_uniform_t_takes_every_entry_equally_often():
    t = SCHEDULE.sigma_to_t(_draw(objective.uniform_t(SCHEDULE), 50_000))
    counts = torch.bincount(t.long(), minlength=1000)
    assert torch.equal(t, t.round())
    assert counts.min() > 20
    assert (counts - 50.0).square().mean().item() == pytest.approx(50, rel=0.2)  # multinomial


def test_uniform_time_is_even_in_time():
    schedule = EdmSchedule(0.01, 50.0)
    logs = _draw(objective.uniform_time(schedule)).log()
    low, high = math.log(0.01), math.log(50.0)
    assert logs.min() >= low - 1e-4
    assert logs.max() <= high + 1e-4
    assert logs.mean().item() == pytest.approx((low + high) / 2, abs=0.1)
    assert logs.var().item() == pytest.approx((high - low) ** 2 / 12, rel=0.03)


def test_log_normal_has_its_moments():
    logs = _draw(objective.log_normal(-1.2, 1.2)).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=0.04)
    assert logs.std().item() == pytest.approx(1.2, abs=0.03)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_laws_shift_its_times(shift):
    def shifted(u):  # Esser et al. 2024, eq. 23
        return shift * u / (1 + (shift - 1) * u)

    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(3))
    sigma = _draw(objective.logit_normal(0.3, 0.8, shift))
    torch.testing.assert_close(sigma / (1 + sigma), shifted((0.3 + 0.8 * normal).sigmoid()))

    flow = FlowSchedule(1.0)
    sigma = _draw(objective.uniform_time(flow, shift))
    even = torch.rand(20_000, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        sigma / (1 + sigma), shifted(0.001 + 0.999 * even), rtol=0, atol=1e-5
    )


def test_laws_are_a_function_of_their_generator():
    for law in (objective.uniform_t(SCHEDULE), objective.log_normal()):
        one, two = (law(8, torch.Generator().manual_seed(9)) for _ in range(2))
        assert torch.equal(one, two)
