"""How far a set of pictures is from another: Fréchet and kernel distance between their features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FeatureRows = Float[Tensor, "n d"]
OtherRows = Float[Tensor, "m d"]

INPUT_SIZE = 224
"""The side to which pictures are brought, so that figures compare between picture sizes."""

LEAST_PICTURES = 4
"""The fewest pictures on each side of a distance."""


@dataclass(frozen=True)
class KernelDistance:
    """Squared maximum mean discrepancy: its mean over subsets, and the standard deviation between
    them.
    """

    mean: float
    deviation: float


def frechet_distance(features: FeatureRows, others: OtherRows) -> float:
    """The Fréchet distance of the Gaussians fitted to two sets of features, (n, d) and (m, d).

    `|mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, in float64 (Heusel et al. 2017, eq. 6). The
    trace of the root is the sum of the singular values of `A1^T A2` where `A A^T = C`: no root of a
    near-singular matrix is taken, so that fewer pictures than dimensions do no harm.

    It is biased upwards for small n: compare it at equal numbers only.
    """
    _check_rows(features, others)
    mean, factor = _gaussian(features)
    other_mean, other_factor = _gaussian(others)
    root_trace = cast(Tensor, torch.linalg.svdvals(factor.T @ other_factor)).sum()
    traces = factor.square().sum() + other_factor.square().sum()
    distance = (mean - other_mean).square().sum() + traces - 2 * root_trace
    return max(0.0, float(distance))


def kernel_distance(
    features: FeatureRows,
    others: OtherRows,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """The kernel distance of two sets of features: unbiased squared MMD with the cubic kernel
    `(x . y / d + 1)^3`, averaged over random subsets (Bińkowski et al. 2018, eq. 4 and section 4).

    Subsets are drawn without replacement, of `subset_size` or of half the smaller set. Unbiased, it
    compares between numbers of pictures, and may come out slightly below zero.
    """
    _check_rows(features, others)
    size = max(2, min(subset_size, len(features) // 2, len(others) // 2))
    generator = torch.Generator().manual_seed(seed)
    values: list[Tensor] = []
    for _ in range(subsets):
        x = features[torch.randperm(len(features), generator=generator)[:size]].double()
        y = others[torch.randperm(len(others), generator=generator)[:size]].double()
        values.append(_unbiased_mmd2(x, y))
    stacked = torch.stack(values)
    deviation = float(stacked.std()) if subsets > 1 else 0.0
    return KernelDistance(float(stacked.mean()), deviation)


@torch.inference_mode()
def pooled_features(
    pooled: Callable[[Tensor], Tensor],
    pixels: Float[Tensor, "n 3 h w"],
    *,
    size: int | None = INPUT_SIZE,
    batch_size: int = 32,
) -> FeatureRows:
    """The features (n, d) that a network's `pooled` gives for pictures in [-1, 1].

    Pictures are first rounded to the 256 levels of a file and brought to `size` x `size`,
    bicubically and antialiased (Parmar et al. 2022); None leaves their size to the network.
    """
    rows: list[Tensor] = []
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size].float()
        levels = batch.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)
        if size is not None:
            levels = F.interpolate(levels, (size, size), mode="bicubic", antialias=True)
        rows.append(pooled(levels.clamp(-1, 1)).cpu())
    return torch.cat(rows)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    # The mean (d) and a factor (d, min(n, d)) whose product with its transpose is the covariance.
    x = features.double()
    mean = x.mean(dim=0)
    factor = (x - mean).T / math.sqrt(len(x) - 1)
    if factor.shape[1] > factor.shape[0]:
        variances, axes = cast(tuple[Tensor, Tensor], torch.linalg.eigh(factor @ factor.T))
        factor = axes * variances.clamp(min=0).sqrt()
    return mean, factor


def _unbiased_mmd2(x: Tensor, y: Tensor) -> Tensor:
    n = len(x)
    within = _off_diagonal_sum(_kernel(x, x)) + _off_diagonal_sum(_kernel(y, y))
    return within / (n * (n - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_sum(kernel: Tensor) -> Tensor:
    return kernel.sum() - kernel.diagonal().sum()


def _check_rows(features: Tensor, others: Tensor) -> None:
    if min(len(features), len(others)) < LEAST_PICTURES:
        raise ValueError(
            f"A distance needs at least {LEAST_PICTURES} pictures on each side, got "
            f"{len(features)} and {len(others)}."
        )
