"""The parts of adversarial distillation against closed forms worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from safelight.diffusion import parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import DiscreteSchedule, scaled_linear_betas
from safelight.errors import SafelightError
from safelight.models.adversary_heads import AdversaryHeads, HeadConfig
from safelight.models.unet import UNet, UNetConfig, map_widths
from safelight.nn.spectral import SpectralConv2d
from safelight.train import losses
from safelight.train.adversarial_reals import teacher_samples
from safelight.train.adversarial_views import PixelViewer, level_features, pooled
from safelight.train.distillation import Asked, by_itself
from safelight.train.score_distillation import WEIGHTINGS, exponential, score_distillation, sds
from safelight.train.task import Draws
from safelight.types import Conditioning

SCHEDULE = DiscreteSchedule.from_betas(scaled_linear_betas())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draws(total: int) -> Draws:
    return Draws(0, 0, total, 0, total, torch.device("cpu"))


def test_r1_is_the_squared_gradient_of_each_image():
    x = normal(3, 2, 4, 4).requires_grad_()
    logits = (x**2).sum(1, keepdim=True)  # the gradient is 2 x
    penalty = losses.r1(logits, x)
    assert penalty.item() == pytest.approx(4 * x.square().sum().item() / 3, rel=1e-5)
    (of_penalty,) = torch.autograd.grad(penalty, x)
    torch.testing.assert_close(of_penalty, 8 * x.detach() / 3)


def test_a_spectral_kernel_has_a_largest_gain_of_one():
    torch.manual_seed(0)
    conv = SpectralConv2d(6, 8, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(7.0)
    for _ in range(100):
        conv.iterate()
    x = normal(2, 6, 5, 5)
    largest = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    wanted = nn.functional.conv2d(x, conv.weight / largest, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), wanted, rtol=1e-4, atol=1e-5)
    before = conv.u.clone()
    conv(x)
    assert torch.equal(conv.u, before)  # a pass moves nothing


def test_a_head_adds_the_projection_of_what_it_is_told():
    torch.manual_seed(0)
    heads = AdversaryHeads([6, 4], 10, HeadConfig(8))
    maps, about = [normal(3, 6, 5, 4), normal(3, 4, 2, 2)], normal(3, 10, seed=1)
    logits = heads.logits(maps, about)
    assert [tuple(part.shape) for part in logits] == [(3, 1, 5, 4), (3, 1, 2, 2)]
    for head in heads:
        nn.init.zeros_(head.get_submodule("project").weight)  # pyright: ignore
    silent = heads.logits(maps, about)
    assert not torch.allclose(silent[0], logits[0])
    torch.testing.assert_close(heads.logits(maps, 0 * about)[0], silent[0])
    with pytest.raises(SafelightError, match=r"heads\.channels.*multiple of 8, got 12"):
        HeadConfig(12)


def test_weightings_are_those_of_the_paper():
    sigma = torch.tensor([0.1, 1.0, 14.6])
    alpha = (1 / (1 + sigma**2)).sqrt()
    sigma_t = sigma * alpha  # at unit variance
    torch.testing.assert_close(exponential(sigma), alpha)
    torch.testing.assert_close(sds(sigma), alpha / (2 * sigma_t) * sigma_t**2)
    assert set(WEIGHTINGS) == {"exponential", "sds", "uniform"}


def test_the_gradient_of_sds_is_the_difference_of_the_noises():
    x0, noise = normal(2, 3, 4, 4).requires_grad_(), normal(2, 3, 4, 4, seed=1)
    sigma = torch.tensor([0.5, 3.0])
    shaped = sigma[:, None, None, None]

    def teacher(x: Tensor, level: Tensor) -> Tensor:
        assert not x.requires_grad
        assert torch.equal(level, sigma)
        return 0.3 * x

    loss = score_distillation(x0, teacher, sigma, noise, sds).sum()
    loss.backward()
    x = x0.detach() + shaped * noise
    eps = (x - 0.3 * x) / shaped  # what the teacher takes for noise
    variance = shaped**2 / (1 + shaped**2)
    # x0 - target = sigma (eps - noise), and alpha / (2 sigma_t) * 2 * sigma = 1
    torch.testing.assert_close(x0.grad, variance * (eps - noise) / x0[0].numel())


@pytest.mark.parametrize("mid", [True, False])
def test_maps_of_a_unet_lead_to_its_output(mid: bool):
    torch.manual_seed(0)
    config = UNetConfig(
        block_out_channels=(8, 16, 16),
        layers_per_block=(1, 2, 1),
        attention=(False, True, False),
        transformer_layers=(1, 1, 1),
        attention_heads=(2, 2, 2),
        only_cross_attention=(False, False, False),
        cross_attention_dim=6,
        norm_num_groups=4,
        mid_block=mid,
    )
    unet = UNet(config)
    cond = Conditioning(context=normal(2, 3, 6))
    x, t = normal(2, 4, 12, 10), torch.tensor([3.0, 700.0])
    seen: list[Tensor] = []
    for block in (
        *unet.down_blocks,
        *([unet.mid_block] if unet.mid_block else []),
        *unet.up_blocks,
    ):
        block.register_forward_hook(
            lambda _, __, made: seen.append(made[0] if isinstance(made, tuple) else made)
        )
    output = unet(x, t, cond)
    wanted = seen.copy()
    seen.clear()
    maps = unet.maps(x, t, cond)
    assert [part.shape[1] for part in maps] == map_widths(config)
    for part, other in zip(maps, wanted, strict=True):
        assert torch.equal(part, other)
    last = nn.functional.silu(unet.conv_norm_out(maps[-1]))
    assert torch.equal(unet.conv_out(last), output)
    down = unet.maps(x, t, cond, up=False)
    assert [part.shape[1] for part in down] == map_widths(config, up=False)
    assert all(torch.equal(a, b) for a, b in zip(down, maps, strict=False))


def test_pooled_joins_tokens_and_vector():
    context, vector = normal(2, 3, 4), normal(2, 5, seed=1)
    joined = pooled(Conditioning(context=context, vector=vector))
    torch.testing.assert_close(joined, torch.cat([context.mean(1), vector], dim=1))
    torch.testing.assert_close(pooled(Conditioning(vector=vector)), vector)
    with pytest.raises(ValueError, match="context or the vector"):
        pooled(Conditioning())
    levels = level_features(torch.tensor([0.0, 1.0, 4096.0]))
    assert levels.isfinite().all()
    assert (levels[0] - levels[1]).norm() > 1
    assert (levels[1] - levels[2]).norm() > 1


def test_pixels_are_looked_at_through_the_decoder():
    def decode(latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :3]

    def features(pixels: Tensor) -> list[Tensor]:
        return [pixels.repeat(1, 2, 1, 1), pixels[..., ::2, ::2] ** 2]

    viewer = PixelViewer(decode, features, [6, 3], 4)
    x0, made = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1).requires_grad_()
    cond = Conditioning(context=normal(2, 5, 4, seed=2))
    view = viewer(x0, cond, torch.tensor([True, False]), draws(2))
    assert view.about.shape == (2, viewer.about_dim)
    assert view.about[0, 4:].abs().sum() == 0  # from noise alone it cannot mean this picture
    torch.testing.assert_close(view.about[1, 4:], (x0[1, :3] ** 2).mean((1, 2)))
    assert all(torch.equal(a, b) for a, b in zip(view.real(), features(decode(x0)), strict=True))
    maps = view.made(made)
    torch.autograd.backward([part.sum() for part in maps])
    assert made.grad is not None
    assert (made.grad[:, :3] != 0).all()
    looked: list[Tensor] = []

    def noting(latents: Tensor) -> Tensor:
        looked.append(latents)
        return decode(latents)

    begun = torch.tensor([True, True])
    view = PixelViewer(noting, features, [6, 3], 4)(x0, cond, begun, draws(2))
    assert not looked  # before it is needed
    assert view.about[:, 4:].abs().sum() == 0
    assert not any(part.requires_grad for part in view.real())
    plain = PixelViewer(decode, features, [6, 3], 4, told_picture=False)
    assert plain(x0, cond, torch.tensor([True, False]), draws(2)).about.shape == (2, 4)


def test_a_teacher_samples_in_the_place_of_pictures():
    mean, spread = 0.7, 0.5

    def network(x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The exact noise in a Gaussian of that mean and spread, from unit-variance input."""
        sigma = SCHEDULE.t_to_sigma(t)[:, None, None, None]
        x = x * (1 + sigma**2).sqrt()
        gain = spread**2 / (spread**2 + sigma**2)
        return (x - (mean + gain * (x - mean))) / sigma

    denoiser = Denoiser(network, parameterization.eps, SCHEDULE)
    teacher = by_itself(denoiser, UNetConfig())
    levels = torch.cat([SCHEDULE.sigmas.flip(0)[::20], torch.zeros(1)])
    asked = Asked(Conditioning(), Conditioning(), torch.ones(64))
    made = teacher_samples(teacher, levels)(torch.zeros(64, 4, 4, 4), asked, draws(64))
    assert made.mean().item() == pytest.approx(mean, abs=0.05)
    assert made.std().item() == pytest.approx(spread, rel=0.1)
    assert math.isfinite(made.sum().item())
