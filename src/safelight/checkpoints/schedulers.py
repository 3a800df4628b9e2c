"""diffusers' `scheduler_config.json`, to and from what our diffusion layer needs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.tables.configs import DIFFUSERS_VERSION
from safelight.checkpoints.tables.schedulers import (
    CLASS_OF_SAMPLER,
    CLASSES,
    OPTIONAL,
    BetaSchedule,
    SchedulerClass,
)
from safelight.config import Value, from_dict, near, read_json, to_dict
from safelight.diffusion.noise_schedule import (
    Between,
    DiscreteSchedule,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import Parameterization, by_name
from safelight.diffusion.samplers import SAMPLERS, Sampler, sampler_name
from safelight.diffusion.sigmas import (
    Spacing,
    ddim_landings,
    exponential_sigmas,
    karras_sigmas,
    model_sigmas,
)
from safelight.diffusion.solvers import sample_ddim
from safelight.diffusion.solvers_multistep import sample_plms
from safelight.errors import SafelightError


@dataclass(frozen=True)
class SchedulerConfig:
    """A model's noise schedule, what its output means, and the sampler that it asks for.

    Names and meanings are those of diffusers; None takes the default of the class. `unsupported`
    lists options of the class that its sampler here does not have.
    """

    class_name: str = "DDIMScheduler"
    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    timestep_spacing: Spacing | None = None
    steps_offset: int = 1  # diffusers' Stable Diffusion pipelines insist on it
    rescale_betas_zero_snr: bool = False
    set_alpha_to_one: bool | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    unsupported: tuple[str, ...] = ()

    @property
    def sampler(self) -> str:
        """Our name of the sampler; `SafelightError` if it is none of ours."""
        name = self._class.sampler
        if name is None or self.unsupported:
            with_options = f" with {', '.join(self.unsupported)}" if self.unsupported else ""
            raise SafelightError(
                f"The model asks for diffusers' {self.class_name}{with_options}, which is not "
                f"supported; choose a sampler: {', '.join(CLASS_OF_SAMPLER)}."
            )
        return name

    def with_sampler(self, name: str) -> "SchedulerConfig":
        """The same noise schedule by another sampler, laid out as diffusers would lay it out.

        Raises `SafelightError` for an unknown sampler, with the near ones.
        """
        return replace(self, class_name=CLASS_OF_SAMPLER[sampler_name(name)], unsupported=())

    def schedule(self) -> DiscreteSchedule:
        """The noise levels that the network knows."""
        betas = self._betas()
        if self.rescale_betas_zero_snr:
            betas = rescale_zero_terminal_snr(betas)
        return DiscreteSchedule.from_betas(betas, self._between())

    def parameterization(self) -> Parameterization:
        """What the network's output means."""
        return by_name(self.prediction_type)

    def sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """The falling noise levels (steps + 1,), float64, that diffusers' class would stop at.

        Raises `SafelightError` if there are more steps than the network knows times.
        """
        schedule, kind = self.schedule(), self._class
        final = self._final_sigma(schedule)
        even = model_sigmas(
            schedule,
            steps,
            self.spacing,
            steps_offset=self.steps_offset,
            final_sigma=final,
            whole_times=kind.whole_times,
            end_included=kind.end_included,
        )
        if not self.use_karras_sigmas and not self.use_exponential_sigmas:
            return even
        low, high = (
            (schedule.sigma_min, schedule.sigma_max)
            if kind.whole_range
            else (even[-2].item(), even[0].item())
        )
        curve = karras_sigmas if self.use_karras_sigmas else exponential_sigmas
        return curve(steps, low, high, final_sigma=final)

    def solver(self, steps: int) -> Sampler:
        """The sampler for `sigmas(steps)`, with what diffusers' class does unlike its paper.

        Raises `SafelightError` if the model's sampler is none of ours.
        """
        name = self.sampler
        if name == "plms":
            return partial(sample_plms, velocity=self.prediction_type == "v_prediction")
        if name != "ddim":
            return SAMPLERS[name]
        schedule = self.schedule()
        landings = ddim_landings(
            schedule,
            steps,
            self.spacing,
            steps_offset=self.steps_offset,
            final_sigma=self._final_sigma(schedule),
        )
        return partial(sample_ddim, landings=landings)

    def initial_scale(self, sigmas: Float[Tensor, " n"]) -> float:
        """What standard normal noise is multiplied by to be x at the first of `sigmas`.

        Classes with x of unit variance start from `sqrt(sigma^2 + 1)`; so do the others where the
        times do not reach the last one ("leading").
        """
        highest = sigmas[0].item()
        padded = self._class.unit_variance or self.spacing == "leading"
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
        return self.timestep_spacing or self._class.spacing

    @property
    def _class(self) -> SchedulerClass:
        return CLASSES.get(self.class_name, SchedulerClass(None))

    def _betas(self) -> Float[Tensor, " n"]:
        if self.trained_betas is not None:
            return torch.tensor(self.trained_betas, dtype=torch.float64)
        if self.beta_schedule == "squaredcos_cap_v2":
            return cosine_betas(self.num_train_timesteps)
        law = linear_betas if self.beta_schedule == "linear" else scaled_linear_betas
        return law(self.num_train_timesteps, self.beta_start, self.beta_end)

    def _between(self) -> Between:
        curved = self.use_karras_sigmas or self.use_exponential_sigmas
        return "log" if curved and self._class.between == "linear" else self._class.between

    def _final_sigma(self, schedule: DiscreteSchedule) -> float:
        kind = self._class
        to_zero = (
            self.final_sigmas_type != "sigma_min"
            if "final_sigmas_type" in kind.takes
            else "set_alpha_to_one" not in kind.takes
            or (kind.set_alpha_to_one if self.set_alpha_to_one is None else self.set_alpha_to_one)
        )
        return 0.0 if to_zero else schedule.sigma_min


