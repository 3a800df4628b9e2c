"""Small worlds in which the right answer is known."""

import pytest
import torch
from torch import Tensor

from safelight.rng import SeededNoise


def mixture_denoise(means: Tensor, stds: Tensor, weights: Tensor):
    """The exact x0 of a mixture of isotropic Gaussians: `denoise(x, sigma)` for x (b, c, 1, 1).

    means (k, c), stds (k,), weights (k,).
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        point = x.flatten(1)[:, None]  # (b, 1, c)
        spread = stds.to(x) ** 2  # (k,)
        total = spread + sigma.to(x)[:, None] ** 2  # (b, k)
        away = (point - means.to(x)).square().sum(-1)  # (b, k)
        log_odds = weights.to(x).log() - away / (2 * total) - means.shape[1] / 2 * total.log()
        shrunk = means.to(x) + (spread / total)[..., None] * (point - means.to(x))  # (b, k, c)
        odds = log_odds.softmax(1)[..., None]
        return (odds * shrunk).sum(1).reshape(x.shape)

    return denoise


@pytest.fixture(scope="session")
def mixture():
    """Three Gaussians in the plane, of unlike width and weight."""
    return mixture_denoise(
        torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.1]], dtype=torch.float64),
        torch.tensor([0.5, 0.3, 0.4], dtype=torch.float64),
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    )


@pytest.fixture
def noise():
    return SeededNoise([11, 12])


@pytest.fixture(scope="session")
def silent():
    """Noise that a deterministic sampler must not ask for."""

    def refuse(shape, index):
        raise AssertionError(f"Draw {index} was asked for.")

    return refuse
