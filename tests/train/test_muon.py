"""Muon: what it does to matrices, and what it leaves to AdamW."""

import pytest
import torch
from torch import nn

from safelight.train.muon import Muon, orthogonalised
from safelight.train.optim import OptimConfig, muon


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_singular_values_come_near_one(shape: tuple[int, int], size: float):
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    matrix = size * (u * torch.logspace(0, -1.8, min(shape))) @ v
    values = torch.linalg.svdvals(orthogonalised(matrix[None]))
    assert values.min() > 0.7
    assert values.max() < 1.3


def test_nothing_stays_nothing():
    assert orthogonalised(torch.zeros(2, 8, 8)).abs().max() == 0


def test_singular_vectors_stay():
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalised(matrix[None])[0] @ v.T
    off_diagonal = inner - inner.diag().diag()
    assert off_diagonal.abs().max() < 1e-3


def test_matrices_of_one_shape_go_together_without_mixing():
    matrices = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(0))
    matrices *= torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    alone = torch.cat([orthogonalised(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices), alone)


def test_steps_are_as_long_as_adamws():
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, 3, bias=False)
    before = layer.weight.detach().clone()
    optimiser = muon(layer.parameters(), OptimConfig(optimizer="muon", lr=1e-2, weight_decay=0.0))
    layer.weight.grad = torch.randn_like(layer.weight)
    optimiser.step()
    rms = (layer.weight.detach() - before).square().mean().sqrt().item()
    assert rms == pytest.approx(0.2 * 1e-2, rel=0.2)


def test_vectors_and_tables_are_left_to_adamw():
    torch.manual_seed(0)
    module = nn.ModuleDict({"table": nn.Embedding(500, 8), "layer": nn.Linear(8, 8)})
    twin = nn.ModuleDict({"table": nn.Embedding(500, 8), "layer": nn.Linear(8, 8)})
    twin.load_state_dict(module.state_dict())
    config = OptimConfig(optimizer="muon", lr=1e-2, weight_decay=0.0)
    optimisers = (
        muon(module.parameters(), config),
        torch.optim.AdamW(twin.parameters(), lr=1e-2, betas=config.betas, weight_decay=0.0),
    )
    for _ in range(3):
        for model, optimiser in zip((module, twin), optimisers, strict=True):
            ids = torch.arange(20)
            model["layer"](model["table"](ids)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        # the layer's matrix goes its own way; keep the twins' other gradients alike
        twin["layer"].weight.data.copy_(module["layer"].weight.data)
    torch.testing.assert_close(module["table"].weight, twin["table"].weight)
    torch.testing.assert_close(module["layer"].bias, twin["layer"].bias)
    kinds = [group.get("orthogonal", False) for group in optimisers[0].param_groups]
    assert kinds == [True, False]


def test_learns_a_linear_map():
    torch.manual_seed(0)
    layer, target = nn.Linear(16, 16), nn.Linear(16, 16)
    optimiser = Muon(
        [
            {"params": [layer.weight], "orthogonal": True},
            {"params": [layer.bias]},
        ],
        lr=0.02,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    x = torch.randn(256, 16)
    first = (layer(x) - target(x)).square().mean().item()
    for step in range(200):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1 - step / 200)
        loss = (layer(x) - target(x).detach()).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < first / 100
