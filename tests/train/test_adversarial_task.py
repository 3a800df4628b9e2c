from functools import partial
from pathlib import Path

import pytest
import torch
from adversarial_toys import CPU, Play, batches, condition, distance, draws, play, points
from torch import Tensor, nn

from safelight.diffusion import objective, parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import Parameterization
from safelight.errors import SafelightError
from safelight.models.adversary_heads import AdversaryHeads, HeadConfig
from safelight.models.unet import UNet, UNetConfig, map_widths
from safelight.train.adversarial_task import AdversarialConfig, AdversarialTask, Judge
from safelight.train.adversarial_views import LatentViewer, level_features
from safelight.train.distillation import DistillationConfig, Told, by_teacher
from safelight.train.loop import LoopConfig, train
from safelight.train.optim import OptimConfig
from safelight.train.task import Phase
from safelight.types import Batch, Conditioning

SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())
ZERO_SNR = DiscreteSchedule.from_betas(rescale_zero_terminal_snr(scaled_linear_betas()))
SMALL = AdversarialConfig(heads=HeadConfig(8))


def hinge(real: Tensor, made: Tensor) -> Tensor:
    return 0.5 * ((1 - real).clamp(min=0).mean() + (1 + made).clamp(min=0).mean())


def heads_of(task: AdversarialTask) -> AdversaryHeads:
    heads = task.phases["adversary"].modules["heads"]
    assert isinstance(heads, AdversaryHeads)
    return heads


def weights_of(denoiser: Denoiser) -> dict[str, Tensor]:
    assert isinstance(denoiser.network, nn.Module)
    return {name: tensor.clone() for name, tensor in denoiser.network.state_dict().items()}


def unet_task(
    parameters: Parameterization, schedule: DiscreteSchedule, dtype: torch.dtype | None = None
) -> tuple[UNet, UNet, AdversarialTask]:
    config = UNetConfig(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=(1, 1),
        attention=(False, True),
        transformer_layers=(1, 1),
        attention_heads=(2, 2),
        only_cross_attention=(False, False),
        cross_attention_dim=2,
        norm_num_groups=4,
    )
    torch.manual_seed(0)
    network, unet = UNet(config).requires_grad_(False), UNet(config)
    unet.load_state_dict(network.state_dict())
    teacher = Denoiser(network, parameters, schedule, dtype)
    task = AdversarialTask(
        {"main": Phase({"unet": unet})},
        Denoiser(unet, parameters, schedule, dtype),
        Judge(by_teacher(teacher, config), objective.uniform_t(schedule)),
        Told(condition, condition([""])),
        LatentViewer(teacher, network.maps, objective.logit_normal(), map_widths(config), 2),
        torch.tensor([schedule.sigma_max, 1.0]),
        (DistillationConfig("adversarial", 2), SMALL),
    )
    return network, unet, task


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("parameters", "schedule"),
    [
        (parameterization.eps, SCHEDULE),
        (parameterization.v, SCHEDULE),
        (parameterization.v, ZERO_SNR),
    ],
    ids=["eps", "v", "zero_snr"],
)
def test_gradients_reach_what_is_trained_and_nothing_else(
    parameters: Parameterization, schedule: DiscreteSchedule, dtype: torch.dtype | None
):
    teacher, student, task = unet_task(parameters, schedule, dtype)
    heads = heads_of(task)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    latents = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    losses = task.losses(Batch(("up", "down", "", "up"), latents=latents), draws(0, 4))
    main = next(losses)
    main.total.backward()
    assert main.phase == "main"
    trained = dict(student.named_parameters())
    of_student = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
    assert of_student.keys() == trained.keys()
    assert all(gradient.isfinite().all() for gradient in of_student.values())
    assert of_student["conv_in.weight"].abs().sum() > 0
    assert all(p.grad is None for p in heads.parameters())
    (judged,) = losses
    judged.total.backward()
    assert judged.phase == "adversary"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    for name, parameter in trained.items():
        assert torch.equal(parameter.grad, of_student[name]), name
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(a, before[name]) for name, a in teacher.state_dict().items())
    for part in (*main.parts.values(), *judged.parts.values()):
        assert part.isfinite()


