"""What distillations learn, where it is known: normal data, whose way has a formula."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from safelight.diffusion import parameterization
from safelight.diffusion.denoiser import Denoiser, per_image
from safelight.diffusion.noise_schedule import DiscreteSchedule, scaled_linear_betas
from safelight.diffusion.objective import uniform_t
from safelight.diffusion.sigmas import model_sigmas
from safelight.diffusion.solvers import sample_ddim
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig
from safelight.train.consistency_task import ConsistencyTask, Trio, taught_times
from safelight.train.distillation import Answer, Asked, DistillationConfig, Told, by_teacher
from safelight.train.matching_task import GuidanceTask, ProgressiveTask, two_steps
from safelight.train.task import Draws, Phase, Task
from safelight.types import Batch, Conditioning

CPU = torch.device("cpu")
SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())


def teach(x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
    """The expected x0 of standard normal data: the ideal denoiser."""
    return x / per_image(sigma**2 + 1, x)


class Gains(nn.Module):
    """x0 as x at unit variance, times a gain for each tenth time, which begins as the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        t = torch.arange(100) * 10 + 9.0
        self.gains = nn.Parameter((SCHEDULE.t_to_sigma(t) ** 2 + 1).rsqrt())

    def answer(self, x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
        at = (SCHEDULE.sigma_to_t(sigma) / 10).long()
        return x * per_image((sigma**2 + 1).rsqrt() * self.gains[at], x)


def condition(captions: Sequence[str]) -> Conditioning:
    return Conditioning(context=torch.zeros(len(captions), 1, 1))


TOLD = Told(condition, condition([""]))


def learn(task: Task, module: nn.Module, steps: int, lr: float) -> list[float]:
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    losses: list[float] = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        batch = Batch(("",) * 64, latents=torch.randn(64, 1, 4, 4, generator=generator))
        draws = Draws(0, step, 64, 0, 64, CPU)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        for loss in task.losses(batch, draws):
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
            losses.append(float(loss.total.detach()))
    return losses


@torch.no_grad()
def way(sigmas: Tensor, answer: Answer) -> float:
    """By what factor x at unit variance is multiplied on the way over some levels."""
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64) * (sigmas[0] ** 2 + 1).sqrt()
    asked = Asked(condition([""]), condition([""]), torch.ones(1))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return answer(x, sigma, asked)

    last = sample_ddim(denoise, x, sigmas, noise=lambda shape, index: torch.zeros(*shape))
    return float(last / (sigmas[-1] ** 2 + 1).sqrt())


@pytest.mark.parametrize("loss", ["huber", "l2"])
def test_lcm_learns_where_the_teachers_way_ends_and_not_the_mean(loss):
    student = Gains()
    config = DistillationConfig(loss=loss, huber_c=0.1, times=5)
    trio = Trio(student.answer, student.answer, teach)
    phases = {"main": Phase({"unet": student})}
    task = ConsistencyTask(phases, trio, TOLD, SCHEDULE, config, lambda: None)
    before = student.gains.detach().clone()
    learn(task, student, 200, 8e-2)
    times = taught_times(SCHEDULE, 5)
    for place in (1, 2, 4):
        below = [*times[: place + 1].flip(0).tolist(), 0.0]
        wanted = way(SCHEDULE.t_to_sigma(torch.tensor(below, dtype=torch.float64)), teach)
        at = int(times[place] / 10)
        assert student.gains[at].item() == pytest.approx(wanted, abs=0.01)
        assert before[at] < wanted - 0.04  # the mean is nearer to 0
    assert before[99] < 0.1 < 0.7 < student.gains[99]


def test_tcd_learns_every_place_of_the_teachers_way():
    student = Gains()
    config = DistillationConfig(method="tcd", loss="l2", times=10)
    trio = Trio(student.answer, student.answer, teach)
    phases = {"main": Phase({"unet": student})}
    task = ConsistencyTask(phases, trio, TOLD, SCHEDULE, config, lambda: None)
    losses = learn(task, student, 300, 6e-2)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    # a gain has one value for all ends, so the student can only come between
    few = SCHEDULE.t_to_sigma(torch.tensor([999.0, 499.0, 0.0], dtype=torch.float64))
    ideal = way(SCHEDULE.t_to_sigma(torch.arange(999.0, -1, -1, dtype=torch.float64)), teach)
    teachers, students = way(few, teach), way(few, student.answer)
    assert abs(students - ideal) < 0.5 * abs(teachers - ideal)


def test_progressive_halving_learns_many_steps_in_few():
    student, former = Gains(), Gains()
    config = DistillationConfig(method="progressive", teacher_steps=8, steps=2)
    succeeded: list[int] = []

    def succeed() -> None:
        succeeded.append(1)
        former.load_state_dict(student.state_dict())

    phases = {"main": Phase({"unet": student})}
    teachers = (teach, former.answer)
    task = ProgressiveTask(phases, student.answer, teachers, TOLD, SCHEDULE, config, 100, succeed)
    learn(task, student, 200, 4e-2)
    assert len(succeeded) == 1
    batch = Batch(("",) * 4, latents=torch.zeros(4, 1, 4, 4))
    restarts = [
        next(iter(task.losses(batch, Draws(0, step, 8, first, 4, CPU)))).restart
        for step in (0, 99, 100, 101)
        for first in (0, 4)
    ]
    assert restarts == [False] * 4 + [True] * 2 + [False] * 2
    wanted = way(model_sigmas(SCHEDULE, 8, "trailing"), teach)
    got = way(model_sigmas(SCHEDULE, 2, "trailing"), student.answer)
    two = way(model_sigmas(SCHEDULE, 2, "trailing"), teach)
    assert got == pytest.approx(wanted, abs=0.05)
    assert abs(two - wanted) > 0.2