def read_scheduler(folder: Path, *, amended: bool = False) -> SchedulerConfig:
    """The scheduler in `folder`; `SafelightError` if it has no noise schedule that is known.

    `amended` overrides what diffusers' Stable Diffusion pipelines override in it: an offset of 1,
    and no clipping.
    """
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise SafelightError(f"Expected {path}; it is not there.")
    values = read_json(path)
    amendments: dict[str, Value] = {"steps_offset": 1, "clip_sample": False}
    return scheduler_from_diffusers(values | amendments if amended else values, str(path))


def scheduler_from_diffusers(
    values: Mapping[str, Value], source: str = "scheduler_config.json"
) -> SchedulerConfig:
    """Translates a scheduler's configuration.

    Keys that the class does not know are left over from another class and are passed over, as
    diffusers does. Raises `SafelightError` if it has no noise schedule that is known.
    """
    name = values.get("_class_name")
    if not isinstance(name, str):
        raise SafelightError(f"{source} names no class.")
    if name not in CLASSES and not {"beta_start", "beta_end", "beta_schedule"} <= values.keys():
        raise SafelightError(
            f"{source} is a {name}, whose noise levels are not known. {near(name, CLASSES)}"
        )
    kind = CLASSES.get(name, SchedulerClass(None))
    betas = {key: getattr(kind, key) for key in ("beta_start", "beta_end", "beta_schedule")}
    ours = {field.name for field in fields(SchedulerConfig)} - {"unsupported", "class_name"}
    known = {key: value for key, value in values.items() if key in ours}
    unsupported = [
        f"{key} = {values.get(key, default)!r}"
        for key, (default, same) in kind.options.items()
        if values.get(key, default) not in same
    ]
    return from_dict(
        SchedulerConfig,
        {"steps_offset": 0, **betas, **known, "class_name": name, "unsupported": unsupported},
        source,
    )


def scheduler_to_diffusers(config: SchedulerConfig) -> dict[str, Value]:
    """The whole `scheduler_config.json` of a scheduler, which diffusers opens.

    Raises `SafelightError` if its class has no key for what the model needs.
    """
    kind = CLASSES.get(config.class_name)
    if kind is None or config.unsupported:
        raise SafelightError(f"A {config.class_name} of this kind cannot be written.")
    if config.rescale_betas_zero_snr and "rescale_betas_zero_snr" not in kind.takes:
        raise SafelightError(
            f"diffusers' {config.class_name} has no zero terminal SNR; use another sampler."
        )
    values = to_dict(replace(config, timestep_spacing=config.spacing))
    dropped = {"class_name", "unsupported", *(set(OPTIONAL) - set(kind.takes))}
    return {
        "_class_name": config.class_name,
        "_diffusers_version": DIFFUSERS_VERSION,
        **{key: same[0] for key, (_, same) in kind.options.items()},
        **{key: value for key, value in values.items() if key not in dropped and value is not None},
    }


def write_scheduler(folder: Path, config: SchedulerConfig) -> None:
    """Writes a scheduler's configuration as diffusers does."""
    values = scheduler_to_diffusers(config)
    write_text(folder / "scheduler_config.json", json.dumps(values, indent=2) + "\n")