def test_both_losses_are_those_of_the_paper():
    toy = play(parameterization.v, SCHEDULE, AdversarialConfig(r1=0.3, heads=HeadConfig(8)), 1)
    batch = next(batches(0, 6))
    assert batch.latents is not None
    drawn, cond = draws(4, 6), condition(batch.captions)
    main, judged = toy.task.losses(batch, drawn)  # which brings the heads' norms up to date

    # what the student makes of noise alone, then both sides as the teacher sees them
    sigma = torch.full((6,), toy.levels[0].item())
    made = toy.student(sigma[0] * drawn.normal(batch.latents.shape, 2), sigma, cond)
    level = torch.exp(1 + torch.randn(6, generator=drawn.generator(12)))
    about = torch.cat([cond.context.mean(1), level_features(level)], dim=1)  # pyright: ignore

    def maps(x0: Tensor, stream: int) -> list[Tensor]:
        x = x0 + level[:, None, None, None] * drawn.normal(x0.shape, stream)
        x = x / (1 + level**2).sqrt()[:, None, None, None]
        return toy.teacher.network.maps(x, SCHEDULE.sigma_to_t(level), cond)  # pyright: ignore

    heads = heads_of(toy.task)
    real = [part.requires_grad_() for part in maps(batch.latents, 13)]
    of_real, of_made = heads.logits(real, about), heads.logits(maps(made, 14), about)
    fooled = -torch.stack([part.mean() for part in of_made]).mean()
    torch.testing.assert_close(main.parts["fooled"], fooled)

    index = torch.randint(1000, (6,), generator=drawn.generator(9))
    noised = SCHEDULE.sigmas.float()[index]
    shaped = noised[:, None, None, None]
    target = toy.teacher(made + shaped * drawn.normal(made.shape, 10), noised, cond)
    score = ((made - target).square().mean((1, 2, 3)) / (1 + noised**2).sqrt()).mean()
    torch.testing.assert_close(main.parts["score"], score)
    torch.testing.assert_close(main.total, fooled + 2.5 * score)

    gradients = [
        torch.autograd.grad(a.sum(), b, retain_graph=True)[0]
        for a, b in zip(of_real, real, strict=True)
    ]
    r1 = torch.stack([part.square().sum((1, 2, 3)).mean() for part in gradients]).mean()
    wanted = torch.stack([hinge(a, b) for a, b in zip(of_real, of_made, strict=True)]).mean()
    torch.testing.assert_close(judged.parts["adversary"], wanted)
    torch.testing.assert_close(judged.parts["r1"], r1)
    torch.testing.assert_close(judged.total, wanted + 0.15 * r1)


