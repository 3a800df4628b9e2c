"""Scheduler configurations: read as diffusers reads them, written so that it reads the same."""

import json
from dataclasses import replace

import pytest

from safelight.checkpoints.scheduler_files import (
    read_scheduler,
    scheduler_from_diffusers,
    scheduler_to_diffusers,
    write_scheduler,
)
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.tables.schedulers import CLASS_OF_SAMPLER
from safelight.diffusion.noise_schedule import FlowSchedule
from safelight.errors import SafelightError

# As published: each is silent about what its class of the day took by default.
SD1 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD2 = SD1 | {
    "_class_name": "DDIMScheduler",
    "prediction_type": "v_prediction",
}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
XL = SD1 | {
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


@pytest.mark.parametrize(("values", "sampler"), [(SD1, "plms"), (SD2, "ddim"), (XL, "euler")])
def test_published_configurations_are_read(values, sampler):
    config = scheduler_from_diffusers(values)
    assert config.sampler == sampler
    assert config.spacing == "leading"
    assert config.steps_offset == 1
    assert len(config.schedule()) == 1000
    assert config.schedule().sigma_max == pytest.approx(14.6146, abs=1e-3)
    assert config.schedule().sigma_min == pytest.approx(0.0292, abs=1e-4)


def test_another_sampler_is_laid_out_by_its_own_class_where_the_file_is_silent():
    config = scheduler_from_diffusers(SD1)
    assert config.with_sampler("euler").spacing == "linspace"
    assert config.with_sampler("ddim").spacing == "leading"
    assert scheduler_from_diffusers(XL).with_sampler("dpmpp_2m").spacing == "leading"
    assert config.with_sampler("heun").schedule().sigma_max == config.schedule().sigma_max
    with pytest.raises(SafelightError, match="Did you mean 'euler"):
        config.with_sampler("eular")


@pytest.mark.parametrize("sampler", CLASS_OF_SAMPLER["betas"])
def test_a_configuration_survives_the_way_there_and_back(sampler, tmp_path):
    config = SchedulerConfig(prediction_type="v_prediction", timestep_spacing="trailing")
    config = config.with_sampler(sampler)
    write_scheduler(tmp_path, config)
    again = read_scheduler(tmp_path)
    assert again.sampler == sampler
    assert scheduler_to_diffusers(again) == scheduler_to_diffusers(config)


def test_a_class_default_is_not_taken_for_anothers():
    bare = {"_class_name": "HeunDiscreteScheduler"}
    assert scheduler_from_diffusers(bare).beta_start == 0.00085
    assert scheduler_from_diffusers({"_class_name": "DDIMScheduler"}).beta_start == 0.0001
    assert scheduler_from_diffusers(bare).steps_offset == 0


def test_stable_diffusions_pipelines_override_the_offset_and_clipping(tmp_path):
    old = {key: SD2[key] for key in SD2 if key not in ("steps_offset", "clip_sample")}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(old))
    plain, amended = read_scheduler(tmp_path), read_scheduler(tmp_path, amended=True)
    assert (plain.steps_offset, amended.steps_offset) == (0, 1)
    assert amended.sampler == "ddim"
    with pytest.raises(SafelightError, match="clip_sample = True"):
        plain.sampler  # noqa: B018


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"},
            "UniPCMultistepScheduler with solver_type = 'bh1'",
        ),
        ({"_class_name": "MyOwnScheduler"}, "MyOwnScheduler"),
        ({"skip_prk_steps": False}, "skip_prk_steps = False"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
            "algorithm_type = 'dpmsolver'",
        ),
    ],
)
def test_a_sampler_that_we_lack_is_said_and_another_may_be_chosen(change, said):
    config = scheduler_from_diffusers(SD1 | change)
    with pytest.raises(SafelightError, match="choose a sampler: ") as caught:
        config.sampler  # noqa: B018
    assert said in str(caught.value)
    assert config.with_sampler("euler").sampler == "euler"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "names no class"),
        ({"_class_name": "MyOwnScheduler"}, "noise levels are not known"),
        (SD1 | {"prediction_type": "flow_prediction"}, "prediction_type"),
        (SD1 | {"beta_schedule": "sigmoid"}, "beta_schedule"),
        (SD1 | {"num_train_timesteps": "many"}, "num_train_timesteps"),
    ],
)
def test_a_schedule_that_is_not_known_is_one_line(values, said):
    with pytest.raises(SafelightError, match=said):
        scheduler_from_diffusers(values)


def test_nulls_and_what_another_class_left_make_no_difference():
    config = scheduler_from_diffusers(XL)
    nulls = {"rescale_betas_zero_snr": None, "sigma_min": None, "prediction_type": None}
    assert scheduler_from_diffusers(XL | nulls) == replace(config, prediction_type=None)
    left = {"sigma_max": 120.0, "shift": 3.0, "use_flow_sigmas": True, "flow_shift": 2.0}
    assert scheduler_from_diffusers(XL | left) == config


def test_a_solver_that_we_lack_may_still_say_that_the_model_is_a_flow():
    values = {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 5.0,
        "predict_x0": False,
    }
    config = scheduler_from_diffusers(values)
    assert isinstance(config.schedule(), FlowSchedule)
    with pytest.raises(SafelightError, match="choose a sampler: euler, dpmpp_2m, "):
        config.sampler  # noqa: B018
    chosen = config.with_sampler("dpmpp_2m")
    assert (chosen.class_name, chosen.flow_shift) == ("DPMSolverMultistepScheduler", 5.0)
    assert config.with_sampler("euler").shift == 5.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_flow_sigmas": True, "prediction_type": "epsilon"}, "expected flow_prediction"),
        ({"prediction_type": "flow_prediction"}, "needs use_flow_sigmas"),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "goes with v_prediction",
        ),
        (FLOW | {"use_karras_sigmas": True}, "use_flow_sigmas does not go with"),
        (FLOW | {"final_sigmas_type": "sigma_min"}, "use_flow_sigmas does not go with"),
        (FLOW | {"rescale_betas_zero_snr": True}, "use_flow_sigmas does not go with"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.0}, "above 0, got 0.0"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type"),
    ],
)
def test_levels_that_contradict_each_other_are_one_line(change, said):
    with pytest.raises(SafelightError, match=said):
        scheduler_from_diffusers({"_class_name": "DPMSolverMultistepScheduler"} | change)


def test_a_flow_that_changes_with_the_pictures_size_is_said():
    values = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    config = scheduler_from_diffusers(values)
    with pytest.raises(SafelightError, match="use_dynamic_shifting = True"):
        config.sampler  # noqa: B018


def test_an_unknown_class_is_not_written():
    with pytest.raises(SafelightError, match=r"'DDIMSchedular'\. Did you mean 'DDIMScheduler'"):
        scheduler_to_diffusers(SchedulerConfig(class_name="DDIMSchedular"))


def test_what_a_class_cannot_say_is_not_written():
    config = SchedulerConfig(rescale_betas_zero_snr=True)
    assert scheduler_to_diffusers(config)["rescale_betas_zero_snr"] is True
    with pytest.raises(SafelightError, match="zero terminal SNR"):
        scheduler_to_diffusers(config.with_sampler("plms"))
