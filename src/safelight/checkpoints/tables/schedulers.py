"""diffusers' scheduler classes: which sampler of ours each is, and what it takes where a file is
silent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from safelight.config import Value
from safelight.diffusion.noise_schedule import BetaSchedule, Between
from safelight.diffusion.sigmas import Spacing
from safelight.errors import SafelightError

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
    spaced: bool = True  # it has timestep_spacing and steps_offset
    stops_short: bool = False  # always at the least sigma of the schedule, not at 0
    between: Between = "linear"
    takes: tuple[str, ...] = ()  # those of the keys below that it knows
    options: Options = field(default_factory=dict[str, tuple[Value, tuple[Value, ...]]])

    def ends_at_zero(self, final_sigmas_type: str | None, set_alpha_to_one: bool | None) -> bool:
        """Whether its steps end at 0, not at the table's least sigma, as a file says it or not."""
        if _FINAL in self.takes:
            return final_sigmas_type != "sigma_min"
        own = self.set_alpha_to_one if set_alpha_to_one is None else set_alpha_to_one
        return _ALPHA not in self.takes or own


_OFF = (False, (False,))
_CLIPPED = (True, (False,))
_ZERO_SNR = "rescale_betas_zero_snr"
_FINAL = "final_sigmas_type"
_ALPHA = "set_alpha_to_one"
_CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_TYPE = "timestep_type"
_ALGORITHM = "algorithm_type"
_ORDER = "solver_order"
_ORDERS = (2, (1, 2, 3))
_SOLVER_FLOW = ("use_flow_sigmas", "flow_shift")
RANGE = ("sigma_min", "sigma_max")
"""Keys of `SchedulerConfig` that bound levels which come from a range of sigma."""
_EDM = (*RANGE, "sigma_data", "sigma_schedule", "rho", _FINAL)

OWN = (
    *_SOLVER_FLOW,
    *(key for key in _EDM if key != _FINAL),
    _TYPE,
    "shift",
    "original_inference_steps",
    _ALGORITHM,
    _ORDER,
)
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

_KARRAS_ROUNDS: Options = {"use_karras_sigmas": _OFF}  # some of its times, and not others
_SDE = "sde-dpmsolver++"
_SOLVER: Options = {
    _ALGORITHM: ("dpmsolver++", ("dpmsolver++", _SDE)),
    _ORDER: (2, (2,)),
    "solver_type": ("midpoint", ("midpoint", "logrho", "bh1", "bh2")),  # as it takes the others'
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
        takes=(_ZERO_SNR, _FINAL, *_CURVES, _TYPE, *RANGE),
        options={"interpolation_type": ("linear", ("linear",))},
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
        options={"clip_sample": _OFF},
    ),
    "DPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m",
        unit_variance=True,
        end_included=True,
        whole_range=True,
        between="nearest",
        takes=(_ZERO_SNR, _FINAL, *_CURVES, *_SOLVER_FLOW, _ALGORITHM),
        options={
            **_SOLVER,
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
        "dpmpp_2m", levels="edm", takes=(*_EDM, _ALGORITHM), options=_SOLVER
    ),
    "DDPMScheduler": SchedulerClass(
        "ddpm",
        "leading",
        unit_variance=True,
        terminal_sigma=2.0**20,
        takes=(_ZERO_SNR,),
        options={
            "clip_sample": _CLIPPED,
            "thresholding": _OFF,
            "variance_type": ("fixed_small", ("fixed_small",)),
        },
    ),
    "TCDScheduler": SchedulerClass(
        "tcd",
        "leading",
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        unit_variance=True,
        terminal_sigma=2.0**20,
        stops_short=True,
        takes=(_ALPHA, _ZERO_SNR, "original_inference_steps"),
        options={"clip_sample": _OFF, "thresholding": _OFF},
    ),
    "LMSDiscreteScheduler": SchedulerClass("lms", whole_times=False, takes=_CURVES),
    "KDPM2DiscreteScheduler": SchedulerClass(
        "dpm2",
        whole_times=False,
        beta_start=0.00085,
        beta_end=0.012,
        between="log",  # as its halfway times are
        takes=_CURVES,
        options=_KARRAS_ROUNDS,
    ),
    "KDPM2AncestralDiscreteScheduler": SchedulerClass(
        "dpm2_a",
        whole_times=False,
        beta_start=0.00085,
        beta_end=0.012,
        between="log",  # as its halfway times are
        takes=_CURVES,
        options=_KARRAS_ROUNDS,
    ),
    "DPMSolverSDEScheduler": SchedulerClass(  # with other noise, see solvers_sde
        "dpmpp_sde", whole_times=False, beta_start=0.00085, beta_end=0.012, takes=_CURVES
    ),
    "DPMSolverSinglestepScheduler": SchedulerClass(
        "dpmpp_2s",
        unit_variance=True,
        end_included=True,
        whole_range=True,
        spaced=False,
        between="nearest",
        takes=(*_CURVES, *_SOLVER_FLOW),
        options={
            _ALGORITHM: ("dpmsolver++", ("dpmsolver++",)),
            _ORDER: (2, (2,)),
            "solver_type": ("midpoint", ("midpoint", "logrho", "bh1", "bh2")),
            "lower_order_final": (False, (True, False)),  # which it sets where the end is 0
            _FINAL: ("zero", ("zero",)),
            "thresholding": _OFF,
            "lambda_min_clipped": (-math.inf, (-math.inf,)),
            "variance_type": (None, (None,)),
            "use_dynamic_shifting": _OFF,
        },
    ),
    "DEISMultistepScheduler": SchedulerClass(
        "deis",
        unit_variance=True,
        end_included=True,
        whole_range=True,
        stops_short=True,
        between="nearest",
        takes=(_ORDER,),
        options={
            _ALGORITHM: ("deis", ("deis", "dpmsolver", "dpmsolver++")),
            _ORDER: _ORDERS,
            "solver_type": ("logrho", ("logrho", "midpoint", "heun", "bh1", "bh2")),
            "lower_order_final": (True, (True,)),
            "thresholding": _OFF,
            **dict.fromkeys(_CURVES, _OFF),  # whose last step goes nowhere
            "use_flow_sigmas": _OFF,
        },
    ),
    "UniPCMultistepScheduler": SchedulerClass(
        "unipc",
        unit_variance=True,
        end_included=True,
        whole_range=True,
        between="nearest",
        takes=(_ZERO_SNR, _FINAL, *_CURVES, *_SOLVER_FLOW, _ORDER),
        options={
            _ORDER: _ORDERS,
            "solver_type": ("bh2", ("bh2", "midpoint", "heun", "logrho")),
            "predict_x0": (True, (True,)),
            "lower_order_final": (True, (True,)),
            "disable_corrector": ([], ([],)),
            "solver_p": (None, (None,)),
            "thresholding": _OFF,
            "use_dynamic_shifting": _OFF,
            "shift_terminal": (None, (None,)),
            "sigma_min": (None, (None,)),
            "sigma_max": (None, (None,)),
        },
    ),
}


