from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from train_toys import batch

from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig, Gaussian
from safelight.models.vq import VQAutoencoder, VQConfig
from safelight.train import losses
from safelight.train.autoencoder_task import (
    AutoencoderLossConfig,
    AutoencoderTask,
    reconstruct_kl,
    reconstruct_vq,
    start_codebook,
)
from safelight.train.discriminator import AdversaryConfig
from safelight.train.loop import LoopConfig, train
from safelight.train.optim import OptimConfig
from safelight.train.task import Draws
from safelight.types import Batch

CPU = torch.device("cpu")
ADVERSARY = AdversaryConfig(weight=0.7, start=3, channels=8, layers=1)


def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(
        AutoencoderConfig(
            latent_channels=2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention=(False, False),
            mid_attention=False,
            norm_num_groups=4,
        )
    )


def task(config: AutoencoderLossConfig) -> tuple[Autoencoder, AutoencoderTask]:
    network = autoencoder()
    torch.manual_seed(1)
    return network, AutoencoderTask(network, reconstruct_kl(network, config, None), config, None)


def draws(step: int, count: int = 4) -> Draws:
    return Draws(seed=0, step=step, total=count, first=0, count=count, device=CPU)


def pictures(start: int) -> Iterator[Batch]:
    """Grey above another grey, which is easy to learn."""
    step = start
    while True:
        rows = batch(step, 4).pixels
        assert rows is not None
        pixels = rows[:, :1, :2, :1].repeat_interleave(4, 2).expand(-1, 3, -1, 8)
        yield Batch(("",) * 4, pixels.contiguous())
        step += 1


def test_the_adversary_joins_at_its_step():
    _, toy = task(AutoencoderLossConfig(gradient=1.0, adversary=ADVERSARY))
    before = list(toy.losses(batch(0, 4), draws(2)))
    assert [loss.phase for loss in before] == ["main"]
    assert set(before[0].parts) == {"loss", "l1", "gradient", "kl"}
    after = list(toy.losses(batch(0, 4), draws(3)))
    assert [loss.phase for loss in after] == ["main", "adversary"]


def test_adversarial_gradients_are_those_of_the_weighted_sum():
    config = AutoencoderLossConfig(gradient=1.0, kl=0.1, adversary=ADVERSARY)
    network, toy = task(config)
    pixels = batch(0, 4).pixels
    assert pixels is not None
    generator = toy.losses(batch(0, 4), draws(5))
    loss = next(generator)
    loss.total.backward()
    got = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    discriminator = toy.phases["adversary"].modules["discriminator"]
    assert all(p.grad is None for p in discriminator.parameters())

    network.zero_grad()
    posterior = network.encode(pixels)
    output = network.decode(posterior.sample(draws(5).normal(posterior.mean.shape, 0)))
    error = losses.l1(output, pixels) + losses.gradient_loss(output, pixels)
    fooled = losses.hinge_generator(discriminator(output))
    by_error, by_fooled = (
        torch.autograd.grad(value, network.last_layer, retain_graph=True)[0]
        for value in (error, fooled)
    )
    weight = 0.7 * by_error.norm() / (by_fooled.norm() + 1e-4)
    assert loss.parts["adversary_weight"].item() == pytest.approx(weight.item(), rel=1e-4)
    (error + weight * fooled + 0.1 * losses.kl(posterior, pixels)).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-3, atol=1e-6)

    discriminator.zero_grad()
    (judged,) = generator
    judged.total.backward()
    assert all(p.grad is not None for p in discriminator.parameters())


def test_a_kl_autoencoder_learns_with_its_adversary_and_resumes_to_the_bit(tmp_path: Path):
    adversary = AdversaryConfig(weight=0.1, start=20, channels=8, layers=1)
    config = AutoencoderLossConfig(kl=1e-6, adversary=adversary)
    optim = OptimConfig(lr=1e-2, warmup=5, precision="float32")

    def run(folder: str, steps: int, *, resume: bool = False) -> Autoencoder:
        network, toy = task(config)
        loop = LoopConfig(steps=steps, batch_size=4, preview_every=0, tensorboard=False)
        train(toy, pictures, loop, optim, tmp_path / folder, device=CPU, resume=resume)
        return network

    network = run("whole", 40)
    target = next(pictures(1000)).pixels
    assert target is not None
    with torch.no_grad():
        output = network.decode(network.encode(target).mode())
    assert losses.l1(output, target) < 0.8 * losses.l1(torch.zeros_like(target), target)
    run("parts", 25)
    resumed = run("parts", 40, resume=True)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_vq_autoencoder_learns(tmp_path: Path):
    torch.manual_seed(0)
    network = VQAutoencoder(
        VQConfig(
            latent_channels=4,
            codebook_size=32,
            codebook_dim=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention=(False, False),
            mid_attention=False,
            norm_num_groups=4,
        )
    )
    pixels = next(pictures(0)).pixels
    assert pixels is not None
    start_codebook(network, pixels, torch.Generator().manual_seed(0))
    quantized = network.quantize(network.encode(pixels))
    assert len(quantized.indices.unique()) >= 16  # of 32; about 10 from a random codebook
    config = AutoencoderLossConfig()
    toy = AutoencoderTask(network, reconstruct_vq(network, config, None), config, None)
    first = next(toy.losses(next(pictures(0)), draws(0)))
    assert {"codebook", "codes_used"} <= set(first.parts)
    loop = LoopConfig(steps=150, batch_size=4, preview_every=0, tensorboard=False)
    optim = OptimConfig(lr=3e-3, warmup=5, precision="float32")  # the same on every machine
    train(toy, pictures, loop, optim, tmp_path, device=CPU)
    last = next(toy.losses(next(pictures(0)), draws(0)))
    assert last.parts["l1"] < 0.7 * first.parts["l1"]


