"""Noise levels that a user chooses in place of the model's own, by name.

Each gives (steps + 1,) falling float64 levels, the last 0. "karras" and "exponential" span the
levels that the network was trained on; "normal", "sgm_uniform", "simple" and "beta" are laid out
over its times, as ComfyUI does; "ays" are published tables.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.config import near
from safelight.diffusion.beta_distribution import beta_quantiles
from safelight.diffusion.noise_schedule import DiscreteSchedule, FlowSchedule, NoiseSchedule
from safelight.diffusion.sigmas import Spacing, check_steps, exponential_sigmas, karras_sigmas
from safelight.errors import SafelightError

SPACINGS: tuple[Spacing, ...] = ("leading", "trailing", "linspace")
"""Layouts of the model's own times, by the rules of diffusers' class; see `sigmas`."""

_AYS: Mapping[str, tuple[float, ...]] = {
    "ays": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays_sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "ays_svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
"""Align Your Steps (Sabour et al. 2024, arXiv 2404.14507), of Stable Diffusion 1.5, XL and Stable
Video Diffusion in 10 steps, as the authors published them.
"""

_OTHERS = {
    "align_your_steps": "ays",
    "ays_sd15": "ays",
    "ays_sd1": "ays",
    "sgmuniform": "sgm_uniform",
    "uniform": "normal",
    "discrete": "normal",
}


@dataclass(frozen=True)
class ChosenLevels:
    """A user's choice: a name in `SCHEDULES`, or the falling noise levels themselves.

    Raises `SafelightError` for both at once, and for levels that do not fall.
    """

    name: str | None = None
    sigmas: tuple[float, ...] | None = None  # (steps + 1,)

    def __post_init__(self):
        if self.sigmas is not None:
            if self.name is not None:
                raise SafelightError("Give a schedule or sigmas, not both.")
            check_sigmas(self.sigmas)

    def sigmas_for(self, schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
        """The levels for a network with such a schedule (steps + 1,).

        Raises `SafelightError` if the name does not go with it, and for another number of steps
        than the sigmas make.
        """
        if self.sigmas is None:
            return schedule_sigmas(self.name or "", schedule, steps)
        if steps != len(self.sigmas) - 1:
            raise SafelightError(
                f"{len(self.sigmas)} sigmas make {len(self.sigmas) - 1} steps, not {steps}; leave "
                "the steps out."
            )
        return torch.tensor(self.sigmas, dtype=torch.float64)


def schedule_name(name: str) -> str:
    """Our spelling of a schedule's name, also of AUTOMATIC1111's and ComfyUI's, such as "SGM
    Uniform".

    Raises `SafelightError` for an unknown name, with the near ones.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = _OTHERS.get(plain, plain)
    known = (*SCHEDULES, *SPACINGS)
    if plain not in known:
        raise SafelightError(f"Unknown schedule {name!r}. {near(plain, known)}")
    return plain


def schedule_sigmas(name: str, schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    """The levels of a name in `SCHEDULES` for a network with such a schedule.

    Raises `SafelightError` for a schedule that does not go with it, or too many steps.
    """
    check_steps(steps)
    sigmas = SCHEDULES[name](schedule, steps)
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def check_sigmas(sigmas: Sequence[float]) -> None:
    """Raises `SafelightError` if noise levels of the user's own do not fall from above 0."""
    falling = all(high > low for high, low in pairwise(sigmas))
    if len(sigmas) < 2 or not falling or not math.isfinite(sigmas[0]) or not sigmas[-1] >= 0:
        raise SafelightError(
            "sigmas should be two or more numbers that fall, the last of them 0 or more; got "
            f"{', '.join(f'{sigma:g}' for sigma in sigmas) or 'none'}."
        )


def _karras(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    low, high = _ends(schedule, "karras")
    return karras_sigmas(steps, low, high)[:-1]


def _exponential(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    low, high = _ends(schedule, "exponential")
    return exponential_sigmas(steps, low, high)[:-1]


def _normal(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    """Times evenly from the last to the first."""
    return _at(schedule, 1 - torch.linspace(0, 1, steps, dtype=torch.float64), "normal")


def _sgm_uniform(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    """Times evenly from the last, the first of them left out."""
    evenly = 1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1]
    return _at(schedule, evenly, "sgm_uniform")


def _simple(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    """Every so many-th whole time from the last down."""
    first, last = _times(schedule, "simple")
    count = last - first + 1
    check_steps(steps, count)
    places = np.floor(np.arange(steps) * (count / steps))
    return _at(schedule, 1 - torch.from_numpy(places) / (count - 1), "simple")


def _beta(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
    """Times at even quantiles of Beta(0.6, 0.6), whole where these differ (Lee et al. 2024, arXiv
    2407.12173).
    """
    first, last = _times(schedule, "beta")
    evenly = 1 - torch.arange(steps, dtype=torch.float64) / steps
    places = beta_quantiles(evenly) * (last - first)
    whole = places.round()
    places = whole if (whole.diff() < 0).all() else places
    return _at(schedule, places / (last - first), "beta")


def _published(name: str) -> Callable[[NoiseSchedule, int], Float[Tensor, " n"]]:
    """A table of `_AYS`, in other numbers of steps interpolated in log sigma."""

    def sigmas(schedule: NoiseSchedule, steps: int) -> Float[Tensor, " n"]:
        if isinstance(schedule, FlowSchedule):
            raise _mismatch(name)
        table = np.log(_AYS[name])
        at = np.linspace(0, len(table) - 1, steps + 1)[:-1]
        return torch.from_numpy(np.exp(np.interp(at, np.arange(len(table)), table)))

    return sigmas


SCHEDULES: dict[str, Callable[[NoiseSchedule, int], Float[Tensor, " n"]]] = {
    "karras": _karras,
    "exponential": _exponential,
    "normal": _normal,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "beta": _beta,
    **{name: _published(name) for name in _AYS},
}


def _ends(schedule: NoiseSchedule, name: str) -> tuple[float, float]:
    """The least and the most noise; a flow's most is infinite."""
    if isinstance(schedule, FlowSchedule):
        raise _mismatch(name)
    return schedule.sigma_min, schedule.sigma_max


def _times(schedule: NoiseSchedule, name: str) -> tuple[int, int]:
    """The network's first and last whole time."""
    if isinstance(schedule, FlowSchedule):
        return 1, schedule.num
    if isinstance(schedule, DiscreteSchedule):
        return 0, len(schedule) - 1
    raise _mismatch(name)


def _at(schedule: NoiseSchedule, places: Float[Tensor, " n"], name: str) -> Float[Tensor, " n"]:
    """The levels at places from 0, the network's first time, to 1, its last."""
    first, last = _times(schedule, name)
    sigmas = schedule.t_to_sigma(first + places * (last - first))
    if isinstance(schedule, FlowSchedule):
        sigmas = (schedule.shift * sigmas).clamp(max=schedule.sigma_max)
    return sigmas


def _mismatch(name: str) -> SafelightError:
    return SafelightError(
        f"The schedule {name} does not go with this model's noise levels; leave it out, or give "
        "sigmas of your own."
    )
