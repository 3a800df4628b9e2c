"""Full runs of diffusers' schedulers, as its pipelines drive them, and of our samplers."""

import inspect

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    Between,
    DiscreteSchedule,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import by_name
from safelight.rng import SeededNoise
from safelight.types import Conditioning

CLASSES = {
    "ddim": DDIMScheduler,
    "plms": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}
ALWAYS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
OWN = {"ddim": {"clip_sample": False}, "plms": {"skip_prk_steps": True}}
UNIT_VARIANCE = ("ddim", "plms", "dpmpp_2m")  # diffusers' x is ours over sqrt(1 + sigma^2)
SHAPE = (2, 3, 4, 4)
SEEDS = (5, 6)


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in that feels the input's every digit, its neighbours, and the time's fraction
    as a sinusoidal embedding does.
    """
    time = t.to(x.dtype).reshape(-1, 1, 1, 1)
    wave = torch.sin(time) + torch.cos(time / 150)
    return 0.6 * x + 0.4 * torch.tanh(2 * x.roll(1, 1) + x.roll(1, 3) + 0.3 * wave) + 0.1 * wave


def their_scheduler(sampler: str, **options):
    return CLASSES[sampler](**{**ALWAYS, **OWN.get(sampler, {}), **options})


def their_run(scheduler, steps: int, **step_options) -> Tensor:
    """What the pipelines' loop gives, with one generator per image."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    x = torch.cat([torch.randn((1, *SHAPE[1:]), generator=g) for g in generators])
    scheduler.set_timesteps(steps)
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)  # a flow's class has none
    if "generator" in inspect.signature(scheduler.step).parameters:
        step_options["generator"] = generators
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = network(seen, t.expand(len(x)))
        x = scheduler.step(output, t, x, **step_options, return_dict=False)[0]
    return x


def our_schedule(between: Between) -> DiscreteSchedule:
    return DiscreteSchedule.from_betas(scaled_linear_betas(), between)


def our_run(
    sample, schedule: DiscreteSchedule, sigmas: Tensor, prediction: str, *, start: float, **options
) -> Tensor:
    denoiser = Denoiser(lambda x, t, cond: network(x, t), by_name(prediction), schedule)
    noise = SeededNoise(SEEDS)
    return sample(
        lambda x, sigma: denoiser(x, sigma, Conditioning()),
        noise(SHAPE, 0) * start,
        sigmas,
        noise=noise,
        **options,
    )