def test_a_feature_network_stays_as_it_is_and_steers_the_autoencoder():
    torch.manual_seed(3)
    features = torch.nn.Conv2d(3, 8, 3).requires_grad_(False)
    config = AutoencoderLossConfig(l1=0.0, perceptual=2.0, kl=0.0)
    network = autoencoder()
    toy = AutoencoderTask(
        network, reconstruct_kl(network, config, None), config, lambda x: [features(x)]
    )
    loss = next(toy.losses(batch(0, 4), draws(0)))
    assert loss.total.item() == pytest.approx(2 * loss.parts["perceptual"].item())
    loss.total.backward()
    assert network.last_layer.grad is not None
    assert network.last_layer.grad.abs().sum() > 0


def test_in_bfloat16_the_divergence_and_the_draw_are_still_in_float32(
    monkeypatch: pytest.MonkeyPatch,
):
    network, config = autoencoder(), AutoencoderLossConfig()
    pixels = batch(0, 4).pixels
    assert pixels is not None
    drawn: list[torch.Tensor] = []
    decode = network.decode
    monkeypatch.setattr(network, "decode", lambda z: drawn.append(z) or decode(z))
    result = reconstruct_kl(network, config, torch.bfloat16)(pixels, draws(0))
    with torch.autocast("cpu", torch.bfloat16):
        encoded = network.encode(pixels)
    assert encoded.mean.dtype is torch.bfloat16
    exact = Gaussian(encoded.mean.double(), encoded.logvar.double())
    assert drawn[0].dtype is result.parts["kl"].dtype is torch.float32
    noise = draws(0).normal(encoded.mean.shape, 0)
    torch.testing.assert_close(
        drawn[0].double(), exact.sample(noise.double()), rtol=1e-6, atol=1e-6
    )
    assert result.parts["kl"].item() == pytest.approx(
        (exact.kl().mean() / pixels[0].numel()).item(), rel=1e-6
    )


def test_a_step_in_bfloat16_changes_float32_weights_about_as_one_in_float32(tmp_path: Path):
    changes: dict[str, torch.Tensor] = {}
    for precision, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        network, config = autoencoder(), AutoencoderLossConfig(adversary=ADVERSARY)
        before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        seen: list[torch.dtype] = []
        network.decoder.conv_in.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output.dtype)
        )
        toy = AutoencoderTask(network, reconstruct_kl(network, config, dtype), config, None)
        loop = LoopConfig(steps=5, batch_size=4, preview_every=0, tensorboard=False)
        optim = OptimConfig(lr=1e-3, warmup=0, precision=precision)
        train(toy, pictures, loop, optim, tmp_path / precision, device=CPU)
        assert set(seen) == {dtype or torch.float32}
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        changes[precision] = (
            torch.cat([p.detach().flatten() for p in network.parameters()]) - before
        )
    likeness = torch.cosine_similarity(changes["float32"], changes["bfloat16"], dim=0)
    assert 0.9 < likeness < 1 - 1e-6  # alike, but not the same


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AutoencoderLossConfig(kl=-1.0), r"loss\.kl should be at least 0, got -1\.0"),
        (lambda: AutoencoderLossConfig(gradient_scales=0), r"loss\.gradient_scales"),
        (lambda: AdversaryConfig(start=-1), r"adversary\.start should be at least 0, got -1"),
        (lambda: AdversaryConfig(channels=0), r"adversary\.channels should be a multiple of 8"),
        (lambda: AdversaryConfig(lr_scale=-0.5), r"adversary\.lr_scale"),
    ],
)
def test_weights_out_of_range_are_named(make: Callable[[], object], told: str):
    with pytest.raises(SafelightError, match=told):
        make()
