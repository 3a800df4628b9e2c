"""Parameterizations and the denoiser: what a network's output means."""

import pytest
import torch

from safelight.diffusion import parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    FlowSchedule,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.errors import SafelightError
from safelight.types import Conditioning

SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())
SHAPE = (5, 2, 3, 3)


def _draws(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(SHAPE, generator=generator, dtype=dtype) for _ in range(2))
    return x0, noise, torch.tensor([0.03, 0.4, 1.0, 5.0, 14.0], dtype=dtype)


def _oracles(x0, noise, sigma):
    """What each network would say if it knew the answer."""
    s = sigma[:, None, None, None]
    alpha = (1 + s**2) ** -0.5
    data = 0.7
    edm_target = (x0 - data**2 / (s**2 + data**2) * (x0 + s * noise)) / (
        s * data / (s**2 + data**2) ** 0.5
    )
    return {
        "eps": (parameterization.eps, noise),
        "v": (parameterization.v, alpha * noise - s * alpha * x0),
        "x0": (parameterization.x0, x0),
        "flow": (parameterization.flow, noise - x0),
        "edm": (parameterization.edm(data), edm_target),
    }


@pytest.mark.parametrize("name", ["eps", "v", "x0", "flow", "edm"])
def test_a_network_that_knows_the_answer_gives_x0(name):
    x0, noise, sigma = _draws()
    meaning, answer = _oracles(x0, noise, sigma)[name]
    denoiser = Denoiser(lambda x, t, cond: answer, meaning, SCHEDULE)
    x = x0 + sigma[:, None, None, None] * noise
    torch.testing.assert_close(denoiser(x, sigma, Conditioning()), x0)


@pytest.mark.parametrize(
    ("name", "variance"), [("eps", 1.0), ("v", 1.0), ("x0", 1.0), ("edm", 0.7), ("flow", None)]
)
def test_the_network_sees_its_own_input_and_time(name, variance):
    x0, noise, sigma = _draws()
    meaning, answer = _oracles(x0, noise, sigma)[name]
    schedule = FlowSchedule() if name == "flow" else SCHEDULE
    seen = {}

    def network(x, t, cond):
        seen.update(x=x, t=t, cond=cond)
        return answer

    cond = Conditioning(vector=torch.ones(5, 2))
    Denoiser(network, meaning, schedule)(x0 + sigma[:, None, None, None] * noise, sigma, cond)
    s = sigma[:, None, None, None]
    if name == "flow":
        u = s / (1 + s)
        expected = (1 - u) * x0 + u * noise
    else:
        expected = (x0 + s * noise) / (variance**2 + s**2) ** 0.5
    torch.testing.assert_close(seen["x"], expected)
    assert torch.equal(seen["t"], schedule.sigma_to_t(sigma))
    assert seen["cond"] is cond


def test_edm_keeps_unit_variance_of_input_and_target():
    # Karras et al. 2022, appendix B.6: what the scalings are made for
    data, sigma = 0.6, torch.tensor([0.01, 0.3, 2.0, 60.0], dtype=torch.float64)
    s = parameterization.edm(data)(sigma)
    torch.testing.assert_close(s.c_in**2 * (data**2 + sigma**2), torch.ones_like(sigma))
    variance = ((1 - s.c_skip) ** 2 * data**2 + s.c_skip**2 * sigma**2) / s.c_out**2
    torch.testing.assert_close(variance, torch.ones_like(sigma))


def test_v_at_zero_terminal_snr_is_minus_x0():
    schedule = DiscreteSchedule.from_betas(rescale_zero_terminal_snr(scaled_linear_betas()))
    x0, noise, _ = _draws(torch.float32)
    sigma = torch.full((5,), schedule.sigma_max)
    denoiser = Denoiser(lambda x, t, cond: -x0, parameterization.v, schedule)
    denoised = denoiser(x0 + sigma[:, None, None, None] * noise, sigma, Conditioning())
    torch.testing.assert_close(denoised, x0, atol=2e-3, rtol=0)


def test_only_the_network_runs_in_low_precision():
    layer = torch.nn.Conv2d(2, 2, 1)
    seen = []

    def network(x, t, cond):
        seen.append((x.dtype, t.dtype, layer(x).dtype))
        return layer(x)

    x0, noise, sigma = _draws(torch.float32)
    x = x0 + sigma[:, None, None, None] * noise
    half = Denoiser(network, parameterization.eps, SCHEDULE, torch.bfloat16)(
        x, sigma, Conditioning()
    )
    full = Denoiser(network, parameterization.eps, SCHEDULE)(x, sigma, Conditioning())
    assert half.dtype == full.dtype == torch.float32
    assert seen == [
        (torch.float32, torch.float32, torch.bfloat16),
        (torch.float32, torch.float32, torch.float32),
    ]
    assert not torch.equal(half, full)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("epsilon", parameterization.eps),
        ("v_prediction", parameterization.v),
        ("sample", parameterization.x0),
        ("flow_prediction", parameterization.flow),
    ],
)
def test_names_are_those_of_diffusers(name, meaning):
    assert parameterization.by_name(name) is meaning


def test_an_unknown_name_says_the_near_ones():
    with pytest.raises(SafelightError, match="Did you mean 'v_prediction'"):
        parameterization.by_name("v_predicton")
