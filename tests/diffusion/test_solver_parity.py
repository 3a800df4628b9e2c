"""Each sampler against diffusers' scheduler over full runs, seed by seed."""

import math

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import FlowSchedule
from safelight.diffusion.parameterization import flow
from safelight.diffusion.samplers import SAMPLERS
from safelight.diffusion.sigmas import (
    ddim_landings,
    exponential_sigmas,
    flow_sigmas,
    karras_sigmas,
    model_sigmas,
    pndm_calls,
)
from safelight.rng import SeededNoise
from safelight.types import Conditioning

from .theirs import (
    SEEDS,
    SHAPE,
    UNIT_VARIANCE,
    network,
    our_run,
    our_schedule,
    their_run,
    their_scheduler,
)

SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction"]


def _agree(ours, theirs, sigmas, sampler):
    if sampler in UNIT_VARIANCE:
        ours = ours / math.sqrt(1 + sigmas[-1].item() ** 2)
    scale = theirs.abs().max()
    assert 0.3 < scale < 30
    assert (ours - theirs).abs().max() <= 1e-4 * scale


def _start(sigmas, sampler, spacing):
    top = sigmas[0].item()
    padded = sampler in UNIT_VARIANCE or spacing == "leading"
    return math.sqrt(1 + top**2) if padded else top


def _compare(sampler, steps, spacing, prediction, *, offset=1, final="zero", **theirs):
    fractional = sampler in ("euler", "euler_a", "heun")
    schedule = our_schedule("linear" if fractional else "log")
    final_sigma = 0.0 if final == "zero" else schedule.sigma_min
    sigmas = model_sigmas(
        schedule,
        steps,
        spacing,
        steps_offset=offset,
        final_sigma=final_sigma,
        whole_times=not fractional,
        end_included=sampler == "dpmpp_2m",
    )
    options = {}
    if sampler == "ddim":
        options["landings"] = ddim_landings(
            schedule, steps, spacing, steps_offset=offset, final_sigma=final_sigma
        )
        theirs["set_alpha_to_one"] = final == "zero"
    elif sampler == "plms":
        options["calls"] = pndm_calls(
            schedule, steps, spacing, steps_offset=offset, final_sigma=final_sigma
        )
        options["velocity"] = prediction == "v_prediction"
        theirs["set_alpha_to_one"] = final == "zero"
    elif final != "zero":
        theirs["final_sigmas_type"] = final
    scheduler = their_scheduler(
        sampler,
        timestep_spacing=spacing,
        steps_offset=offset,
        prediction_type=prediction,
        **theirs,
    )
    start = _start(sigmas, sampler, spacing)
    ours = our_run(SAMPLERS[sampler], schedule, sigmas, prediction, start=start, **options)
    _agree(ours, their_run(scheduler, steps), sigmas, sampler)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "euler_a", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [30, 50])  # 30 does not divide the 1000 times
def test_a_run_agrees(sampler, steps, spacing, prediction):
    _compare(sampler, steps, spacing, prediction)


def test_plms_by_levels_alone_is_diffusers_where_times_are_even():
    schedule = our_schedule("log")
    sigmas = model_sigmas(schedule, 20, "leading", steps_offset=1)
    rows = pndm_calls(schedule, 20, "leading", steps_offset=1)
    start = _start(sigmas, "plms", "leading")
    alone, told = (
        our_run(SAMPLERS["plms"], schedule, sigmas, "epsilon", start=start, calls=calls)
        for calls in (None, rows)
    )
    assert (alone - told).abs().max() <= 1e-5 * told.abs().max()


@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "euler_a", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_agree(sampler, steps):
    spacing = "trailing" if 1000 % steps == 0 else "leading"
    _compare(sampler, steps, spacing, "epsilon", offset=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [10, 14, 15, 20])  # 15 is where lower_order_final ends
@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "dpmpp_2m"])
def test_a_run_that_stops_above_zero_agrees(sampler, steps, prediction):
    _compare(sampler, steps, "leading", prediction, final="sigma_min")


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "dpmpp_2m"])
def test_offsets_agree(sampler, offset):
    _compare(sampler, 25, "leading", "epsilon", offset=offset)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_with_fresh_noise_draws_in_diffusers_order(eta, prediction):
    schedule = our_schedule("log")
    sigmas = model_sigmas(schedule, 25, "leading", steps_offset=1)
    start = _start(sigmas, "ddim", "leading")
    ours = our_run(SAMPLERS["ddim"], schedule, sigmas, prediction, start=start, eta=eta)
    scheduler = their_scheduler(
        "ddim", timestep_spacing="leading", steps_offset=1, prediction_type=prediction
    )
    _agree(ours, their_run(scheduler, 25, eta=eta), sigmas, "ddim")


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("curve", ["karras", "exponential"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_curved_levels_agree(sampler, curve, prediction):
    schedule = our_schedule("log")
    even = model_sigmas(our_schedule("linear"), 25, "linspace", whole_times=False)
    law = karras_sigmas if curve == "karras" else exponential_sigmas
    sigmas = law(25, even[-2].item(), even[0].item())
    scheduler = their_scheduler(
        sampler, prediction_type=prediction, **{f"use_{curve}_sigmas": True}
    )
    start = _start(sigmas, sampler, "linspace")
    ours = our_run(SAMPLERS[sampler], schedule, sigmas, prediction, start=start)
    _agree(ours, their_run(scheduler, 25), sigmas, sampler)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_dpm_solver_on_karras_levels_agrees(final, prediction):
    schedule = our_schedule("nearest")  # its network sees whole times only
    low = schedule.sigma_min
    sigmas = karras_sigmas(25, low, schedule.sigma_max, final_sigma=0.0 if final == "zero" else low)
    scheduler = their_scheduler(
        "dpmpp_2m", use_karras_sigmas=True, prediction_type=prediction, final_sigmas_type=final
    )
    start = _start(sigmas, "dpmpp_2m", "linspace")
    ours = our_run(SAMPLERS["dpmpp_2m"], schedule, sigmas, prediction, start=start)
    _agree(ours, their_run(scheduler, 25), sigmas, "dpmpp_2m")


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 28])
def test_flow_matching_agrees(shift, steps):
    schedule, noise = FlowSchedule(shift), SeededNoise(SEEDS)
    sigmas = flow_sigmas(schedule, steps)
    denoiser = Denoiser(lambda x, t, cond: network(x, t), flow, schedule)
    ours = SAMPLERS["euler"](
        lambda x, sigma: denoiser(x, sigma, Conditioning()),
        noise(SHAPE, 0) * (1 + sigmas[0].item()),
        sigmas,
        noise=noise,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    theirs = noise(SHAPE, 0)
    for t in scheduler.timesteps:
        velocity = network(theirs, t.expand(len(theirs)))
        theirs = scheduler.step(velocity, t, theirs, return_dict=False)[0]
    _agree(ours, theirs, sigmas, "euler")
