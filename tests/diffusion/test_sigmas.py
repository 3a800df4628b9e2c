"""Layouts of noise levels against diffusers' `set_timesteps`."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.diffusion.noise_schedule import FlowSchedule
from safelight.diffusion.sigmas import (
    ddim_landings,
    exponential_sigmas,
    flow_sigmas,
    karras_sigmas,
    model_sigmas,
)
from safelight.errors import SafelightError

from .theirs import our_schedule, their_scheduler

SCHEDULE = our_schedule("linear")


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_times_and_levels_are_those_of_diffusers(sampler, spacing):
    theirs = their_scheduler(sampler, timestep_spacing=spacing, steps_offset=1)
    for steps in [*range(1, 70), 96, 112, 144, 250, 333, 500, 998]:
        theirs.set_timesteps(steps)
        if len(theirs.timesteps) > steps:  # at 61 trailing steps diffusers adds a time of -1
            continue
        ours = model_sigmas(
            SCHEDULE,
            steps,
            spacing,
            steps_offset=1,
            whole_times=sampler != "euler",
            end_included=sampler == "dpmpp_2m",
        )
        assert ours.dtype == torch.float64
        assert ours[-1] == 0
        times = SCHEDULE.sigma_to_t(ours[:-1]).float()
        torch.testing.assert_close(times, theirs.timesteps.float(), rtol=0, atol=2e-4)
        if sampler != "ddim":
            torch.testing.assert_close(ours.float(), theirs.sigmas, rtol=1e-4, atol=0)


def test_61_trailing_steps_stay_61():
    sigmas = model_sigmas(SCHEDULE, 61, "trailing")
    assert len(sigmas) == 62
    assert SCHEDULE.sigma_to_t(sigmas[[0, -2]]).tolist() == [999, 15]


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 999), spacing=st.sampled_from(["leading", "trailing", "linspace"]))
def test_levels_fall_strictly_from_within_the_table(steps, spacing):
    sigmas = model_sigmas(SCHEDULE, steps, spacing)
    assert len(sigmas) == steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] <= SCHEDULE.sigma_max * (1 + 1e-12)
    assert sigmas[-2] >= SCHEDULE.sigma_min * (1 - 1e-12)


@pytest.mark.parametrize(
    ("steps", "spacing", "even"),
    [
        (30, "leading", True),
        (40, "trailing", True),
        (30, "trailing", False),
        (20, "linspace", False),
    ],
)
def test_ddim_lands_on_the_next_level_where_times_are_even(steps, spacing, even):
    final = SCHEDULE.sigma_min
    landings = ddim_landings(SCHEDULE, steps, spacing, final_sigma=final)
    following = model_sigmas(SCHEDULE, steps, spacing, final_sigma=final)[1:]
    assert torch.equal(landings, following) == even
    assert landings[-1] == final


@pytest.mark.parametrize("law", [karras_sigmas, exponential_sigmas])
def test_curves_keep_their_ends(law):
    sigmas = law(12, 0.03, 14.6, final_sigma=0.01)
    assert sigmas[[0, -2, -1]].tolist() == pytest.approx([14.6, 0.03, 0.01])
    assert law(1, 0.03, 14.6).tolist() == pytest.approx([14.6, 0])


def test_curves_are_even_in_their_own_measure():
    karras = karras_sigmas(12, 0.03, 14.6)[:-1] ** (1 / 7)
    exponential = exponential_sigmas(12, 0.03, 14.6)[:-1].log()
    for measure in (karras, exponential):
        torch.testing.assert_close(measure.diff(), measure.diff()[:1].expand(11))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_are_those_of_diffusers(shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(28)
    schedule = FlowSchedule(shift)
    sigmas = flow_sigmas(schedule, 28)
    u = (sigmas / (1 + sigmas)).float()
    torch.testing.assert_close(u, theirs.sigmas)
    torch.testing.assert_close(schedule.sigma_to_t(sigmas[:-1]).float(), theirs.timesteps)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_step_counts_are_one_line(steps):
    with pytest.raises(SafelightError, match=f"Expected 1 to 1000 steps, got {steps}"):
        model_sigmas(SCHEDULE, steps, "trailing")


def test_steps_beyond_the_last_time_are_refused():
    with pytest.raises(SafelightError, match="take fewer steps"):
        model_sigmas(SCHEDULE, 1000, "leading", steps_offset=1)
    with pytest.raises(SafelightError, match="at least 1 step"):
        karras_sigmas(0, 0.1, 1.0)
    every = model_sigmas(SCHEDULE, 1000, "leading")
    np.testing.assert_allclose(every[:-1].flip(0), SCHEDULE.sigmas)
