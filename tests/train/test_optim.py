from pathlib import Path

import pytest
import torch
from torch import nn

from safelight.errors import SafelightError
from safelight.train.optim import OptimConfig, adamw, autocast_dtype, lr_at, prepare


def test_learning_rate_rises_then_falls_along_a_cosine():
    config = OptimConfig(lr=1.0, warmup=4, schedule="cosine", final_lr=0.1)
    rates = [lr_at(config, step, 14) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx((1 + 0.1) / 2)
    assert lr_at(config, 14, 14) == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_learning_rate_stays():
    config = OptimConfig(lr=1.0, warmup=2)
    assert [lr_at(config, step, 10) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]


def test_constant_learning_rate_falls_over_its_cooldown_alone():
    config = OptimConfig(lr=1.0, warmup=2, cooldown=4, final_lr=0.2)
    rates = [lr_at(config, step, 10) for step in range(11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    longer = [lr_at(config, step, 20) for step in range(11)]
    assert longer[:7] == pytest.approx(rates[:7])  # more steps change nothing before the fall
    with pytest.raises(SafelightError, match="cooldown"):
        OptimConfig(schedule="cosine", cooldown=4)


def test_weight_decay_spares_vectors():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    optimiser = adamw(module.parameters(), OptimConfig(weight_decay=0.1))
    decayed = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }
    assert decayed[id(module[0].weight)] == 0.1
    assert all(decayed[id(p)] == 0 for p in (module[0].bias, module[1].weight, module[1].bias))


def test_frozen_weights_have_no_optimiser():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    (group,) = adamw(module.parameters(), OptimConfig()).param_groups
    assert group["params"] == [module.weight]


def test_precision_is_what_the_recipe_says_or_what_the_machine_multiplies():
    cpu = torch.device("cpu")
    assert autocast_dtype("float32", cpu) is None
    assert autocast_dtype("bfloat16", cpu) is torch.bfloat16
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    fast = "avx512_bf16" in flags or "amx_tile" in flags
    assert autocast_dtype("auto", cpu) is (torch.bfloat16 if fast else None)


def test_prepare_lays_kernels_out_channels_last():
    module = nn.Conv2d(3, 4, 3)
    prepare(module, OptimConfig(), torch.device("cpu"))
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"lr": 0.0}, r"optim\.lr should be above 0, got 0\.0"),
        ({"lr": float("nan")}, r"optim\.lr"),
        ({"accumulate": 0}, r"optim\.accumulate should be at least 1, got 0"),
        ({"warmup": -1}, r"optim\.warmup should be at least 0, got -1"),
        ({"final_lr": -0.1}, r"optim\.final_lr"),
        ({"weight_decay": -0.1}, r"optim\.weight_decay"),
        ({"clip": -1.0}, r"optim\.clip"),
        ({"clip": float("nan")}, r"optim\.clip"),
        ({"betas": (1.0, 0.9)}, r"optim\.betas should be in \[0, 1\), got \[1\.0, 0\.9\]"),
        ({"betas": (0.9, -0.1)}, r"optim\.betas"),
    ],
)
def test_mistakes_are_named(values: dict[str, float], told: str):
    with pytest.raises(SafelightError, match=told):
        OptimConfig(**values)


def test_compile_is_passed_on_to_whatever_has_a_forward(monkeypatch: pytest.MonkeyPatch):
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    whole, parts = nn.Sequential(nn.Linear(2, 2)), nn.Module()
    parts.encoder, parts.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    prepare(whole, OptimConfig(compile=False), torch.device("cpu"))
    assert compiled == []
    for module in (whole, parts):
        prepare(module, OptimConfig(compile=True), torch.device("cpu"))
    assert compiled == [whole, parts.encoder, parts.decoder]
