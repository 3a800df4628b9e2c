"""diffusers' scheduler classes: which sampler of ours each is, and what it takes where a file is
silent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from safelight.config import Value
from safelight.diffusion.noise_schedule import Between
from safelight.diffusion.sigmas import Spacing

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]

Levels = Literal["betas", "flow", "edm"]
"""Where a class's noise levels come from: a table of betas, a rectified flow, or a range of sigma
(Karras et al. 2022).
"""

Options = Mapping[str, tuple[Value, tuple[Value, ...]]]
"""Keys that change the sampler: the class's default, and the values at which ours does the same."""


@dataclass(frozen=True)
class SchedulerClass:
    """The defaults of one class, and how it differs from the sampler of ours that it is."""

    sampler: str | None  # None where we have none
    spacing: Spacing = "linspace"
    levels: Levels = "betas"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    set_alpha_to_one: bool = True
    unit_variance: bool = False  # its x is ours divided by sqrt(sigma^2 + 1)
    terminal_sigma: float = 4096.0  # which stands for pure noise, at zero terminal SNR
    whole_times: bool = True  # linspace's times are rounded
    end_included: bool = False  # time 0 counts among the points that are spaced
    whole_range: bool = False  # Karras' levels span the whole schedule, not the chosen times
    between: Between = "linear"
    takes: tuple[str, ...] = ()  # those of the keys below that it knows
    options: Options = field(default_factory=dict[str, tuple[Value, tuple[Value, ...]]])


_OFF = (False, (False,))
_CLIPPED = (True, (False,))
_ZERO_SNR = "rescale_betas_zero_snr"
_FINAL = "final_sigmas_type"
_ALPHA = "set_alpha_to_one"
_CURVES = ("use_karras_sigmas", "use_exponential_sigmas")
_SOLVER_FLOW = ("use_flow_sigmas", "flow_shift")
_EDM = ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", _FINAL)

OWN = (*_SOLVER_FLOW, "shift", "original_inference_steps", *(key for key in _EDM if key != _FINAL))
"""Keys of `SchedulerConfig` that mean something in the classes that have them alone."""

OPTIONAL = (_ALPHA, _ZERO_SNR, _FINAL, *_CURVES, *OWN)
"""Keys of `SchedulerConfig` that not all classes have."""

TABLE = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "timestep_spacing",
    "steps_offset",
)
"""Keys of `SchedulerConfig` that the classes with a table of betas have."""

PREDICTIONS: Mapping[Levels, tuple[str, ...]] = {
    "betas": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction",),
    "edm": ("epsilon", "v_prediction"),
}
"""What a network may predict at such levels, the default first."""

_SOLVER: Options = {
    "algorithm_type": ("dpmsolver++", ("dpmsolver++",)),
    "solver_order": (2, (2,)),
    "solver_type": ("midpoint", ("midpoint",)),
    "lower_order_final": (True, (True,)),
    "euler_at_final": _OFF,
    "thresholding": _OFF,
}

CLASSES: Mapping[str, SchedulerClass] = {
    "DDIMScheduler": SchedulerClass(
        "ddim",
        "leading",
        unit_variance=True,
        terminal_sigma=2.0**20,
        takes=(_ALPHA, _ZERO_SNR),
        options={"clip_sample": _CLIPPED, "thresholding": _OFF},
    ),
    "PNDMScheduler": SchedulerClass(
        "plms",
        "leading",
        set_alpha_to_one=False,
        unit_variance=True,
        takes=(_ALPHA,),
        options={"skip_prk_steps": (False, (True,))},
    ),
    "EulerDiscreteScheduler": SchedulerClass(
        "euler",
        whole_times=False,
        takes=(_ZERO_SNR, _FINAL, *_CURVES),
        options={
            "use_beta_sigmas": _OFF,
            "interpolation_type": ("linear", ("linear",)),
            "timestep_type": ("discrete", ("discrete",)),
        },
    ),
    "EulerAncestralDiscreteScheduler": SchedulerClass(
        "euler_a", whole_times=False, takes=(_ZERO_SNR,)
    ),
    "HeunDiscreteScheduler": SchedulerClass(
        "heun",
        whole_times=False,
        beta_start=0.00085,
        beta_end=0.012,
        takes=_CURVES,
        options={"clip_sample": _OFF, "use_beta_sigmas": _OFF},
    ),
    "DPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m",
        unit_variance=True,
        end_included=True,
        whole_range=True,
        between="nearest",
        takes=(_ZERO_SNR, _FINAL, *_CURVES, *_SOLVER_FLOW),
        options={
            **_SOLVER,
            "use_beta_sigmas": _OFF,
            "use_lu_lambdas": _OFF,
            "lambda_min_clipped": (-math.inf, (-math.inf,)),
            "variance_type": (None, (None,)),
        },
    ),
    "LCMScheduler": SchedulerClass(
        "lcm",
        "leading",
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        unit_variance=True,
        takes=(_ALPHA, _ZERO_SNR, "original_inference_steps"),
        options={"clip_sample": _OFF, "thresholding": _OFF, "timestep_scaling": (10.0, (10.0,))},
    ),
    "FlowMatchEulerDiscreteScheduler": SchedulerClass(
        "euler",
        levels="flow",
        whole_times=False,
        takes=("shift",),
        options={
            "use_dynamic_shifting": _OFF,
            "shift_terminal": (None, (None,)),
            "invert_sigmas": _OFF,
            "stochastic_sampling": _OFF,
            "use_karras_sigmas": _OFF,
            "use_exponential_sigmas": _OFF,
            "use_beta_sigmas": _OFF,
        },
    ),
    "EDMEulerScheduler": SchedulerClass("euler", levels="edm", takes=_EDM),
    "EDMDPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m", levels="edm", takes=_EDM, options=_SOLVER
    ),
    # Only their noise schedules are known; another sampler has to be asked for.
    "DDPMScheduler": SchedulerClass(None, "leading", takes=(_ZERO_SNR,)),
    "LMSDiscreteScheduler": SchedulerClass(None),
    "KDPM2DiscreteScheduler": SchedulerClass(None, beta_start=0.00085, beta_end=0.012),
    "KDPM2AncestralDiscreteScheduler": SchedulerClass(None, beta_start=0.00085, beta_end=0.012),
    "DPMSolverSinglestepScheduler": SchedulerClass(None),
    "DEISMultistepScheduler": SchedulerClass(None),
    "UniPCMultistepScheduler": SchedulerClass(None, takes=(_ZERO_SNR, *_SOLVER_FLOW)),
}


def _class_of_sampler(levels: Levels) -> dict[str, str]:
    return {
        kind.sampler: name
        for name, kind in CLASSES.items()
        if kind.sampler and kind.levels == levels
    }


CLASS_OF_SAMPLER: Mapping[Levels, Mapping[str, str]] = {
    "betas": _class_of_sampler("betas"),
    "flow": _class_of_sampler("flow") | {"dpmpp_2m": "DPMSolverMultistepScheduler"},
    "edm": _class_of_sampler("edm"),
}
"""diffusers' class of each sampler of ours, at such levels."""

BORROWED: Mapping[Levels, tuple[str, ...]] = {
    "betas": (),
    "flow": ("ddim", "euler_a", "lcm"),  # heun and plms lose x0 beside the sigma of pure noise
    "edm": ("ddim", "euler_a", "heun", "plms", "lcm"),
}
"""Samplers of ours that diffusers has no class for at such levels; they stop where Euler does."""
