"""Noise levels and the network's time: `x = x0 + sigma * noise`, and sigma <-> t."""

import math
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.errors import SafelightError

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
"""Laws by which betas rise, in diffusers' words."""

Between = Literal["log", "linear", "nearest", "floor"]
"""What t a sigma between two entries of a table has; see `DiscreteSchedule`."""


@runtime_checkable
class NoiseSchedule(Protocol):
    """The noise levels that a network knows, and its own name for each: the time t."""

    @property
    def sigma_min(self) -> float:
        """The least noise that the network was trained on."""
        ...

    @property
    def sigma_max(self) -> float:
        """The most noise that the network was trained on; always finite."""
        ...

    def sigma_to_t(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The network's time at each noise level, in sigma's dtype."""
        ...

    def t_to_sigma(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The noise level at each of the network's times, in t's dtype."""
        ...


class DiscreteSchedule:
    """A table of noise levels at t = 0, 1, ..., n - 1, as DDPM trains (Ho et al. 2020, section 2).

    `alphas_cumprod` (n,) falls from about 1 to about 0; sigma is `sqrt((1 - a) / a)`. Where an
    entry is 0 (zero terminal SNR) sigma is `terminal_sigma`: 4096 in most of diffusers, infinite in
    its DDIM, for which 2^20 stands. A table's sigma, in float32 or float64, has its integer as
    t; beyond the table's ends t stays at the end; and between entries:

    - "log": linear in log sigma, as k-diffusion and diffusers' Karras spacing do;
    - "linear": linear in sigma, as diffusers' Euler and Heun do for fractional linspace times;
    - "nearest" and "floor": as "log", then rounded or cut, as diffusers' DPM-Solver does with
      Karras' levels and with other curves; cut, its last time is the one before the end.

    Raises `SafelightError` if the table does not fall strictly.
    """

    def __init__(
        self,
        alphas_cumprod: Float[Tensor, " n"],
        between: Between = "log",
        terminal_sigma: float = 4096.0,
    ):
        a = alphas_cumprod.to(torch.float64)
        a = torch.where(a == 0, 1 / (1 + terminal_sigma**2), a)
        if len(a) < 2 or not (a > 0).all() or not (a < 1).all() or not (a.diff() < 0).all():
            raise SafelightError(
                "Expected alphas_cumprod to fall strictly between 1 and 0 over at least two times; "
                "check the scheduler's betas (each must lie between 0 and 1)."
            )
        self.sigmas: Float[Tensor, " n"] = ((1 - a) / a).sqrt()  # ascending, float64
        self.between: Between = between
        self._grid = self.sigmas if between == "linear" else self.sigmas.log()

    @classmethod
    def from_betas(
        cls,
        betas: Float[Tensor, " n"],
        between: Between = "log",
        terminal_sigma: float = 4096.0,
    ) -> "DiscreteSchedule":
        """The schedule whose noise grows by variance `betas` (n,) at each time."""
        return cls((1 - betas.to(torch.float64)).cumprod(0), between, terminal_sigma)

    def __len__(self) -> int:
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        """The table's first sigma."""
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        """The table's last sigma."""
        return self.sigmas[-1].item()

    def sigma_to_t(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time, in [0, n - 1], of each noise level; clamped beyond the table."""
        grid = self._grid.to(sigma.device, _accurate(sigma))
        level = sigma.to(grid.dtype)
        if self.between != "linear":
            level = level.clamp(min=1e-10).log()
        low = (torch.searchsorted(grid, level.contiguous(), right=True) - 1).clamp(0, len(grid) - 2)
        weight = ((level - grid[low]) / (grid[low + 1] - grid[low])).clamp(0, 1)
        t = low + weight
        # A float32 sigma of the table lands this near its integer, which is what the network knows.
        reach = 0.5 if self.between == "nearest" else 1e-4
        t = torch.where((t - t.round()).abs() <= reach, t.round(), t)
        if self.between == "floor":
            t = t.floor().clamp(max=len(grid) - 2)
        return t.to(sigma.dtype)

    def t_to_sigma(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The noise level at each time, in the table's range; clamped beyond it."""
        grid = self._grid.to(t.device, _accurate(t))
        position = t.to(grid.dtype).clamp(0, len(grid) - 1)
        low = position.floor().long().clamp(max=len(grid) - 2)
        level = torch.lerp(grid[low], grid[low + 1], position - low)
        return (level if self.between == "linear" else level.exp()).to(t.dtype)


class EdmSchedule:
    """Continuous noise levels with `t = ln(sigma) / 4` (Karras et al. 2022, table 1, c_noise)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise SafelightError(
                f"Expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}."
            )
        self._sigma_min, self._sigma_max = sigma_min, sigma_max

    @property
    def sigma_min(self) -> float:
        """The least noise trained on."""
        return self._sigma_min

    @property
    def sigma_max(self) -> float:
        """The most noise trained on."""
        return self._sigma_max

    def sigma_to_t(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`ln(sigma) / 4`."""
        return sigma.clamp(min=1e-10).log() / 4

    def t_to_sigma(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`exp(4 t)`."""
        return (4 * t).exp()


class FlowSchedule:
    """Rectified flow, `x_flow = (1 - u) x0 + u noise` for u in [0, 1] (Liu et al. 2022, eq. 1).

    In sigma space `x = x_flow / (1 - u)` and `sigma = u / (1 - u)`; its time is `num * u`.
    `shift` moves the times that are laid out for sampling and training (Esser et al. 2024, eq. 23),
    which in sigma space is a mere factor; sigma <-> t does not depend on it. Pure noise, u = 1,
    stands at the finite sigma 2^30, where the time is `num` up to float32. `whole_times` cuts the
    fraction off the network's time, as diffusers' DPM-Solver does.
    """

    def __init__(self, shift: float = 1.0, num: int = 1000, *, whole_times: bool = False):
        if shift <= 0 or num < 2:
            raise SafelightError(
                f"Expected shift > 0 and at least 2 times, got shift {shift} and {num} times."
            )
        self.shift = shift
        self.num = num
        self.whole_times = whole_times

    @property
    def sigma_min(self) -> float:
        """The shifted sigma of u = 1 / num."""
        return self.shift / (self.num - 1)

    @property
    def sigma_max(self) -> float:
        """2^30, which stands for pure noise."""
        return 2.0**30

    def sigma_to_t(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`num * sigma / (1 + sigma)`."""
        level = sigma.to(_accurate(sigma))
        t = self.num * level / (1 + level)
        if self.whole_times:
            t = (t + 1e-4).floor()  # a float32 sigma of a whole time may lie this far below it
        return t.to(sigma.dtype)

    def t_to_sigma(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`t / (num - t)`, at most `sigma_max`."""
        time = t.to(_accurate(t))
        return (time / (self.num - time).clamp(min=0)).clamp(max=self.sigma_max).to(t.dtype)


def betas_by_law(law: BetaSchedule, num: int, start: float, end: float) -> Float[Tensor, " num"]:
    """Betas of one of diffusers' laws, float64; the cosine's have ends of their own."""
    if law == "squaredcos_cap_v2":
        return cosine_betas(num)
    return (linear_betas if law == "linear" else scaled_linear_betas)(num, start, end)


def linear_betas(num: int = 1000, start: float = 1e-4, end: float = 0.02) -> Float[Tensor, " num"]:
    """Betas that rise linearly (Ho et al. 2020, section 4), float64."""
    return torch.linspace(start, end, num, dtype=torch.float64)


def scaled_linear_betas(
    num: int = 1000, start: float = 0.00085, end: float = 0.012
) -> Float[Tensor, " num"]:
    """Betas whose square roots rise linearly, as latent diffusion trains (Rombach et al. 2022),
    float64.
    """
    return torch.linspace(start**0.5, end**0.5, num, dtype=torch.float64) ** 2


def cosine_betas(num: int = 1000, max_beta: float = 0.999) -> Float[Tensor, " num"]:
    """Betas of a squared-cosine alphas_cumprod (Nichol and Dhariwal 2021, eq. 17), float64."""
    t = torch.linspace(0, 1, num + 1, dtype=torch.float64)
    bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp(max=max_beta)


def rescale_zero_terminal_snr(betas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Betas whose last time is pure noise, the first unchanged (Lin et al. 2023, algorithm 1)."""
    root = (1 - betas.to(torch.float64)).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    bar = root**2
    return 1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])


def _accurate(like: Tensor) -> torch.dtype:
    # mps has no float64; everywhere else a table is looked up in it, so that an integer time comes
    # back as that integer after rounding to float32.
    return torch.float32 if like.device.type == "mps" else torch.float64
