"""Quantiles of the distribution Beta(0.6, 0.6), for which torch has no function."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_A = 0.6
_TERMS, _HALVINGS = 64, 60
"""At x <= 1/2 both leave an error of about 2^-60."""


def beta_quantiles(shares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The x in [0, 1] below which each share (n,), from 0 to 1, of Beta(0.6, 0.6) lies, in float64.

    By bisection of its distribution function below 1/2; above, by symmetry.
    """
    least = torch.minimum(shares, 1 - shares).to(torch.float64)
    low, high = torch.zeros_like(least), torch.full_like(least, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _cdf(middle) < least
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = torch.where((least > 0) & (least < 0.5), (low + high) / 2, least)  # exact at both ends
    return torch.where(shares > 0.5, 1 - x, x)


def _cdf(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The regularized incomplete beta function for x up to 1/2, by its power series (Abramowitz and
    Stegun 1964, eq. 26.5.4): `x^a / B(a, a) * sum (1 - a)_n / n! * x^n / (a + n)`.
    """
    term, total = torch.ones_like(x), torch.full_like(x, 1 / _A)
    for n in range(1, _TERMS):
        term = term * x * (n - _A) / n
        total = total + term / (_A + n)
    log_beta = 2 * math.lgamma(_A) - math.lgamma(2 * _A)
    return x**_A * total * math.exp(-log_beta)
