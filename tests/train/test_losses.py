import pytest
import torch
import torch.nn.functional as F
from torch import nn

from safelight.models.autoencoder import Gaussian
from safelight.train import losses
from safelight.train.discriminator import AdversaryConfig, PatchDiscriminator, frozen_call


def pictures(seed: int, size: int = 8) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_gradient_loss_is_blind_to_brightness_and_sees_a_moved_edge():
    flat = torch.zeros(1, 1, 4, 4)
    assert losses.gradient_loss(flat + 0.5, flat).item() == 0
    edge = flat.clone()
    edge[..., 2:] = 1.0
    # full size: one of three columns of differences is 1; half size likewise 1 of 1; quarter: none
    assert losses.gradient_loss(edge, flat, scales=1).item() == pytest.approx(1 / 3)
    assert losses.gradient_loss(edge, flat, scales=3).item() == pytest.approx((1 / 3 + 1) / 2)


def test_kl_is_in_nats_per_pixel_value():
    mean, std = torch.full((2, 4, 2, 2), 0.5), 2.0
    posterior = Gaussian(mean, torch.full_like(mean, 2 * torch.tensor(std).log()))
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.5, std), torch.distributions.Normal(0.0, 1.0)
    )
    pixels = torch.zeros(2, 3, 8, 8)
    assert losses.kl(posterior, pixels).item() == pytest.approx(exact.item() * 16 / 192, rel=1e-5)


def test_perceptual_compares_directions_of_features_not_their_lengths():
    def features(pixels: torch.Tensor) -> list[torch.Tensor]:
        return [pixels, F.avg_pool2d(pixels, 2)]

    x, y = pictures(0), pictures(1)
    assert losses.perceptual(features, 3 * x, x).item() == pytest.approx(0, abs=1e-6)
    by_hand = [
        2 - 2 * F.cosine_similarity(a, b, dim=1)
        for a, b in zip(features(x), features(y), strict=True)
    ]
    expected = torch.stack([level.mean() for level in by_hand]).mean()
    torch.testing.assert_close(losses.perceptual(features, x, y), expected)


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert losses.hinge_discriminator(real, fake).item() == 0.5 * (0.5 + 1.0)
    assert losses.hinge_generator(fake).item() == 1.0


def test_adaptive_weight_is_the_ratio_of_the_gradients_lengths():
    reconstruction, adversarial = torch.full((2, 2), 3.0), torch.full((2, 2), 0.5)
    expected = 6.0 / (1.0 + 1e-4)
    weight = losses.adaptive_weight(reconstruction, adversarial)
    assert weight.item() == pytest.approx(expected)
    assert losses.adaptive_weight(reconstruction, torch.zeros(2, 2)).item() == 1e4


def test_discriminator_sees_patches_and_a_frozen_call_gives_gradients_to_its_input_alone():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(AdversaryConfig(channels=8, layers=2))
    pixels = pictures(0, 32).requires_grad_()
    logits = discriminator(pixels)
    assert logits.shape == (2, 1, 6, 6)
    frozen = frozen_call(discriminator, pixels)
    torch.testing.assert_close(frozen, logits)
    frozen.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def test_discriminator_treats_each_picture_by_itself():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(AdversaryConfig(channels=8))
    pixels = pictures(0, 32)
    alone = torch.cat([discriminator(one) for one in pixels.split(1)])
    torch.testing.assert_close(discriminator(pixels), alone)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules())
