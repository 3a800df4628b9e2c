"""Steps as constants, and residual guidance, against the samplers and the formulas."""

import pytest
import torch

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.affine import MEMORYLESS, affine_step
from safelight.diffusion.residual import residual_guided


@pytest.mark.parametrize("sampler", MEMORYLESS)
@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("rescale", [False, True])
def test_the_constants_are_the_samplers_steps(sampler, steps, rescale):
    scheduler = SchedulerConfig(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=rescale,
    ).with_sampler(sampler)
    sigmas = scheduler.sigmas(steps)
    draws = [torch.randn(2, 1, 3, 3, dtype=torch.float64) for _ in range(steps + 1)]

    def denoise(x, sigma):
        return torch.tanh(x / (1 + sigma[:, None, None, None]))

    def noise(_shape, index):
        return draws[index]

    start = draws[0] * scheduler.initial_scale(sigmas)
    whole = scheduler.solver(steps)(denoise, start, sigmas, noise=noise)
    x = start
    for i in range(steps):
        step = affine_step(scheduler.solver(steps, slice(i, i + 1)), sigmas[i : i + 2])
        x0 = denoise(x, sigmas[i].expand(2))
        x = step.of_x0 * x0 + step.of_x * x + step.of_noise * draws[i + 1]
    torch.testing.assert_close(x, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("delta", [1.0, 0.4, 0.0])
def test_residual_guidance_is_that_of_the_noise(delta):
    x0, x, anchor = (torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(3))
    sigma, scale = 3.7, 2.5
    away = delta * (x - anchor) / sigma
    noise = away + scale * ((x - x0) / sigma - away)
    guided = residual_guided(x0, x, anchor, scale, delta)
    torch.testing.assert_close(guided, x - sigma * noise)
