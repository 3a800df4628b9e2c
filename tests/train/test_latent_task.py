import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from safelight import rng
from safelight.diffusion import objective, parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    EdmSchedule,
    FlowSchedule,
    NoiseSchedule,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import Parameterization
from safelight.errors import SafelightError
from safelight.train.latent_task import (
    LatentObjective,
    LatentTask,
    ObjectiveConfig,
    latent_objective,
)
from safelight.train.loop import LoopConfig, train
from safelight.train.optim import OptimConfig
from safelight.train.task import Draws
from safelight.types import Batch, Conditioning

CPU = torch.device("cpu")
SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())


class Painter(nn.Module):
    """Adds to x a colour that it learns for each word, by how noisy x is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(3, 8)
        self.mix = nn.Sequential(nn.Linear(9, 32), nn.SiLU(), nn.Linear(32, 6))

    def condition(self, captions: Sequence[str]) -> Conditioning:
        index = torch.tensor([["", "dark", "light"].index(caption) for caption in captions])
        return Conditioning(context=self.words(index)[:, None])

    def forward(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        assert cond.context is not None
        inputs = torch.cat([cond.context[:, 0], t[:, None].float() / 1000], dim=1)
        gain, colour = self.mix(inputs)[:, :, None, None].chunk(2, dim=1)  # (b, 3, 1, 1) each
        return gain * x + colour


def batches(start: int) -> Iterator[Batch]:
    """Latents that the caption tells: -1 is dark, 1 is light."""
    step = start
    while True:
        light = torch.rand(16, generator=rng.generator_for(7, step)) < 0.5
        latents = torch.where(light, 1.0, -1.0)[:, None, None, None].expand(-1, 3, 4, 4)
        captions = tuple("light" if each else "dark" for each in light.tolist())
        yield Batch(captions, latents=latents.contiguous())
        step += 1


def draws(step: int, total: int, first: int = 0, count: int | None = None) -> Draws:
    return Draws(0, step, total, first, total if count is None else count, CPU)


def make(
    parameters: Parameterization = parameterization.v,
    schedule: NoiseSchedule = SCHEDULE,
    config: ObjectiveConfig | None = None,
) -> tuple[Painter, Denoiser, LatentTask]:
    torch.manual_seed(0)
    painter = Painter()
    denoiser = Denoiser(painter, parameters, schedule)
    wanted = latent_objective(config or ObjectiveConfig(), denoiser)
    return painter, denoiser, LatentTask({"unet": painter}, denoiser, painter.condition, wanted)


@pytest.mark.parametrize(
    ("parameters", "schedule", "config"),
    [
        (parameterization.eps, SCHEDULE, ObjectiveConfig(weight="min_snr")),
        (parameterization.v, SCHEDULE, ObjectiveConfig()),
        (parameterization.x0, SCHEDULE, ObjectiveConfig(weight="min_snr")),
        (parameterization.edm(0.5), EdmSchedule(), ObjectiveConfig("log_normal", -1.2, 1.2, "edm")),
        (parameterization.flow, FlowSchedule(), ObjectiveConfig("logit_normal")),
    ],
    ids=["eps", "v", "x0", "edm", "flow"],
)
def test_every_objective_learns_what_captions_mean(
    tmp_path: Path, parameters: Parameterization, schedule: NoiseSchedule, config: ObjectiveConfig
):
    _, denoiser, task = make(parameters, schedule, config)
    loop = LoopConfig(steps=120, batch_size=16, preview_every=0, tensorboard=False, save_every=0)
    optim = OptimConfig(lr=2e-2, warmup=10, precision="float32")
    train(task, batches, loop, optim, tmp_path, device=CPU)
    x = torch.zeros(3, 3, 4, 4)  # noise of the very middle tells nothing
    sigma = torch.full((3,), 3.0)
    network = denoiser.network
    assert isinstance(network, Painter)
    with torch.no_grad():
        means = denoiser(x, sigma, network.condition(["dark", "", "light"])).mean(dim=(1, 2, 3))
    dark, null, light = means.tolist()
    assert dark == pytest.approx(-1, abs=0.4)
    assert light == pytest.approx(1, abs=0.4)
    assert dark + 0.4 < null < light - 0.4  # the dropped captions have taught the null


def test_captions_are_dropped_at_their_rate_and_alike_in_parts():
    seen: list[str] = []

    def condition(captions: Sequence[str]) -> Conditioning:
        seen.extend(captions)
        return Conditioning(context=torch.zeros(len(captions), 1, 8))

    painter, denoiser, _ = make()
    task = LatentTask(
        {"unet": painter},
        denoiser,
        condition,
        LatentObjective(objective.uniform_t(SCHEDULE), objective.uniform, caption_dropout=0.1),
    )
    latents = torch.zeros(1000, 3, 1, 1)
    captions = tuple(f"caption {i}" for i in range(1000))
    list(task.losses(Batch(captions, latents=latents), draws(0, 1000)))
    whole = seen.copy()
    assert 70 <= whole.count("") <= 130
    assert all(a in ("", b) for a, b in zip(whole, captions, strict=True))
    seen.clear()
    for first in (0, 600):
        rows = slice(first, first + 600)
        part = Batch(captions[rows], latents=latents[rows])
        list(task.losses(part, draws(0, 1000, first, len(part.captions))))
    assert seen == whole


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    _, _, task = make()
    batch = next(batches(0))
    (whole,) = task.losses(batch, draws(3, 16))
    total = 0.0
    for first, count in ((0, 6), (6, 6), (12, 4)):
        rows = slice(first, first + count)
        assert batch.latents is not None
        part = Batch(batch.captions[rows], latents=batch.latents[rows])
        (loss,) = task.losses(part, draws(3, 16, first, count))
        total += float(loss.total.detach()) * count / 16
    assert total == pytest.approx(float(whole.total.detach()), rel=1e-5)


def test_draws_are_a_function_of_seed_step_and_stream():
    one = draws(1, 4).normal((4, 2), 0)
    assert torch.equal(one, draws(1, 4).normal((4, 2), 0))
    assert torch.equal(one[1:3], draws(1, 4, 1, 2).normal((2, 2), 0))
    for other in (draws(2, 4).normal((4, 2), 0), draws(1, 4).normal((4, 2), 1)):
        assert not torch.equal(one, other)


def test_mistakes_are_named():
    with pytest.raises(SafelightError, match=r"caption_dropout.*1\.5"):
        ObjectiveConfig(caption_dropout=1.5)
    for name, value in (("std", 0.0), ("gamma", -1.0), ("sigma_data", math.inf)):
        with pytest.raises(SafelightError, match=rf"objective\.{name}.*above 0, got {value}"):
            ObjectiveConfig(**{name: value})
    _, _, task = make()
    with pytest.raises(ValueError, match="latents"):
        next(task.losses(Batch(("",), pixels=torch.zeros(1, 3, 4, 4)), draws(0, 1)))
