from pathlib import Path

import pytest
import torch
from torch import nn
from train_toys import Denoising, run

from safelight.errors import SafelightError
from safelight.train.fresh import Fresh, at_rate
from safelight.train.optim import OPTIMISERS, OptimConfig
from safelight.train.task import Phase


def _changes(optimizer: str, times: float) -> list[torch.Tensor]:
    torch.manual_seed(0)
    wide, table = nn.Parameter(torch.randn(4, 6, 3, 3)), nn.Parameter(torch.zeros(5, 4))
    before = [wide.detach().clone(), table.detach().clone()]
    config = OptimConfig(lr=0.01, optimizer=optimizer, weight_decay=0.1)
    optimiser = OPTIMISERS[optimizer]([wide, table], config)
    wide.grad, table.grad = torch.randn_like(wide), torch.randn_like(table)
    with at_rate([Fresh(wide, 4), Fresh(table)], times):
        optimiser.step()
    return [after.detach() - then for after, then in zip((wide, table), before, strict=True)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_new_changes_at_its_own_rate(optimizer):
    (wide, table), (wide_10, table_10) = _changes(optimizer, 1.0), _changes(optimizer, 10.0)
    assert torch.equal(wide_10[:, :4], wide[:, :4])  # the old channels of the same kernel
    torch.testing.assert_close(wide_10[:, 4:], 10 * wide[:, 4:])
    torch.testing.assert_close(table_10, 10 * table)
    assert wide.abs().min() > 0
    assert table.abs().min() > 0


class _PartlyNew(Denoising):
    """A task whose last layer is new."""

    @property
    def phases(self):
        fresh = [Fresh(parameter) for parameter in self.network[2].parameters()]
        return {"main": Phase({"network": self.network}, fresh=fresh)}


def _trained(folder: Path, fresh_lr: float) -> dict[str, torch.Tensor]:
    task = _PartlyNew()
    run(task, folder, optim=OptimConfig(lr=1e-3, warmup=0, fresh_lr=fresh_lr), steps=1)
    return task.weights()


def test_the_loop_trains_what_is_new_by_fresh_lr(tmp_path):
    start = Denoising().weights()
    plain = _trained(tmp_path / "plain", 1.0)
    faster = _trained(tmp_path / "faster", 8.0)
    for name in start:
        change = plain[name] - start[name]
        torch.testing.assert_close(
            faster[name] - start[name],
            change * (8 if name.startswith("2.") else 1),
            rtol=1e-3,
            atol=1e-6,
        )


def test_a_rate_for_what_is_new_is_refused_where_nothing_is(tmp_path):
    with pytest.raises(SafelightError, match="would change nothing"):
        run(Denoising(), tmp_path, optim=OptimConfig(fresh_lr=2.0))
