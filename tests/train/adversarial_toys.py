"""Points in the plane in the place of latents, and a network that denoises them."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safelight import rng
from safelight.diffusion import objective
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.objective import diffusion_loss
from safelight.diffusion.parameterization import Parameterization
from safelight.diffusion.sigmas import model_sigmas
from safelight.models.unet import UNetConfig
from safelight.nn.embeddings import sinusoidal
from safelight.train.adversarial_task import AdversarialConfig, AdversarialTask, Judge
from safelight.train.adversarial_views import LatentViewer
from safelight.train.distillation import DistillationConfig, Told, by_teacher
from safelight.train.task import Draws, Phase
from safelight.types import Batch, Conditioning

CPU = torch.device("cpu")
WIDTH = 32


class Plane(nn.Module):
    """Points (b, 2, 1, 1), their time and a word to points, through three hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2 + 32 + 2, WIDTH) for _ in range(1))
        self.layers.extend(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.out = nn.Linear(WIDTH, 2)

    def maps(self, x: Tensor, t: Tensor, cond: Conditioning) -> list[Tensor]:
        assert cond.context is not None
        h = torch.cat([x.flatten(1), sinusoidal(t, 32), cond.context.mean(1)], dim=1)
        maps: list[Tensor] = []
        for layer in self.layers:
            h = F.silu(layer(h))
            maps.append(h[:, :, None, None])
        return maps

    def forward(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return self.out(self.maps(x, t, cond)[-1].flatten(1))[:, :, None, None]


def condition(captions: Sequence[str]) -> Conditioning:
    """Two tokens, a word and its like; the empty one says nothing."""
    words = {"": (0.0, 0.0), "up": (1.0, 0.0), "down": (0.0, 1.0)}
    rows = torch.tensor([words[caption] for caption in captions])
    return Conditioning(context=rows[:, None].expand(-1, 2, -1))


def points(count: int, generator: torch.Generator) -> tuple[tuple[str, ...], Tensor]:
    """Two spots, left and right, above the axis or below it, as the caption says."""
    up = torch.rand(count, generator=generator) < 0.5
    right = torch.rand(count, generator=generator) < 0.5
    middles = torch.stack([torch.where(right, 1.2, -1.2), torch.where(up, 0.7, -0.7)], dim=1)
    spread = 0.1 * torch.randn((count, 2), generator=generator)
    captions = tuple("up" if each else "down" for each in up.tolist())
    return captions, (middles + spread)[:, :, None, None]


def batches(start: int, count: int = 128) -> Iterator[Batch]:
    step = start
    while True:
        captions, latents = points(count, rng.generator_for(5, step))
        yield Batch(captions, latents=latents)
        step += 1


def taught(denoiser: Denoiser, network: Plane, steps: int = 500) -> None:
    """Trains a denoiser of points by the ordinary objective, and freezes it."""
    assert isinstance(denoiser.schedule, DiscreteSchedule)
    sigmas = objective.uniform_t(denoiser.schedule)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step, batch in zip(range(steps), batches(0, 128), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        assert batch.latents is not None
        drawn = draws(step, 128)
        sigma = sigmas(128, drawn.generator(0))
        noise = drawn.normal(batch.latents.shape, 1)
        cond = condition(batch.captions)
        loss = diffusion_loss(denoiser, batch.latents, cond, sigma, noise, objective.uniform)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    network.requires_grad_(False)


def draws(step: int, total: int, first: int = 0, count: int | None = None) -> Draws:
    return Draws(0, step, total, first, total if count is None else count, CPU)


def begun_from(network: Plane) -> Plane:
    """A student: the teacher's weights, to be trained."""
    return copy.deepcopy(network).requires_grad_(True)


@dataclass(frozen=True)
class Play:
    """A teacher, its student, and the task that teaches it."""

    teacher: Denoiser
    student: Denoiser
    task: AdversarialTask
    levels: Tensor


def play(
    parameters: Parameterization,
    schedule: DiscreteSchedule,
    adversarial: AdversarialConfig,
    steps: int = 1,
    lessons: int = 0,
) -> Play:
    """A teacher of points after so many lessons, and a student that begins from it."""
    torch.manual_seed(0)
    network = Plane()
    teacher = Denoiser(network, parameters, schedule)
    if lessons:
        taught(teacher, network, lessons)
    network.requires_grad_(False)
    plane = begun_from(network)
    student = Denoiser(plane, parameters, schedule)
    viewer = LatentViewer(
        teacher,
        network.maps,
        objective.logit_normal(adversarial.mean, adversarial.std),
        [WIDTH] * 3,
        2,
    )
    levels = model_sigmas(schedule, steps)[:-1]
    config = DistillationConfig("adversarial", steps, scale=(1.0, 1.0))
    task = AdversarialTask(
        {"main": Phase({"unet": plane})},
        student,
        Judge(by_teacher(teacher, UNetConfig()), objective.uniform_t(schedule)),
        Told(condition, condition([""])),
        viewer,
        levels,
        (config, adversarial),
    )
    return Play(teacher, student, task, levels)


def distance(a: Tensor, b: Tensor) -> float:
    """The energy distance of two sets of points (n, 2) (Székely and Rizzo 2013, eq. 5)."""
    between = 2 * torch.cdist(a, b).mean()
    return float(between - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())
