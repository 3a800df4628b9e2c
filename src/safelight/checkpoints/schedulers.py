"""A scheduler's configuration in diffusers' words, and what our diffusion layer makes of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.tables.schedulers import (
    BORROWED,
    CLASS_OF_SAMPLER,
    CLASSES,
    PREDICTIONS,
    SDE_OF,
    Levels,
    SchedulerClass,
)
from safelight.diffusion.noise_schedule import (
    BetaSchedule,
    Between,
    DiscreteSchedule,
    EdmSchedule,
    FlowSchedule,
    NoiseSchedule,
    betas_by_law,
    rescale_zero_terminal_snr,
)
from safelight.diffusion.parameterization import Parameterization, by_name, edm
from safelight.diffusion.samplers import SAMPLERS, Sampler, sampler_name
from safelight.diffusion.schedules import SPACINGS, ChosenLevels, schedule_name
from safelight.diffusion.sigmas import (
    Spacing,
    beta_sigmas,
    ddim_landings,
    edm_sigmas,
    exponential_sigmas,
    flow_sigmas,
    karras_sigmas,
    lcm_sigmas,
    model_sigmas,
    pndm_calls,
    solver_flow_sigmas,
    tcd_landings,
    unipc_flow_sigmas,
)
from safelight.diffusion.solvers import sample_ddim
from safelight.diffusion.solvers_adams import sample_deis
from safelight.diffusion.solvers_consistency import sample_tcd
from safelight.diffusion.solvers_multistep import sample_dpmpp_2m, sample_plms
from safelight.diffusion.solvers_sde import sample_dpmpp_2m_sde
from safelight.diffusion.solvers_unipc import sample_unipc
from safelight.errors import SafelightError

_MULTISTEP = {"dpmpp_2m": sample_dpmpp_2m, "dpmpp_2m_sde": sample_dpmpp_2m_sde}
_ORDERED = {"deis": sample_deis, "unipc": sample_unipc}
"""Samplers whose last steps are of lower order, but not where another model goes on; and those of
them that have `solver_order`.
"""

_TAUGHT = ("lcm", "tcd")
"""Samplers that stop at the times which their models were taught."""


@dataclass(frozen=True)
class SchedulerConfig:
    """A model's noise schedule, what its output means, and the sampler that it asks for.

    Names and meanings are those of diffusers; None takes the default of the class. A flow is
    `FlowMatchEulerDiscreteScheduler` with its `shift`, or a class that has `use_flow_sigmas` with
    `flow_shift`; EDM is a class with `sigma_min` to `rho`, or Euler's with continuous times, as
    Stable Video Diffusion has it. `unsupported` lists options of the class that its sampler here
    does not have; `borrowed` is a sampler of ours that diffusers has no class for at such noise
    levels; `chosen` is what `with_levels` has set.

    Raises `SafelightError` for a flow that the class does not know, and for a prediction that does
    not go with its noise levels.
    """

    class_name: str = "DDIMScheduler"
    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow_prediction"] | None = None
    timestep_spacing: Spacing | None = None
    steps_offset: int = 1  # diffusers' Stable Diffusion pipelines insist on it
    rescale_betas_zero_snr: bool = False
    set_alpha_to_one: bool | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    shift: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 1.0  # latents are scaled to it; where a file is silent it is 0.5
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    rho: float = 7.0
    original_inference_steps: int = 50
    solver_order: int = 2
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    unsupported: tuple[str, ...] = ()
    borrowed: str | None = None
    chosen: ChosenLevels | None = None

    def __post_init__(self):
        if self.use_flow_sigmas and "use_flow_sigmas" not in self._class.takes:
            able = [name for name, kind in CLASSES.items() if "use_flow_sigmas" in kind.takes]
            raise SafelightError(
                f"{self.class_name} has no use_flow_sigmas; expected {' or '.join(able)}."
            )
        known = PREDICTIONS[self.levels]
        if self.prediction not in known:
            flow = "" if self.levels == "flow" else "; a flow needs use_flow_sigmas = true"
            raise SafelightError(
                f"prediction_type = {self.prediction!r} does not go with the noise levels of "
                f"{self.class_name} (expected {' or '.join(known)}{flow})."
            )
        other_law = self._curve is not None or self.rescale_betas_zero_snr
        if self.use_flow_sigmas and (other_law or self.final_sigmas_type == "sigma_min"):
            raise SafelightError(
                "use_flow_sigmas does not go with another law of the sigmas, rescale_betas_zero_snr"
                " or final_sigmas_type = 'sigma_min'; leave these out."
            )
        continuous = self.timestep_type == "continuous"
        if continuous and not (self.prediction == "v_prediction" and self.use_karras_sigmas):
            raise SafelightError(
                "timestep_type = 'continuous' goes with v_prediction and use_karras_sigmas alone."
            )
        if self.levels == "edm" and not (self.sigma_data > 0 and self.rho > 0):
            raise SafelightError(
                f"sigma_data and rho should be above 0, got {self.sigma_data} and {self.rho}."
            )

    @property
    def levels(self) -> Levels:
        """Where the noise levels come from."""
        own = "edm" if self.timestep_type == "continuous" else self._class.levels
        return "flow" if self.use_flow_sigmas else own

    @property
    def prediction(self) -> str:
        """What the network predicts, in diffusers' words."""
        return self.prediction_type or PREDICTIONS[self.levels][0]

    @property
    def samplers(self) -> tuple[str, ...]:
        """The samplers that go with such noise levels."""
        return (*CLASS_OF_SAMPLER[self.levels], *BORROWED[self.levels])

    @property
    def sampler(self) -> str:
        """Our name of the sampler; `SafelightError` if it is none of ours."""
        name = self.borrowed or self._class.sampler
        if self.borrowed is None and self.algorithm_type == "sde-dpmsolver++":
            name = SDE_OF.get(name or "", name)
        if name is None or self.unsupported:
            with_options = f" with {', '.join(self.unsupported)}" if self.unsupported else ""
            raise SafelightError(
                f"The model asks for diffusers' {self.class_name}{with_options}, which is not "
                f"supported; choose a sampler: {', '.join(self.samplers)}."
            )
        return name

    def with_sampler(self, name: str) -> "SchedulerConfig":
        """The same noise schedule by another sampler, laid out as diffusers would lay it out.

        Raises `SafelightError` for an unknown sampler, with the near ones, and for one that does
        not go with the model's noise levels.
        """
        name, levels = sampler_name(name), self.levels
        if name not in self.samplers:
            raise SafelightError(
                f"The sampler {name} does not go with this model's noise levels, a {levels}; "
                f"choose one of {', '.join(self.samplers)}."
            )
        classes = CLASS_OF_SAMPLER[levels]
        class_name = classes.get(name, classes["euler"])
        solver_flow = levels == "flow" and "use_flow_sigmas" in CLASSES[class_name].takes
        return replace(
            self,
            class_name=class_name,
            unsupported=(),
            borrowed=None if name in classes else name,
            timestep_type="discrete",
            use_karras_sigmas=self.use_karras_sigmas and levels != "edm",
            use_flow_sigmas=solver_flow,
            shift=self._shift,
            flow_shift=self._shift,
            algorithm_type="sde-dpmsolver++" if name in SDE_OF.values() else "dpmsolver++",
        )

    def with_levels(
        self, schedule: str | None = None, sigmas: Sequence[float] | None = None
    ) -> "SchedulerConfig":
        """The same sampler at noise levels of the user's choice: a schedule by its name in
        `diffusion.schedules`, or the falling `sigmas` themselves (steps + 1,). To be called after
        `with_sampler`.

        Raises `SafelightError` for both at once, an unknown schedule, with the near ones, and one
        that does not go with the model's noise levels or the sampler.
        """
        if schedule is None and sigmas is None:
            return self
        name = None if schedule is None else schedule_name(schedule)
        if name not in SPACINGS or sigmas is not None:
            chosen = ChosenLevels(name, None if sigmas is None else tuple(sigmas))
            return replace(self, chosen=chosen)
        if self.levels != "betas" or not self._class.spaced or self.sampler in _TAUGHT:
            raise SafelightError(
                f"The schedule {name} is for samplers on a table of betas that have no levels of "
                f"their own, unlike {self.sampler} here; leave it out."
            )
        curves = dict.fromkeys(
            ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False
        )
        return replace(self, timestep_spacing=name, **curves)

    def schedule(self) -> NoiseSchedule:
        """The noise levels that the network knows; `SafelightError` if there are no such levels."""
        if self.levels == "flow":
            return self._flow()
        if self.levels == "edm":
            return EdmSchedule(self.sigma_min, self.sigma_max)
        return self._table()

    def parameterization(self) -> Parameterization:
        """What the network's output means."""
        if self.levels == "edm":
            return edm(self.sigma_data, negated=self.prediction == "v_prediction")
        return by_name(self.prediction)

    def sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """The falling noise levels (steps + 1,), float64, that diffusers' class would stop at, or
        those that were chosen.

        Raises `SafelightError` if there are more steps than the network knows times, or not as many
        as there are sigmas of the user's own.
        """
        if self.chosen is not None:
            return self.chosen.sigmas_for(self.schedule(), steps)
        if self.levels == "flow":
            solver = unipc_flow_sigmas if self._class.sampler == "unipc" else solver_flow_sigmas
            return (solver if self.use_flow_sigmas else flow_sigmas)(self._flow(), steps)
        if self.levels == "edm":
            low, high = self.sigma_min, self.sigma_max
            final = low if self.final_sigmas_type == "sigma_min" else 0.0
            rho = self.rho if self.sigma_schedule == "karras" else None
            return edm_sigmas(steps, low, high, rho=rho, final_sigma=final)
        schedule, kind = self._table(), self._class
        final = self._final_sigma(schedule)
        if kind.sampler in _TAUGHT:
            distilled = self.original_inference_steps
            final = final if kind.stops_short else 0.0
            return lcm_sigmas(schedule, steps, distilled=distilled, final_sigma=final)
        even = model_sigmas(
            schedule,
            steps,
            self.spacing,
            steps_offset=self.steps_offset if kind.spaced else 0,
            final_sigma=final,
            whole_times=kind.whole_times,
            end_included=kind.end_included,
        )
        if self._curve is None:
            return even
        low, high = (
            (schedule.sigma_min, schedule.sigma_max)
            if kind.whole_range
            else (even[-2].item(), even[0].item())
        )
        return self._curve(steps, low, high, final_sigma=final)

    def solver(self, steps: int, span: slice = slice(None)) -> Sampler:
        """The sampler for `sigmas(steps)`, or for a `span` of those steps, with what diffusers'
        class does unlike its paper.

        Raises `SafelightError` if the model's sampler is none of ours.
        """
        name, settles = self.sampler, span.stop is None
        if name == "plms":
            velocity = self.levels == "betas" and self.prediction == "v_prediction"
            return partial(sample_plms, velocity=velocity, calls=self._pndm_calls(steps, span))
        if name in _MULTISTEP and not settles:
            return partial(_MULTISTEP[name], lower_order_final=False)
        if name in _ORDERED:
            return partial(_ORDERED[name], order=self.solver_order, lower_order_final=settles)
        if name == "ddim" and self.levels == "betas" and self.chosen is None:
            return partial(sample_ddim, landings=self._laid_out(ddim_landings, steps)[span])
        if name == "tcd" and self.levels == "betas":
            landings = tcd_landings(self._table(), self.sigmas(steps))
            return partial(sample_tcd, landings=landings[span])
        return SAMPLERS[name]

    def beginning(self, steps: int, start: int) -> float:
        """The level that a picture is noised to which goes on from step `start` of so many."""
        calls = self._pndm_calls(steps, slice(start, None))
        return (self.sigmas(steps)[start] if calls is None else calls[0, 0]).item()

    def place_of(self, step: int) -> int:
        """The step that a run is to start at for the level of `step`, from a second step on."""
        return step + 1 if self._is_pndm and step > 1 else step

    def initial_scale(self, sigmas: Float[Tensor, " n"]) -> float:
        """What standard normal noise is multiplied by to be x at the first of `sigmas`.

        A flow's own x is noise alone there, which is `sigma + 1` in ours. Classes with x of unit
        variance start from `sqrt(sigma^2 + 1)`; so do EDM's, and the others where the times do not
        reach the last one ("leading").
        """
        highest = sigmas[0].item()
        if self.levels == "flow":
            return highest + 1
        padded = self._class.unit_variance or self.levels == "edm" or self.spacing == "leading"
        return math.sqrt(highest**2 + 1) if padded else highest

    def final_scale(self, sigmas: Float[Tensor, " n"]) -> float:
        """What x at the last of `sigmas` is multiplied by to be what diffusers decodes: not 1 only
        for a class with x of unit variance that stops above 0.
        """
        last = sigmas[-1].item()
        return 1 / math.sqrt(last**2 + 1) if self._class.unit_variance else 1.0

    @property
    def spacing(self) -> Spacing:
        """How times are laid out: the model's choice, or that of diffusers' class."""
        kind = self._class
        return (self.timestep_spacing if kind.spaced else None) or kind.spacing

    @property
    def _class(self) -> SchedulerClass:
        return CLASSES.get(self.class_name, SchedulerClass(None))

    @property
    def _shift(self) -> float:
        return self.flow_shift if self.use_flow_sigmas else self.shift

    @property
    def _curve(self) -> Callable[..., Float[Tensor, " n"]] | None:
        if self.use_karras_sigmas or self.use_exponential_sigmas:
            return karras_sigmas if self.use_karras_sigmas else exponential_sigmas
        return beta_sigmas if self.use_beta_sigmas else None

    @property
    def _is_pndm(self) -> bool:
        return self.sampler == "plms" and self.levels == "betas" and self.chosen is None

    def _pndm_calls(self, steps: int, span: slice) -> Float[Tensor, "m 3"] | None:
        """Those of diffusers' class; None for another sampler, and at levels of other origin."""
        if not self._is_pndm:
            return None
        start, stop = span.start or 0, span.stop
        calls = self._laid_out(partial(pndm_calls, start=start), steps)
        return calls if stop is None else calls[: stop + 1 if stop > 1 else 1]

    def _laid_out(self, layout: Callable[..., Tensor], steps: int) -> Tensor:
        """The levels of a `layout` that diffusers' class goes by beside `sigmas`."""
        schedule = self._table()
        return layout(
            schedule,
            steps,
            self.spacing,
            steps_offset=self.steps_offset,
            final_sigma=self._final_sigma(schedule),
        )

    def _flow(self) -> FlowSchedule:
        return FlowSchedule(
            self._shift, self.num_train_timesteps, whole_times=self._class.whole_times
        )

    def _table(self) -> DiscreteSchedule:
        law = (self.beta_schedule, self.num_train_timesteps, self.beta_start, self.beta_end)
        own = self.trained_betas
        betas = betas_by_law(*law) if own is None else torch.tensor(own, dtype=torch.float64)
        if self.rescale_betas_zero_snr:
            betas = rescale_zero_terminal_snr(betas)
        return DiscreteSchedule.from_betas(betas, self._between(), self._class.terminal_sigma)

    def _between(self) -> Between:
        kind = self._class.between
        if kind == "linear" and (self._curve is not None or self.chosen is not None):
            return "log"
        cut = kind == "nearest" and (self.use_exponential_sigmas or self.use_beta_sigmas)
        return "floor" if cut and self.chosen is None else kind

    def _final_sigma(self, schedule: DiscreteSchedule) -> float:
        kind = self._class
        if kind.stops_short:
            return schedule.sigma_min if self._curve is None else 0.0
        to_zero = kind.ends_at_zero(self.final_sigmas_type, self.set_alpha_to_one)
        return 0.0 if to_zero else schedule.sigma_min
