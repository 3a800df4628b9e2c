"""What a network's output means: sigma to the scalings that turn it into x0."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.config import near
from safelight.errors import SafelightError
from safelight.types import Scalings


@runtime_checkable
class Parameterization(Protocol):
    """`sigma` (b,) to the scalings of `x0 = c_skip * x + c_out * network(c_in * x, t)`."""

    def __call__(self, sigma: Float[Tensor, " b"]) -> Scalings:
        """The scalings at each noise level."""
        ...


def eps(sigma: Float[Tensor, " b"]) -> Scalings:
    """The network predicts the noise (Ho et al. 2020, eq. 11) from unit-variance input."""
    return Scalings(c_skip=torch.ones_like(sigma), c_out=-sigma, c_in=_unit_variance(sigma))


def v(sigma: Float[Tensor, " b"]) -> Scalings:
    """The network predicts `alpha * noise - sigma_vp * x0`, both at unit variance (Salimans and Ho
    2022, appendix D).
    """
    alpha = _unit_variance(sigma)
    return Scalings(c_skip=alpha**2, c_out=-sigma * alpha, c_in=alpha)


def x0(sigma: Float[Tensor, " b"]) -> Scalings:
    """The network predicts x0 itself from unit-variance input."""
    return Scalings(torch.zeros_like(sigma), torch.ones_like(sigma), _unit_variance(sigma))


@dataclass(frozen=True)
class Edm:
    """The network's input and target have unit variance at every sigma, for latents of standard
    deviation `sigma_data` (Karras et al. 2022, table 1).

    `negated` turns the output's sign: at a `sigma_data` of 1 that is `v`, and it is what diffusers'
    EDM classes mean by v_prediction.
    """

    sigma_data: float
    negated: bool = False

    def __call__(self, sigma: Float[Tensor, " b"]) -> Scalings:
        """The scalings at each noise level."""
        total = sigma**2 + self.sigma_data**2
        c_out = sigma * self.sigma_data * total.rsqrt()
        return Scalings(
            c_skip=self.sigma_data**2 / total,
            c_out=-c_out if self.negated else c_out,
            c_in=total.rsqrt(),
        )


def edm(sigma_data: float, *, negated: bool = False) -> Edm:
    """The parameterization of Karras et al. 2022; see `Edm`."""
    return Edm(sigma_data, negated)


def flow(sigma: Float[Tensor, " b"]) -> Scalings:
    """The network predicts the velocity `noise - x0` from `(1 - u) x0 + u noise`, with
    `u = sigma / (1 + sigma)` (Liu et al. 2022, eq. 1).
    """
    clean = 1 / (1 + sigma)  # 1 - u
    return Scalings(c_skip=clean, c_out=-sigma * clean, c_in=clean)


BY_NAME: dict[str, Parameterization] = {
    "epsilon": eps,
    "eps": eps,
    "v_prediction": v,
    "v": v,
    "sample": x0,
    "x0": x0,
    "flow_prediction": flow,
    "flow": flow,
}
"""Parameterizations without a parameter, by our names and by diffusers' `prediction_type`."""


def by_name(prediction_type: str) -> Parameterization:
    """The parameterization of a name, ours or diffusers' `prediction_type`.

    Raises `SafelightError` for an unknown name, with the near ones.
    """
    if prediction_type not in BY_NAME:
        raise SafelightError(
            f"Unknown prediction type {prediction_type!r}. {near(prediction_type, BY_NAME)}"
        )
    return BY_NAME[prediction_type]


def _unit_variance(sigma: Tensor) -> Tensor:
    return (sigma**2 + 1).rsqrt()
