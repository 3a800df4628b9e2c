"""Weights held in fewer bytes than they compute with."""

import copy

import pytest
import torch
from torch import nn

from safelight.models.unet import UNet
from safelight.nn.deltas import Decomposed, LowRank
from safelight.nn.lora import adaptable, eject, fresh, fused, inject
from safelight.nn.stored import Room, StoredConv2d, StoredLinear, store, weight_of
from safelight.types import Conditioning
from tiny_model import tiny_folder

X, T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.full((2,), 300.0)
COND = Conditioning(torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def unet() -> UNet:
    return tiny_folder().unet


def made(unet: UNet) -> torch.Tensor:
    with torch.no_grad():
        return unet(X, T, COND)


def stored_like(unet: UNet, dtype: torch.dtype) -> UNet:
    """A network with plain layers whose weights are those that a stored one computes with."""
    plain, held = copy.deepcopy(unet), copy.deepcopy(unet)
    store(held, dtype, torch.float32)
    layers = dict(adaptable(plain))
    for path, layer in adaptable(held):
        layers[path].weight.data = weight_of(layer)
    return plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_a_network_computes_with_what_its_layers_hold(unet: UNet, dtype: torch.dtype):
    exact, wanted = made(unet), made(stored_like(unet, dtype))
    store(unet, dtype, torch.float32)
    ours = made(unet)
    assert torch.equal(ours, wanted)
    assert not torch.equal(ours, exact)
    error = float((ours - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert error < {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.int8: 3e-2}[dtype]


def test_all_layers_hold_less_but_the_first_and_the_last(unet: UNet):
    before = sum(p.numel() * p.element_size() for p in unet.parameters())
    store(unet, torch.int8, torch.float32)
    plain = [
        path
        for path, layer in adaptable(unet)
        if not isinstance(layer, (StoredLinear, StoredConv2d))
    ]
    assert plain == ["conv_in", "conv_out"]
    assert all(not layer.training for _, layer in adaptable(unet))
    after = sum(t.numel() * t.element_size() for t in (*unet.parameters(), *unet.buffers()))
    assert after < 0.35 * before


def test_whole_numbers_are_half_a_step_away_at_most_and_a_row_of_zeros_is_one():
    base = nn.Linear(7, 5)
    base.weight.data[3] = 0
    wanted = base.weight.detach().clone()
    holder = nn.Sequential(base)
    store(holder, torch.int8, torch.float32)
    [held] = holder
    assert isinstance(held, StoredLinear)
    assert held.weight.dtype == torch.int8
    step = wanted.abs().amax(1, keepdim=True) / 127
    assert ((held.whole_weight() - wanted).abs() <= step / 2 + 1e-7).all()
    assert int(held.weight[[0, 1, 2, 4]].abs().max()) == 127
    assert float(held.whole_weight()[3].abs().max()) == 0


def test_layers_share_one_room_and_leave_their_outputs_alone():
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.Conv2d(1, 2, 3))
    store(network, torch.float16, torch.float32)
    first, second, conv = network
    assert first.room is second.room is conv.room
    x = torch.randn(3, 8)
    with torch.no_grad():
        one = first(x)
        kept = one.clone()
        second(one)
        conv(x.reshape(1, 1, 4, 6))
        assert torch.equal(one, kept)
    with torch.inference_mode():
        Room().of(torch.Size((2, 2)), x)
        assert torch.equal(first(x), kept)
    with torch.no_grad():
        assert torch.equal(first(x), kept)
        assert first(x.bfloat16().float()).dtype == torch.float32


@pytest.mark.parametrize("decomposed", [False, True], ids=["LoRA", "DoRA"])
def test_adapters_stay_around_stored_layers(unet: UNet, decomposed: bool):
    plain = stored_like(unet, torch.int8)
    store(unet, torch.int8, torch.float32)
    bare = made(unet)
    torch.manual_seed(3)
    deltas: dict[str, nn.Module] = {}
    for path, layer in adaptable(plain):
        if "attn" in path or "conv1" in path:
            delta: nn.Module = fresh(layer, 2, 2.0)
            assert isinstance(delta, LowRank)
            delta.up.data = torch.randn_like(delta.up) * 0.1
            if decomposed:
                delta = Decomposed(delta, torch.rand(layer.weight.shape[0]) + 0.5)
            deltas[path] = delta
    assert any("conv1" in path for path in deltas)
    for network in (plain, unet):
        inject(network, "style", copy.deepcopy(deltas), 0.7)
    adapted = made(unet)
    torch.testing.assert_close(adapted, made(plain), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(adapted, bare, atol=1e-2)
    with fused(unet):
        assert torch.equal(made(unet), adapted)
    eject(unet)
    assert torch.equal(made(unet), bare)


def test_gradients_are_not_lost_in_silence(unet: UNet):
    store(unet, torch.float16, torch.float32)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        unet(X.clone().requires_grad_(), T, COND).sum().backward()
