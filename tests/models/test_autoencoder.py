"""Autoencoders: shapes, distributions, slicing, quantisation."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from safelight.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from safelight.models.vq import VQAutoencoder, VQConfig

KL = AutoencoderConfig(
    block_out_channels=(8, 16, 16),
    layers_per_block=1,
    latent_channels=6,
    attention=(False, False, True),
    norm_num_groups=4,
    scaling_factor=0.5,
    shift_factor=0.25,
)
VQ = VQConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    attention=(False, False),
    codebook_size=16,
    norm_num_groups=4,
)


def pixels(b: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand(b, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_stable_diffusions_autoencoder_has_the_published_number_of_weights():
    with torch.device("meta"):
        autoencoder = Autoencoder(AutoencoderConfig())
    assert sum(p.numel() for p in autoencoder.parameters()) == 83_653_863


def test_shapes_and_factor():
    autoencoder = Autoencoder(KL)
    posterior = autoencoder.encode(pixels())
    assert autoencoder.factor == 4
    assert posterior.mean.shape == posterior.logvar.shape == (3, 6, 4, 4)
    assert autoencoder.decode(posterior.mode()).shape == (3, 3, 16, 16)


def test_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 2, 3, 4, 4, generator=generator)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(Gaussian(mean, logvar).kl(), expected.sum(dim=(1, 2, 3)))


def test_samples_have_the_mean_and_spread():
    posterior = Gaussian(torch.full((1, 1, 100, 100), 3.0), torch.full((1, 1, 100, 100), -1.0))
    noise = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    drawn = posterior.sample(noise)
    assert drawn.mean().item() == pytest.approx(3, abs=0.03)
    assert drawn.var().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.05)


@pytest.mark.parametrize("kind", [lambda: Autoencoder(KL), lambda: VQAutoencoder(VQ)])
def test_slicing_changes_nothing_but_memory(kind):
    torch.manual_seed(0)
    autoencoder = kind()
    whole = autoencoder.encode(pixels())
    z = whole if isinstance(whole, torch.Tensor) else whole.mean
    pictures = autoencoder.decode(z)
    autoencoder.slicing = True
    again = autoencoder.encode(pixels())
    torch.testing.assert_close(again if isinstance(again, torch.Tensor) else again.mean, z)
    torch.testing.assert_close(autoencoder.decode(z), pictures)


def test_scale_is_diffusers_formula_and_unscale_its_inverse():
    autoencoder, z = Autoencoder(KL), torch.randn(1, 6, 2, 2)
    torch.testing.assert_close(autoencoder.scale(z), (z - 0.25) * 0.5)
    torch.testing.assert_close(autoencoder.unscale(autoencoder.scale(z)), z)


def test_recomputing_activations_changes_no_gradient():
    torch.manual_seed(0)
    autoencoder = Autoencoder(KL)
    gradients: list[list[torch.Tensor]] = []
    for on in (False, True):
        autoencoder.gradient_checkpointing = on
        assert autoencoder.gradient_checkpointing is on
        autoencoder.zero_grad()
        autoencoder.decode(autoencoder.encode(pixels()).mode()).square().mean().backward()
        gradients.append([p.grad.clone() for p in autoencoder.parameters() if p.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_quantised_latents_are_the_nearest_rows():
    torch.manual_seed(0)
    vq = VQAutoencoder(VQ)
    torch.nn.init.normal_(vq.codebook.weight)
    z = torch.randn(2, 3, 4, 4)
    quantized = vq.quantize(z)
    rows = vq.codebook.weight.detach()
    for b, y, x in ((0, 0, 0), (1, 3, 2), (1, 0, 3)):
        nearest = (rows - z[b, :, y, x]).square().sum(1).argmin()
        assert quantized.indices[b, y, x] == nearest
        torch.testing.assert_close(quantized.z[b, :, y, x].detach(), rows[nearest])


def test_gradients_pass_straight_through_the_quantisation():
    torch.manual_seed(0)
    vq = VQAutoencoder(VQ)
    z = torch.randn(1, 3, 2, 2, requires_grad=True)
    vq.quantize(z).z.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_the_codebook_loss_pulls_rows_and_latents_together():
    torch.manual_seed(0)
    vq = VQAutoencoder(VQ)
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = vq.quantize(z).loss
    rows = vq.codebook.weight[vq.quantize(z).indices].permute(0, 3, 1, 2)
    torch.testing.assert_close(loss, 1.25 * (rows - z).square().mean())
    loss.backward()
    assert z.grad is not None
    assert vq.codebook.weight.grad is not None
    torch.testing.assert_close(z.grad, (0.25 * 2 * (z - rows) / z.numel()).detach())


@pytest.mark.parametrize("config", [KL, VQ], ids=["kl", "vq"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": (False,)}, "attention has 1 entries for"),
        ({"attention": (False,) * 4}, "attention has 4 entries for"),
        ({"block_out_channels": ()}, "block_out_channels is empty"),
        ({"norm_num_groups": 3}, "has 8, which norm_num_groups = 3 does not divide"),
        ({"norm_num_groups": 0}, "norm_num_groups should be 1 or more"),
        ({"layers_per_block": 0}, "layers_per_block should be 1 or more"),
        ({"latent_channels": -1}, "latent_channels should be 1 or more"),
        ({"scaling_factor": 0.0}, "scaling_factor should not be 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


def test_a_codebook_of_nothing_is_refused():
    with pytest.raises(ValueError, match="codebook_size should be 1 or more, got 0"):
        replace(VQ, codebook_size=0)


def test_slicing_bounds_the_distances_to_the_codebook(monkeypatch):
    rows: list[int] = []
    measure = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b: rows.append(len(a)) or measure(a, b))
    vq, z = VQAutoencoder(VQ), torch.randn(3, 3, 4, 4)
    vq.decode(z)
    vq.slicing = True
    vq.decode(z)
    assert rows == [3 * 16, 16, 16, 16]
