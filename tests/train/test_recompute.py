from collections.abc import Callable

import pytest
import torch
from torch import nn

from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.unet import UNet, UNetConfig
from safelight.train.optim import OptimConfig, prepare
from safelight.types import Conditioning

CPU = torch.device("cpu")


def unet() -> UNet:
    return UNet(
        UNetConfig(
            block_out_channels=(8, 16),
            layers_per_block=(1, 1),
            attention=(False, True),
            transformer_layers=(1, 1),
            attention_heads=(2, 2),
            only_cross_attention=(False, False),
            cross_attention_dim=8,
            norm_num_groups=4,
        )
    )


def autoencoder() -> Autoencoder:
    return Autoencoder(
        AutoencoderConfig(
            block_out_channels=(8, 8),
            layers_per_block=1,
            attention=(False, False),
            norm_num_groups=4,
        )
    )


def tower() -> ClipText:
    return ClipText(
        ClipTextConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=15,
        )
    )


def loss(module: nn.Module) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 4 * 8 * 8).reshape(2, 4, 8, 8)
    if isinstance(module, UNet):
        cond = Conditioning(context=torch.ones(2, 3, 8))
        return module(x, torch.tensor([1.0, 500.0]), cond).square().mean()
    if isinstance(module, Autoencoder):
        return module.decode(module.encode(x[:, :3]).mean).square().mean()
    return module(torch.arange(16).reshape(2, 8)).tokens.square().mean()


@pytest.mark.parametrize("build", [unet, autoencoder, tower])
def test_recomputed_activations_give_the_same_gradients_and_keep_less(
    build: Callable[[], nn.Module],
):
    gradients: list[list[torch.Tensor]] = []
    kept: list[int] = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = build()
        for parameter in module.parameters():  # residual branches may start at zero
            nn.init.normal_(parameter, std=0.1)
        prepare(module, OptimConfig(recompute=recompute), CPU)
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(module)
        kept.append(sum(sizes))
        value.backward()
        gradients.append([p.grad for p in module.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)
    assert kept[1] < 0.7 * kept[0]
