"""diffusers' `scheduler_config.json`, read and written."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.tables.configs import DIFFUSERS_VERSION, without_nulls
from safelight.checkpoints.tables.schedulers import (
    CLASSES,
    OPTIONAL,
    OWN,
    RANGE,
    TABLE,
    SchedulerClass,
)
from safelight.config import Value, from_dict, near, read_json, to_dict
from safelight.errors import SafelightError

_NOT_THEIRS = {"class_name", "unsupported", "borrowed", "chosen"}


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


def read_noising(folder: Path) -> SchedulerConfig:
    """The scheduler in `folder`, for its noise levels alone: what it says of sampling is left out;
    errors as `read_scheduler`.
    """
    return replace(read_scheduler(folder), unsupported=())


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
    silent = {key: getattr(kind, key) for key in ("beta_start", "beta_end", "beta_schedule")}
    if kind.levels == "edm":
        silent["sigma_data"] = 0.5
    ours = {field.name for field in fields(SchedulerConfig)} - _NOT_THEIRS
    known = {
        key: value
        for key, value in values.items()
        if key in ours and (key not in OWN or key in kind.takes)
    }
    if kind.levels == "flow":
        known.pop("prediction_type", None)
    if kind.levels != "edm" and known.get("timestep_type") != "continuous":
        known = {key: value for key, value in known.items() if key not in RANGE}
    unsupported = {
        key: value
        for key, (default, same) in kind.options.items()
        if (value := values.get(key, default)) not in same
    }
    if "algorithm_type" in unsupported:
        known.pop("algorithm_type", None)
    return from_dict(
        SchedulerConfig,
        {
            "steps_offset": 0,
            **silent,
            **without_nulls(SchedulerConfig, known),
            "class_name": name,
            "unsupported": [f"{key} = {value!r}" for key, value in unsupported.items()],
        },
        source,
    )


def scheduler_to_diffusers(config: SchedulerConfig) -> dict[str, Value]:
    """The whole `scheduler_config.json` of a scheduler, which diffusers opens.

    Raises `SafelightError` if its class has no key for what the model needs.
    """
    kind = CLASSES.get(config.class_name)
    if kind is None:
        raise SafelightError(
            f"Unknown scheduler class {config.class_name!r}. {near(config.class_name, CLASSES)}"
        )
    if config.unsupported:
        raise SafelightError(
            f"A {config.class_name} with {', '.join(config.unsupported)} cannot be written."
        )
    if config.rescale_betas_zero_snr and "rescale_betas_zero_snr" not in kind.takes:
        raise SafelightError(
            f"diffusers' {config.class_name} has no zero terminal SNR; use another sampler."
        )
    values = to_dict(config) | {
        "timestep_spacing": config.spacing,
        "prediction_type": config.prediction,
    }
    dropped = {*_NOT_THEIRS, *(set(OPTIONAL) - set(kind.takes))}
    if kind.levels != "betas":
        dropped |= set(TABLE)
    if config.levels != "edm":
        dropped |= set(RANGE)  # which would bound Karras' levels
    if not kind.spaced:
        dropped |= {"timestep_spacing", "steps_offset"}
    if kind.levels == "flow":
        dropped.add("prediction_type")
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
