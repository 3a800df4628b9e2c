"""What distillations ask at the last time where that is noise alone, in closed form: zero SNR."""

import pytest
import torch
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.train.consistency_task import ConsistencyTask, Trio
from safelight.train.distillation import Asked, DistillationConfig, Told
from safelight.train.matching_task import ProgressiveTask
from safelight.train.task import Draws, Task
from safelight.types import Batch, Conditioning

SCHEDULE = DiscreteSchedule.from_betas(rescale_zero_terminal_snr(scaled_linear_betas()))
POINT, OFF = 0.7, 0.1  # all data are one point; the student is off by so much
COND = Conditioning(context=torch.zeros(1, 1, 1))
TOLD = Told(lambda captions: Conditioning.cat([COND] * len(captions)), COND)
DRAWS = Draws(0, 0, 64, 0, 64, torch.device("cpu"))


def teach(x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
    return torch.full_like(x, POINT)


def off(x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
    return torch.full_like(x, POINT + OFF)


def loss_of(task: Task) -> float:
    latents = torch.full((64, 1, 4, 4), POINT)
    (loss,) = task.losses(Batch(("",) * 64, latents=latents), DRAWS)
    return float(loss.total)


def test_the_last_time_is_noise_alone():
    assert SCHEDULE.sigma_max > 1000


def test_lcm_ends_where_the_way_from_noise_alone_ends():
    """With one taught time the teacher goes from t = 999 to t = 0, where z is taken as it is."""
    config = DistillationConfig(times=1, loss="l2")
    task = ConsistencyTask({}, Trio(off, teach, teach), TOLD, SCHEDULE, config, lambda: None)
    last = SCHEDULE.t_to_sigma(torch.zeros(1))
    noise = DRAWS.normal((64, 1, 4, 4), 2)
    z = (POINT + last * noise) * (last**2 + 1).rsqrt()
    wanted = (POINT + OFF - z).square().mean()
    assert loss_of(task) == pytest.approx(float(wanted), rel=1e-3)


def test_tcd_is_wrong_by_what_the_student_is_at_the_place_it_ends():
    config = DistillationConfig("tcd", times=1, loss="l2")
    task = ConsistencyTask({}, Trio(off, teach, teach), TOLD, SCHEDULE, config, lambda: None)
    last = SCHEDULE.t_to_sigma(torch.zeros(1))  # the only place below
    wanted = OFF**2 / (float(last) ** 2 + 1)
    assert loss_of(task) == pytest.approx(wanted, rel=1e-2)


def test_halving_asks_at_noise_alone_for_what_the_teacher_makes_of_it():
    config = DistillationConfig("progressive", 1, teacher_steps=2)
    task = ProgressiveTask({}, off, (teach, teach), TOLD, SCHEDULE, config, 10, lambda: None)
    assert loss_of(task) == pytest.approx(OFF**2, rel=1e-3)


def test_x_jumps_from_noise_alone_without_a_difference_of_large_numbers():
    x = torch.randn(2, 1, 2, 2) * SCHEDULE.sigma_max
    sigma = torch.full((2,), SCHEDULE.sigma_max)
    assert torch.isfinite(per_image((sigma**2 + 1).rsqrt(), x) * x).all()