def test_a_student_begins_from_noise_alone_as_often_as_said():
    seen: list[tuple[Tensor, Tensor]] = []
    toy = play(parameterization.v, SCHEDULE, AdversarialConfig(heads=HeadConfig(8)), 4)
    student = toy.student.network

    def watching(x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        seen.append((x, t))
        return student(x, t, cond)

    toy.student.network = watching
    captions, _ = points(1000, torch.Generator().manual_seed(0))
    latents = torch.full((1000, 2, 1, 1), 1e4)  # so that none of it goes unseen
    next(toy.task.losses(Batch(captions, latents=latents), draws(0, 1000)))
    ((x, t),) = seen
    begun = t == 999
    assert 0.65 <= begun.float().mean() <= 0.75
    for time in (749, 499, 249):
        assert 0.07 <= (t == time).float().mean() <= 0.13
    assert x[begun].abs().max() < 10  # noise of about unit variance
    assert x[~begun].abs().min() > 100


def test_parts_of_a_batch_have_the_losses_of_the_whole():
    toy = play(parameterization.v, SCHEDULE, SMALL, 2)
    batch = next(batches(0, 12))
    assert batch.latents is not None
    parts: dict[str, Tensor] = {}
    for first, count in ((0, 8), (8, 4)):
        rows = slice(first, first + count)
        part = Batch(batch.captions[rows], latents=batch.latents[rows])
        for loss in toy.task.losses(part, draws(3, 12, first, count)):
            parts[loss.phase] = parts.get(loss.phase, 0) + loss.total.detach() * count / 12
    again = play(parameterization.v, SCHEDULE, SMALL, 2)
    for loss in again.task.losses(batch, draws(3, 12)):
        torch.testing.assert_close(parts[loss.phase], loss.total.detach())


def run(toy: Play, folder: Path, steps: int, *, resume: bool = False, lr: float = 3e-3) -> None:
    loop = LoopConfig(steps, 64, ema=0.9, preview_every=0, save_every=0, tensorboard=False)
    optim = OptimConfig(lr=lr, warmup=10, betas=(0.0, 0.99), precision="float32")
    source = partial(batches, count=64)
    train(toy.task, source, loop, optim, folder, device=CPU, resume=resume)


def test_a_training_resumes_to_the_bit(tmp_path: Path):
    whole, first, second = (play(parameterization.v, SCHEDULE, SMALL, 2) for _ in range(3))
    run(whole, tmp_path / "whole", 6)
    run(first, tmp_path / "parts", 4)
    run(second, tmp_path / "parts", 6, resume=True)
    for phase in ("main", "adversary"):
        for name, module in whole.task.phases[phase].modules.items():
            other = second.task.phases[phase].modules[name].state_dict()
            assert all(torch.equal(a, other[key]) for key, a in module.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "schedule", "score", "lr"),
    [
        (parameterization.v, ZERO_SNR, 0.0, 3e-3),
        (parameterization.eps, SCHEDULE, 0.1, 3e-4),  # whose output counts sigma, 14.6, times
    ],
    ids=["v", "eps"],
)
def test_one_step_comes_nearer_to_the_points(
    tmp_path: Path,
    parameters: Parameterization,
    schedule: DiscreteSchedule,
    score: float,
    lr: float,
):
    heads = HeadConfig(16)
    config = AdversarialConfig(score=score, r1=1e-3, mean=-1.0, heads=heads, lr_scale=3e-3 / lr)
    toy = play(parameters, schedule, config, lessons=400)
    before = weights_of(toy.teacher)
    run(toy, tmp_path, 200, lr=lr)
    captions, latents = points(1000, torch.Generator().manual_seed(9))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(10))
    sigma = torch.full((1000,), toy.levels[0].item())

    def far(denoiser: Denoiser) -> float:
        """How far one step lies from the points, where all that is known is "up"."""
        with torch.no_grad():
            made = denoiser(sigma[0] * noise, sigma, condition(captions))
        up = torch.tensor([caption == "up" for caption in captions])
        return distance(made[up].flatten(1), latents[up].flatten(1))

    assert far(toy.student) < 0.5 * far(toy.teacher)
    after = weights_of(toy.teacher)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_mistakes_are_named():
    assert AdversarialConfig().chances_of(1) == (1.0,)
    assert AdversarialConfig().chances_of(4) == pytest.approx((0.7, 0.1, 0.1, 0.1))
    assert AdversarialConfig(chances=(3.0, 1.0)).chances_of(2) == (0.75, 0.25)
    with pytest.raises(SafelightError, match="each of 4 steps, got 2"):
        AdversarialConfig(chances=(3.0, 1.0)).chances_of(4)
    for chances in ((0.0, 1.0), (1.0, -0.5), (float("nan"),)):
        with pytest.raises(SafelightError, match=r"adversarial\.chances should be"):
            AdversarialConfig(chances=chances)
    with pytest.raises(SafelightError, match=r"adversarial\.r1 should be at least 0, got -1"):
        AdversarialConfig(r1=-1.0)
    with pytest.raises(SafelightError, match=r"adversarial\.std should be above 0, got 0"):
        AdversarialConfig(std=0.0)
    for rate in (0.0, float("inf")):
        with pytest.raises(SafelightError, match=r"adversarial\.lr_scale should be above 0"):
            AdversarialConfig(lr_scale=rate)
    with pytest.raises(SafelightError, match=r"adversarial\.mean should be finite, got nan"):
        AdversarialConfig(mean=float("nan"))
    toy = play(parameterization.v, SCHEDULE, SMALL)
    with pytest.raises(ValueError, match="latents"):
        next(toy.task.losses(Batch(("",), pixels=torch.zeros(1, 3, 4, 4)), draws(0, 1)))
