"""Noise levels of the user's choice against scipy, diffusers' tables and k-diffusion's laws."""

import math

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import AysSchedules
from scipy import stats

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.beta_distribution import beta_quantiles
from safelight.diffusion.noise_schedule import EdmSchedule, FlowSchedule
from safelight.diffusion.samplers import SAMPLERS
from safelight.diffusion.schedules import (
    SCHEDULES,
    SPACINGS,
    check_sigmas,
    schedule_name,
    schedule_sigmas,
)
from safelight.errors import SafelightError

from .test_scheduler_runs import run_config
from .theirs import ALWAYS, our_schedule

TABLE = our_schedule("log")
LEVELS = TABLE.sigmas.numpy()  # ascending
LAST = len(LEVELS) - 1


def _at(times):
    """Sigma at fractional times, linear in its logarithm."""
    return np.exp(np.interp(times, np.arange(LAST + 1), np.log(LEVELS)))


LAWS = {
    "karras": lambda n: np.linspace(LEVELS[-1] ** (1 / 7), LEVELS[0] ** (1 / 7), n) ** 7,
    "exponential": lambda n: np.geomspace(LEVELS[-1], LEVELS[0], n),
    "normal": lambda n: _at(np.linspace(LAST, 0, n)),
    "sgm_uniform": lambda n: _at(np.linspace(LAST, 0, n + 1)[:-1]),
    "simple": lambda n: np.array([LEVELS[-(1 + int(i * ((LAST + 1) / n)))] for i in range(n)]),
    "beta": lambda n: LEVELS[
        np.rint(stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * LAST).astype(
            int
        )
    ],
}


@pytest.mark.parametrize("steps", [1, 7, 20, 30])
@pytest.mark.parametrize("name", LAWS)
def test_levels_are_those_of_the_published_law(name, steps):
    ours = schedule_sigmas(name, TABLE, steps)
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours[:-1].numpy(), LAWS[name](steps), rtol=1e-9)
    assert ours[-1] == 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 100, 1000])
def test_levels_fall_to_0_however_many(name, steps):
    sigmas = schedule_sigmas(name, TABLE, steps)
    assert len(sigmas) == steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_beta_quantiles_are_scipys():
    shares = torch.cat([torch.linspace(0, 1, 201), torch.tensor([1e-9, 1 - 1e-9])]).double()
    wanted = stats.beta.ppf(shares.numpy(), 0.6, 0.6)
    np.testing.assert_allclose(beta_quantiles(shares).numpy(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("ays", "StableDiffusionSigmas"),
        ("ays_sdxl", "StableDiffusionXLSigmas"),
        ("ays_svd", "StableDiffusionVideoSigmas"),
    ],
)
def test_steps_are_aligned_as_published(name, theirs):
    ten = schedule_sigmas(name, TABLE, 10)
    np.testing.assert_allclose(ten.numpy(), AysSchedules[theirs], rtol=1e-12)
    twenty = schedule_sigmas(name, TABLE, 20)
    torch.testing.assert_close(twenty[:-1:2], ten[:-1])
    between = (ten[0] * ten[1]).sqrt()  # linear in log sigma
    assert twenty[1] == pytest.approx(between.item())


@pytest.mark.parametrize("name", ["normal", "sgm_uniform", "simple", "beta"])
def test_a_flows_levels_are_laid_out_over_its_times(name):
    flow = FlowSchedule(3.0)
    sigmas = schedule_sigmas(name, flow, 10)
    assert sigmas[0] == flow.sigma_max
    assert (sigmas.diff() < 0).all()
    u = sigmas[1:-1] / 3 / (1 + sigmas[1:-1] / 3)  # before the shift
    if name == "simple":
        np.testing.assert_allclose(u.numpy(), np.linspace(0.9, 0.1, 9))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("karras", FlowSchedule()),
        ("ays", FlowSchedule()),
        ("simple", EdmSchedule()),
        ("beta", EdmSchedule()),
    ],
)
def test_a_schedule_that_does_not_fit_is_one_line(name, schedule):
    with pytest.raises(SafelightError, match=f"{name} does not go with this model's"):
        schedule_sigmas(name, schedule, 10)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "sgm_uniform"),
        ("SGMUniform", "sgm_uniform"),
        ("Align Your Steps", "ays"),
        ("Simple", "simple"),
        ("trailing", "trailing"),
    ],
)
def test_other_programs_spellings_are_read(spelling, name):
    assert schedule_name(spelling) == name


def test_an_unknown_schedule_names_the_near_ones():
    with pytest.raises(SafelightError, match=r"Unknown schedule 'karas'\. Did you mean 'karras'"):
        schedule_name("karas")


@pytest.mark.parametrize(
    "sigmas", [(), (3.0,), (1.0, 2.0), (1.0, 1.0), (2.0, -0.1), (math.inf, 0.0), (math.nan, 0.0)]
)
def test_sigmas_that_do_not_fall_are_one_line(sigmas):
    with pytest.raises(SafelightError, match="sigmas should be two or more numbers that fall"):
        check_sigmas(sigmas)


def test_a_schedule_beside_a_sampler():
    config = SchedulerConfig(use_karras_sigmas=True, timestep_spacing="leading")
    chosen = config.with_sampler("euler").with_levels("exponential")
    assert torch.equal(chosen.sigmas(9), schedule_sigmas("exponential", TABLE, 9))
    for spacing in SPACINGS:
        plain = SchedulerConfig(timestep_spacing=spacing).with_sampler("heun")
        assert torch.equal(
            config.with_sampler("heun").with_levels(spacing).sigmas(9), plain.sigmas(9)
        )
    own = config.with_sampler("ddim").with_levels(sigmas=(9.0, 2.0, 0.5, 0.0))
    assert own.sigmas(3).tolist() == [9.0, 2.0, 0.5, 0.0]
    with pytest.raises(SafelightError, match="4 sigmas make 3 steps, not 5; leave the steps out"):
        own.sigmas(5)
    with pytest.raises(SafelightError, match="a schedule or sigmas, not both"):
        config.with_levels("karras", (1.0, 0.0))
    with pytest.raises(SafelightError, match=r"on a table of betas .* unlike lcm"):
        config.with_sampler("lcm").with_levels("trailing")


@pytest.mark.parametrize("curve", ["karras", "exponential", "beta"])
def test_a_model_that_asks_for_a_curve_is_laid_out_as_by_diffusers(curve):
    theirs = EulerDiscreteScheduler(**ALWAYS, **{f"use_{curve}_sigmas": True})
    theirs.set_timesteps(13)
    ours = SchedulerConfig(**{f"use_{curve}_sigmas": True}).with_sampler("euler").sigmas(13)
    torch.testing.assert_close(ours.float(), theirs.sigmas, rtol=1e-4, atol=0)


ZERO_SNR = SchedulerConfig(
    prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
)


@pytest.mark.parametrize("schedule", [None, "sgm_uniform"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_zero_terminal_snr_leaves_no_hole(sampler, schedule):
    config = ZERO_SNR.with_sampler(sampler).with_levels(schedule)
    seen = []
    x = run_config(config, 5, lambda step, sigma, x, denoised: seen.append(x))
    assert config.sigmas(5)[0] >= 4095
    assert all(each.isfinite().all() for each in seen)
    assert 0.3 < x.std() < 0.9  # of the ODE it is 0.48
