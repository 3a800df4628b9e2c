import pytest
import torch
from torch import nn

from safelight.train.ema import Averages


def weight(module: nn.Linear) -> float:
    return float(module.weight.detach())


def test_averages_follow_the_formula_with_its_warm_up():
    module = nn.Linear(1, 1, bias=False)
    averages = Averages({"m": module}, decay=0.5)
    expected = 0.0
    for n, value in enumerate((1.0, 5.0, -2.0, 4.0, 4.0, 0.0, 8.0, 1.0, 1.0, 1.0, 2.0, 9.0)):
        module.weight.data.fill_(value)
        averages.update()
        decay = min(0.5, n / (n + 9))
        expected = decay * expected + (1 - decay) * value
        assert averages.tensors["m.weight"].item() == pytest.approx(expected, rel=1e-5)
    assert averages.decay_now == 0.5


def test_applied_puts_the_averages_in_and_the_weights_back():
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3)).to(
        memory_format=torch.channels_last
    )
    averages = Averages({"m": module}, decay=0.9)
    averages.update()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with averages.applied():
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, averages.tensors[f"m.{name}"])
            assert not torch.equal(tensor, own[name])
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert tensor.stride() == averages.tensors[f"m.{name}"].stride()
