"""The training objective: noise levels to train on, the target, and the loss weight, apart."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser, per_image
from safelight.diffusion.noise_schedule import DiscreteSchedule, NoiseSchedule
from safelight.diffusion.parameterization import Parameterization
from safelight.types import Conditioning


@runtime_checkable
class SigmaLaw(Protocol):
    """Draws `n` noise levels to train on: (n,) float32, on the generator's device."""

    def __call__(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """The next `n` draws."""
        ...


@runtime_checkable
class Weight(Protocol):
    """sigma (n,) to the factor (n,) of each image's loss, in the space of the network's output."""

    def __call__(self, sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The weight at each noise level."""
        ...


def diffusion_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b c h w"],
    cond: Conditioning,
    sigma: Float[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    weight: Weight,
) -> Float[Tensor, " b"]:
    """Each image's weighted mean squared error between the network's output and its target.

    The target is `(x0 - c_skip * x) / c_out` with `x = x0 + sigma * noise` (Karras et al. 2022,
    eq. 8): the noise for eps, the velocity for v and flow, x0 for x0. All in x0's dtype, which
    should be float32.
    """
    x = x0 + per_image(sigma, x0) * noise
    output, scalings = denoiser.output(x, sigma, cond)
    target = (x0 - per_image(scalings.c_skip, x) * x) / per_image(scalings.c_out, x)
    return weight(sigma) * (output - target).square().flatten(1).mean(1)


def uniform_t(schedule: DiscreteSchedule) -> SigmaLaw:
    """Every entry of the table equally often (Ho et al. 2020, algorithm 1)."""
    table = schedule.sigmas.float()

    def draw(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        index = torch.randint(len(table), (n,), generator=generator, device=generator.device)
        return table.to(generator.device)[index]

    return draw


def uniform_time(schedule: NoiseSchedule, shift: float = 1.0) -> SigmaLaw:
    """Times drawn uniformly between the schedule's ends, for schedules with a continuous time; then
    sigma times `shift`, which is a flow's time shift (Esser et al. 2024, eq. 23).
    """
    ends = torch.tensor([schedule.sigma_min, schedule.sigma_max], dtype=torch.float64)
    low, high = (t.item() for t in schedule.sigma_to_t(ends))

    def draw(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        u = torch.rand(n, generator=generator, device=generator.device)
        return shift * schedule.t_to_sigma(low + (high - low) * u)

    return draw


def log_normal(mean: float = -1.2, std: float = 1.2) -> SigmaLaw:
    """`ln(sigma)` normal (Karras et al. 2022, table 1)."""

    def draw(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        return (mean + std * torch.randn(n, generator=generator, device=generator.device)).exp()

    return draw


def logit_normal(mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> SigmaLaw:
    """The logit of the flow's u normal, then shifted (Esser et al. 2024, eq. 19 and 23).

    As `sigma = u / (1 - u)`, the logit of u is ln(sigma), and the shift is a factor on sigma.
    """
    law = log_normal(mean, std)
    return lambda n, generator: shift * law(n, generator)


def uniform(sigma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weight 1 on the network's own loss: the simple loss of eps (Ho et al. 2020, eq. 14), the v
    loss, the x0 loss.
    """
    return torch.ones_like(sigma)


def min_snr(gamma: float, parameterization: Parameterization) -> Weight:
    """`min(SNR, gamma)` on the x0 loss, SNR = 1 / sigma^2 (Hang et al. 2023, section 3.4).

    On the network's loss that is a factor `c_out^2` more: `min(SNR, gamma) / SNR` for eps,
    `min(SNR, gamma) / (SNR + 1)` for v, `min(SNR, gamma)` for x0.
    """
    return _on_x0(lambda sigma: sigma.pow(-2).clamp(max=gamma), parameterization)


def snr(parameterization: Parameterization) -> Weight:
    """SNR = 1 / sigma^2 on the x0 loss, which is the eps loss for any parameterization (Salimans
    and Ho 2022, section 4).
    """
    return _on_x0(lambda sigma: sigma.pow(-2), parameterization)


def edm(sigma_data: float, parameterization: Parameterization) -> Weight:
    """`(sigma^2 + sigma_data^2) / (sigma * sigma_data)^2` on the x0 loss (Karras et al. 2022, table
    1), which is weight 1 for the EDM parameterization.
    """
    return _on_x0(
        lambda sigma: (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2, parameterization
    )


def _on_x0(weight: Weight, parameterization: Parameterization) -> Weight:
    # x0 - denoised = c_out * (target - output), so the x0 loss is c_out^2 times the network's.
    return lambda sigma: weight(sigma) * parameterization(sigma).c_out ** 2
