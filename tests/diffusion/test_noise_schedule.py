import math

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    EdmSchedule,
    FlowSchedule,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.errors import SafelightError

BETAS = {
    "linear": linear_betas(),
    "scaled_linear": scaled_linear_betas(),
    "squaredcos_cap_v2": cosine_betas(),
}
ZERO_SNR = rescale_zero_terminal_snr(scaled_linear_betas())
SCHEDULES = {
    "log": DiscreteSchedule.from_betas(scaled_linear_betas()),
    "linear": DiscreteSchedule.from_betas(scaled_linear_betas(), "linear"),
    "zero snr": DiscreteSchedule.from_betas(ZERO_SNR),
    "cosine": DiscreteSchedule.from_betas(cosine_betas()),
    "edm": EdmSchedule(0.002, 80.0),
    "flow": FlowSchedule(3.0),
}


@pytest.mark.parametrize("name", BETAS)
def test_betas_are_those_of_diffusers(name):
    start, end = (0.00085, 0.012) if name == "scaled_linear" else (1e-4, 0.02)
    theirs = DDIMScheduler(beta_schedule=name, beta_start=start, beta_end=end)
    torch.testing.assert_close(BETAS[name].float(), theirs.betas, rtol=2e-5, atol=1e-8)
    bar = (1 - BETAS[name]).cumprod(0)
    torch.testing.assert_close(bar.float(), theirs.alphas_cumprod, rtol=2e-4, atol=1e-9)


def test_zero_terminal_snr_is_that_of_diffusers():
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    theirs = EulerDiscreteScheduler(**options, rescale_betas_zero_snr=True)
    ours = DiscreteSchedule.from_betas(ZERO_SNR)
    bar = 1 / (1 + ours.sigmas**2)
    assert ours.sigma_max == pytest.approx(4096, rel=1e-6)
    torch.testing.assert_close(bar.float(), theirs.alphas_cumprod, rtol=1e-3, atol=1e-7)


def test_zero_terminal_snr_moves_the_end_and_keeps_the_start():
    before, after = ((1 - b).cumprod(0) for b in (scaled_linear_betas(), ZERO_SNR))
    assert after[-1] == 0
    assert after[0].item() == pytest.approx(before[0].item(), rel=1e-12)
    # Lin et al. 2023, algorithm 1: an affine map of sqrt(alphas_cumprod)
    slope = after.sqrt().diff() / before.sqrt().diff()
    torch.testing.assert_close(slope, slope[:1].expand_as(slope), rtol=1e-6, atol=0)


@pytest.mark.parametrize("between", ["log", "linear", "nearest"])
@pytest.mark.parametrize("betas", [*BETAS.values(), ZERO_SNR], ids=[*BETAS, "zero snr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sigma_of_the_table_has_exactly_its_integer(betas, between, dtype):
    schedule = DiscreteSchedule.from_betas(betas, between)
    t = torch.arange(len(schedule), dtype=dtype)
    assert torch.equal(schedule.sigma_to_t(schedule.sigmas.to(dtype)), t)
    torch.testing.assert_close(schedule.t_to_sigma(t), schedule.sigmas.to(dtype))


def test_between_entries_t_follows_the_chosen_law():
    table = DiscreteSchedule.from_betas(scaled_linear_betas()).sigmas
    low, high = table[3].item(), table[4].item()
    middle = torch.tensor([(low + high) / 2, math.sqrt(low * high)], dtype=torch.float64)
    laws = {
        between: DiscreteSchedule.from_betas(scaled_linear_betas(), between).sigma_to_t(middle)
        for between in ("log", "linear", "nearest")
    }
    log_fraction = math.log(middle[0].item() / low) / math.log(high / low)
    assert laws["log"].tolist() == pytest.approx([3 + log_fraction, 3.5])
    linear_fraction = (middle[1].item() - low) / (high - low)
    assert laws["linear"].tolist() == pytest.approx([3.5, 3 + linear_fraction])
    assert laws["nearest"][0] == 4


def test_beyond_the_table_t_stays_at_its_end():
    schedule = DiscreteSchedule.from_betas(scaled_linear_betas())
    assert schedule.sigma_to_t(torch.tensor([0.0, 1e-3, 1e3])).tolist() == [0, 0, 999]
    ends = schedule.t_to_sigma(torch.tensor([-1.0, 1200.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([schedule.sigma_min, schedule.sigma_max])


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=40, deadline=None)
@given(fraction=st.floats(0.001, 0.999))
def test_sigma_and_t_invert_each_other(name, fraction):
    schedule = SCHEDULES[name]
    ends = torch.tensor([schedule.sigma_min, schedule.sigma_max], dtype=torch.float64)
    low, high = schedule.sigma_to_t(ends).tolist()
    t = torch.tensor([low + (high - low) * fraction], dtype=torch.float64)
    back = schedule.sigma_to_t(schedule.t_to_sigma(t))
    assert back.item() == pytest.approx(t.item(), abs=2e-4)  # integers within 1e-4 are snapped to


@pytest.mark.parametrize("name", SCHEDULES)
def test_shapes_and_dtypes_are_kept(name):
    sigma = torch.ones(2, 3)
    for f in (SCHEDULES[name].sigma_to_t, SCHEDULES[name].t_to_sigma):
        assert (f(sigma).shape, f(sigma).dtype) == (sigma.shape, sigma.dtype)
        assert f(sigma.double()).dtype == torch.float64


def test_edm_time_is_a_quarter_of_log_sigma():
    assert EdmSchedule().sigma_to_t(torch.tensor([math.e**2])).item() == pytest.approx(0.5)


def test_flow_time_is_the_share_of_noise():
    flow = FlowSchedule(shift=3.0)
    assert flow.sigma_to_t(torch.tensor([1.0, 3.0, flow.sigma_max])).tolist() == [500, 750, 1000]
    assert flow.t_to_sigma(torch.tensor([500.0, 750.0, 1000.0])).tolist() == [1, 3, flow.sigma_max]
    u = 3 * 0.001 / (1 + 2 * 0.001)  # Esser et al. 2024, eq. 23, at 1 / 1000
    assert flow.sigma_min == pytest.approx(u / (1 - u))


@pytest.mark.parametrize("bar", [[0.9], [0.5, 0.9], [0.9, 0.9], [1.0, 0.5], [0.9, -0.1]])
def test_a_table_that_does_not_fall_is_refused(bar):
    with pytest.raises(SafelightError, match="fall strictly"):
        DiscreteSchedule(torch.tensor(bar))


def test_impossible_ranges_are_refused():
    with pytest.raises(SafelightError, match="sigma_min < sigma_max"):
        EdmSchedule(1.0, 1.0)
    with pytest.raises(SafelightError, match="shift"):
        FlowSchedule(0.0)
