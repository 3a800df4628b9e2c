"""A guided teacher's opinion of what a student makes, as a loss.

Source: Sauer et al. 2023 (ADD, arXiv 2311.17042), section 3.3 and appendix A.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import per_image
from safelight.diffusion.objective import Weight
from safelight.types import Denoise

Weighting = Literal["exponential", "sds", "uniform"]


def score_distillation(
    x0: Float[Tensor, "b c h w"],
    teacher: Denoise,
    sigma: Float[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    weight: Weight,
) -> Float[Tensor, " b"]:
    """Each image's weighted mean squared error between a student's x0 and what the teacher makes of
    it after noise is put upon it; no gradients go through the teacher (ADD, eq. 4).

    Differs from ADD in that it is a mean over the latent's values, not a sum, because its weight
    against the adversary then holds at any size.
    """
    with torch.no_grad():
        target = teacher(x0 + per_image(sigma, x0) * noise, sigma)
    return weight(sigma) * (x0 - target).square().flatten(1).mean(1)


def exponential(sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """c(t) = alpha_t, with alpha_t^2 = 1 / (1 + sigma^2): more noise counts less (ADD, section
    3.3).
    """
    return (1 + sigma**2).rsqrt()


def sds(sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """c(t) = alpha_t / (2 sigma_t) w(t), by which the gradient is that of score distillation
    sampling, `w(t) (eps_teacher - eps)` (ADD, appendix A), with w(t) = sigma_t^2 (Poole et al.
    2022, arXiv 2209.14988).
    """
    return sigma / (2 * (1 + sigma**2))  # alpha_t * sigma_t = sigma / (1 + sigma^2)


def uniform(sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """c(t) = 1."""
    return torch.ones_like(sigma)


WEIGHTINGS: dict[Weighting, Weight] = {"exponential": exponential, "sds": sds, "uniform": uniform}
"""c(t) by its name."""
