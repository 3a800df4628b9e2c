"""Noise levels, times and scales against diffusers' scheduler classes, in every layout."""

import warnings

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

from safelight.checkpoints.scheduler_files import scheduler_from_diffusers, scheduler_to_diffusers

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
SVD = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
CLASSES = {
    DDIMScheduler: {"clip_sample": False},
    PNDMScheduler: {"skip_prk_steps": True},
    EulerDiscreteScheduler: {},
    EulerAncestralDiscreteScheduler: {},
    HeunDiscreteScheduler: {},
    DPMSolverMultistepScheduler: {},
}
LAYOUTS = [
    (cls, options | SD | {"timestep_spacing": spacing})
    for cls, options in CLASSES.items()
    for spacing in ("leading", "trailing", "linspace")
] + [
    (DDIMScheduler, SD | {"clip_sample": False, "set_alpha_to_one": False}),
    (DDIMScheduler, SD | {"clip_sample": False, "timestep_spacing": "trailing"} | ZERO),
    (EulerDiscreteScheduler, SD | {"use_karras_sigmas": True}),
    (EulerDiscreteScheduler, SD | {"use_exponential_sigmas": True}),
    (EulerDiscreteScheduler, SD | SVD),
    (EulerDiscreteScheduler, SD | {"final_sigmas_type": "sigma_min"}),
    (EulerDiscreteScheduler, SD | {"timestep_spacing": "trailing"} | ZERO),
    (EulerDiscreteScheduler, {"beta_schedule": "linear", "beta_end": 0.015}),
    (EulerDiscreteScheduler, {"beta_schedule": "squaredcos_cap_v2"}),
    (EulerDiscreteScheduler, {"trained_betas": [0.001 * i for i in range(1, 101)]}),
    (HeunDiscreteScheduler, SD | {"use_karras_sigmas": True}),
    (DPMSolverMultistepScheduler, SD | {"use_karras_sigmas": True}),
    (DPMSolverMultistepScheduler, SD | {"final_sigmas_type": "sigma_min"}),
    (DPMSolverMultistepScheduler, SD | {"timestep_spacing": "trailing"} | ZERO),
]


def _once(scheduler, values):
    """Without the repetitions for a second call at one noise level."""
    repeats = isinstance(scheduler, (HeunDiscreteScheduler, PNDMScheduler))
    listed = list(dict.fromkeys(values.tolist())) if repeats else values.tolist()
    return torch.tensor(listed, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 20, 50])
@pytest.mark.parametrize(
    ("cls", "options"), LAYOUTS, ids=[f"{c.__name__}-{i}" for i, (c, _) in enumerate(LAYOUTS)]
)
def test_levels_times_and_scales_agree(cls, options, steps):
    if options.get("trained_betas"):
        options = options | {"num_train_timesteps": 100}
    theirs = cls(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.set_timesteps(steps)
    ours = scheduler_from_diffusers(dict(theirs.config) | {"_class_name": cls.__name__})
    schedule, sigmas = ours.schedule(), ours.sigmas(steps)

    times = _once(theirs, theirs.timesteps)
    torch.testing.assert_close(schedule.sigma_to_t(sigmas[:-1]), times, rtol=0, atol=0.02)
    if hasattr(theirs, "sigmas"):
        wanted = _once(theirs, theirs.sigmas)
    else:
        bar = theirs.alphas_cumprod.double().clamp(min=2**-40)[times.long()]
        last = theirs.final_alpha_cumprod.double()[None]
        wanted = torch.cat([((1 - bar) / bar).sqrt(), ((1 - last) / last).sqrt()])
    torch.testing.assert_close(sigmas, wanted, rtol=5e-4, atol=1e-6)
    unit_variance = theirs.init_noise_sigma == 1
    start = (sigmas[0] ** 2 + 1).sqrt().item() if unit_variance else float(theirs.init_noise_sigma)
    assert ours.initial_scale(sigmas) == pytest.approx(start, rel=5e-4)


@pytest.mark.parametrize(
    ("cls", "more"), [*((cls, {}) for cls in CLASSES), (EulerDiscreteScheduler, SVD)]
)
def test_diffusers_reads_what_is_written(cls, more):
    options = SD | CLASSES[cls] | {"timestep_spacing": "trailing"} | more
    theirs = cls(**options)
    ours = scheduler_from_diffusers(dict(theirs.config) | {"_class_name": cls.__name__})
    written = scheduler_to_diffusers(ours)
    again, unused = cls.from_config(written, return_unused_kwargs=True)
    assert not {key for key in unused if not key.startswith("_")}
    kept = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    assert {key: again.config[key] for key in kept} == kept


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize("source", CLASSES)
def test_changing_the_sampler_is_what_from_config_does(source, target):
    first = source(**(SD | CLASSES[source]))
    second = target.from_config(first.config, **CLASSES[target])
    ours = scheduler_from_diffusers(
        {key: first.config[key] for key in first.config if key not in _defaulted(first)}
        | {"_class_name": source.__name__}
    )
    name = scheduler_from_diffusers({"_class_name": target.__name__} | CLASSES[target]).sampler
    ours = ours.with_sampler(name)
    second.set_timesteps(10)
    times = ours.schedule().sigma_to_t(ours.sigmas(10)[:-1])
    torch.testing.assert_close(times, _once(second, second.timesteps), rtol=0, atol=0.02)


def _defaulted(scheduler):
    return {*scheduler.config["_use_default_values"], "_use_default_values"}