def check_class(name: str, levels: Levels) -> None:
    """Raises `SafelightError` if a sampler's name is that of diffusers' class for a flow or EDM,
    and the model has other noise levels.
    """
    kind = {known.lower(): kind for known, kind in CLASSES.items()}.get(name.lower())
    if kind is not None and kind.levels not in ("betas", levels):
        raise SafelightError(
            f"The sampler {name} is for noise levels of the kind {kind.levels}, this model's are "
            f"{levels}; its method by itself is {kind.sampler}."
        )


def _class_of_sampler(levels: Levels) -> dict[str, str]:
    return {
        kind.sampler: name
        for name, kind in CLASSES.items()
        if kind.sampler and kind.levels == levels
    }


_MULTISTEP = "DPMSolverMultistepScheduler"
CLASS_OF_SAMPLER: Mapping[Levels, Mapping[str, str]] = {
    "betas": _class_of_sampler("betas") | {"dpmpp_2m_sde": _MULTISTEP},
    "flow": _class_of_sampler("flow")
    | {
        "dpmpp_2m": _MULTISTEP,
        "dpmpp_2m_sde": _MULTISTEP,
        "dpmpp_2s": "DPMSolverSinglestepScheduler",
        "unipc": "UniPCMultistepScheduler",
    },
    "edm": _class_of_sampler("edm") | {"dpmpp_2m_sde": "EDMDPMSolverMultistepScheduler"},
}
"""diffusers' class of each sampler of ours, at such levels."""

SDE_OF: Mapping[str, str] = {"dpmpp_2m": "dpmpp_2m_sde"}
"""The sampler that a class's own becomes with the algorithm_type "sde-dpmsolver++"."""

BORROWED: Mapping[Levels, tuple[str, ...]] = {
    "betas": ("dpmpp_2s_a", "dpmpp_3m_sde", "restart"),
    # heun, dpm2, lms, plms, deis and restart lose x0 beside the sigma of pure noise
    "flow": ("ddim", "ddpm", "euler_a", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_3m_sde", "lcm", "tcd"),
    "edm": (
        *("ddim", "ddpm", "euler_a", "heun", "dpm2", "dpm2_a", "lms", "plms"),
        *("dpmpp_2s", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_3m_sde"),
        *("unipc", "deis", "lcm", "tcd", "restart"),
    ),
}
"""Samplers of ours that diffusers has no class for at such levels; they stop where Euler does."""