def test_one_step_to_what_is_asked_for_leads_to_where_two_lead():
    levels = (
        torch.tensor([14.0, 3.0, 0.6]),
        torch.tensor([5.0, 1.0, 0.2]),
        torch.tensor([2.0, 0.4, 0]),
    )
    x = torch.randn(3, 1, 2, 2) * 10
    asked = Asked(condition([""] * 3), condition([""] * 3), torch.ones(3))
    wanted = two_steps(teach, x, levels, asked)

    def down(denoised: Tensor, x: Tensor, ratio: Tensor) -> Tensor:
        return denoised + per_image(ratio, x) * (x - denoised)

    middle = down(teach(x, levels[0], asked), x, levels[1] / levels[0])
    last = down(teach(middle, levels[1], asked), middle, levels[2] / levels[1])
    assert torch.allclose(down(wanted, x, levels[2] / levels[0]), last, atol=1e-5)


@dataclass
class Caller:
    """A network that counts its calls; it says 1 for a caption, 0 for none."""

    calls: int = 0

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.calls += 1
        assert cond.context is not None
        return torch.ones_like(x) * cond.context[:, :, :, None]


def _words(captions: Sequence[str]) -> Conditioning:
    said = torch.tensor([float(bool(caption)) for caption in captions])
    return Conditioning(context=said[:, None, None])


def test_a_teacher_is_guided_in_one_call_by_each_pictures_scale():
    network = Caller()
    denoiser = Denoiser(network, parameterization.x0, SCHEDULE)
    answer = by_teacher(denoiser, UNetConfig())
    scale = torch.tensor([1.0, 3.0, 7.5])
    asked = Asked(_words(["a"] * 3), _words([""] * 3), scale)
    guided = answer(torch.randn(3, 1, 2, 2), torch.ones(3), asked)
    assert torch.allclose(guided[:, 0, 0, 0], scale)
    assert network.calls == 1
    assert not guided.requires_grad


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_guidance_is_compared_as_the_network_says_it(kind):
    parameters = parameterization.by_name(kind)

    def off(x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
        return teach(x, sigma, asked) + per_image(parameters(sigma).c_out, x)  # the output + 1

    task = GuidanceTask(
        {"main": Phase({})},
        off,
        teach,
        TOLD,
        parameters,
        uniform_t(SCHEDULE),
        DistillationConfig(method="guidance"),
    )
    batch = Batch(("",) * 8, latents=torch.randn(8, 1, 2, 2))
    (loss,) = task.losses(batch, Draws(0, 0, 8, 0, 8, CPU))
    assert float(loss.total) == pytest.approx(1.0, abs=1e-3)


def test_captions_are_dropped_and_scales_drawn_from_their_range():
    seen: list[Asked] = []
    said: list[Sequence[str]] = []

    def told(captions: Sequence[str]) -> Conditioning:
        said.append(captions)
        return _words(captions)

    def noting(x: Tensor, sigma: Tensor, asked: Asked) -> Tensor:
        seen.append(asked)
        return x

    config = DistillationConfig(caption_dropout=0.2, scale=(2.0, 5.0))
    trio = Trio(noting, noting, noting)
    null = _words(["avoided"])
    task = ConsistencyTask({}, trio, Told(told, null), SCHEDULE, config, lambda: None)
    batch = Batch(("a",) * 1000, latents=torch.zeros(1000, 1, 1, 1))
    list(task.losses(batch, Draws(0, 0, 1000, 0, 1000, CPU)))
    (captions,) = said  # the null is read before
    assert seen[0].null.context is not None
    assert seen[0].null.context.flatten().tolist() == [1.0] * 1000  # not the empty caption
    assert len(captions) == 1000
    assert 150 < list(captions).count("") < 250
    scale = seen[0].scale
    assert (scale.min() > 2.0, scale.max() < 5.0, 3.3 < scale.mean() < 3.7) == (True,) * 3


def test_text_towers_run_under_autocast():
    tower = nn.Linear(1, 1)

    def words(captions: Sequence[str]) -> Conditioning:
        return Conditioning(context=tower(torch.ones(len(captions), 1, 1)))

    for dtype in (None, torch.bfloat16):
        asked = Told(words, condition([""]), dtype).asked(["a", "b"], torch.ones(2))
        assert asked.cond.context is not None
        assert asked.cond.context.dtype == (dtype or torch.float32)
        assert not asked.cond.context.requires_grad


def test_the_average_moves_once_a_step_and_not_once_a_part():
    moved: list[int] = []
    trio = Trio(teach, teach, teach)
    task = ConsistencyTask({}, trio, TOLD, SCHEDULE, DistillationConfig(), lambda: moved.append(1))
    latents = torch.randn(4, 1, 2, 2)

    def loss(first: int, count: int) -> float:
        part = Batch(("",) * count, latents=latents[first : first + count])
        (loss,) = task.losses(part, Draws(0, 0, 4, first, count, CPU))
        return float(loss.total)

    whole, halves = loss(0, 4), [loss(0, 2), loss(2, 2)]
    assert len(moved) == 2
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-5)


def test_more_times_than_there_are():
    with pytest.raises(SafelightError, match="more than the 1000 times"):
        taught_times(SCHEDULE, 1001)
    with pytest.raises(SafelightError, match=r"times = 30 should divide the 1000 .* such as 25"):
        taught_times(SCHEDULE, 30)
    assert taught_times(SCHEDULE, 50)[[0, -1]].tolist() == [19, 999]
