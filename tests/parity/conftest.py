"""The oracles: diffusers' and transformers' networks in each family's layout, tiny and random."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

logging.getLogger("transformers").setLevel(logging.ERROR)
logging.getLogger("diffusers").setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def _quiet_and_seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def shaken(module: nn.Module) -> nn.Module:
    """Moves every parameter off its initial value, so that ones, zeros and ties hide no mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def saved(module: nn.Module, folder: Path, **options: object) -> Path:
    """Writes an oracle by its own `save_pretrained`."""
    module.save_pretrained(folder, **options)
    return folder


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The greatest absolute error, as a part of the oracle's greatest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
