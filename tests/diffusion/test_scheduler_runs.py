"""What we make of a `scheduler_config.json` against diffusers' class, over full runs."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from safelight.checkpoints.scheduler_files import scheduler_from_diffusers, scheduler_to_diffusers
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.denoiser import Denoiser
from safelight.errors import SafelightError
from safelight.rng import SeededNoise
from safelight.types import Conditioning

from .theirs import ALWAYS, SEEDS, SHAPE, network, their_run

ZERO_SNR = ALWAYS | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
EDM = {"sigma_min": 0.02, "sigma_max": 60.0, "sigma_data": 1.2, "rho": 5.0}
V = {"prediction_type": "v_prediction"}


def run_config(config: SchedulerConfig, steps: int, on_step=None) -> torch.Tensor:
    """As `generate` drives it."""
    denoiser = Denoiser(
        lambda x, t, cond: network(x, t), config.parameterization(), config.schedule()
    )
    noise, sigmas = SeededNoise(SEEDS), config.sigmas(steps)
    x = config.solver(steps)(
        lambda x, sigma: denoiser(x, sigma, Conditioning()),
        noise(SHAPE, 0) * config.initial_scale(sigmas),
        sigmas,
        noise=noise,
        on_step=on_step,
    )
    return x * config.final_scale(sigmas)


def _agree(scheduler, steps):
    values = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
    name = type(scheduler).__name__
    config = scheduler_from_diffusers(values | {"_class_name": name})
    ours, theirs = run_config(config, steps), their_run(scheduler, steps)
    assert 0.3 < theirs.abs().max() < 100
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    again = scheduler_from_diffusers(scheduler_to_diffusers(config))
    assert torch.equal(run_config(again, steps), ours)
    return config


SDE = {"algorithm_type": "sde-dpmsolver++"}
CLASSES = [
    (DDPMScheduler, {"clip_sample": False}),
    (KDPM2DiscreteScheduler, {}),
    (KDPM2AncestralDiscreteScheduler, {}),
    (LMSDiscreteScheduler, {}),
    (DPMSolverMultistepScheduler, SDE),
    (DEISMultistepScheduler, {}),
    (DEISMultistepScheduler, {"solver_order": 3}),
    (UniPCMultistepScheduler, {}),
    (UniPCMultistepScheduler, {"solver_order": 3}),
]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [5, 14, 30])  # 30 does not divide the 1000 times
@pytest.mark.parametrize(("cls", "own"), CLASSES)
def test_a_model_that_asks_for_the_class_agrees(cls, own, steps, spacing, prediction):
    options = {"timestep_spacing": spacing, "steps_offset": 1, "prediction_type": prediction}
    _agree(cls(**ALWAYS, **own, **options), steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [3, 4, 14, 30])
def test_classes_with_times_of_their_own_agree(steps, prediction):
    _agree(DPMSolverSinglestepScheduler(**ALWAYS, prediction_type=prediction), steps)
    _agree(TCDScheduler(**ALWAYS, prediction_type=prediction), steps)


@pytest.mark.parametrize("curve", ["karras", "exponential", "beta"])
@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (EulerDiscreteScheduler, {}),
        (HeunDiscreteScheduler, {}),
        (KDPM2DiscreteScheduler, {}),
        (KDPM2AncestralDiscreteScheduler, {}),
        (LMSDiscreteScheduler, {}),
        (DPMSolverMultistepScheduler, {}),
        (DPMSolverMultistepScheduler, SDE),
        (DPMSolverSinglestepScheduler, {}),
        (UniPCMultistepScheduler, {}),
    ],
)
def test_curves_agree(cls, own, curve):
    if curve == "karras" and cls in (KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler):
        with pytest.raises(SafelightError, match="use_karras_sigmas = True"):
            _agree(cls(**ALWAYS, use_karras_sigmas=True), 20)
    else:
        _agree(cls(**ALWAYS, **own, **{f"use_{curve}_sigmas": True}), 20)


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize(
    ("cls", "own"), [(DPMSolverMultistepScheduler, SDE), (UniPCMultistepScheduler, {})]
)
def test_solvers_that_stop_above_zero_agree(cls, own, steps):
    _agree(cls(**ALWAYS, **own, final_sigmas_type="sigma_min"), steps)


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (DDIMScheduler, {"clip_sample": False}),
        (EulerDiscreteScheduler, {}),
        (EulerAncestralDiscreteScheduler, {}),
        (DPMSolverMultistepScheduler, {}),
        (DPMSolverMultistepScheduler, SDE),
        (DDPMScheduler, {"clip_sample": False}),
        (TCDScheduler, {}),
        (UniPCMultistepScheduler, {}),
    ],
)
def test_zero_terminal_snr_agrees(cls, own, spacing):
    # Lin et al. 2023 ask for v-prediction and trailing times
    _agree(cls(**ZERO_SNR, **own, timestep_spacing=spacing), 50)


@pytest.mark.parametrize("steps", [4, 14, 20])  # from 15 steps on the solver's end differs
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flows_agree(shift, steps):
    euler = _agree(FlowMatchEulerDiscreteScheduler(shift=shift), steps)
    solver = _agree(DPMSolverMultistepScheduler(**FLOW, flow_shift=shift), steps)
    assert (euler.levels, solver.levels) == ("flow", "flow")
    assert (euler.sampler, solver.sampler) == ("euler", "dpmpp_2m")
    sde = _agree(DPMSolverMultistepScheduler(**FLOW, **SDE, flow_shift=shift), steps)
    pairs = _agree(DPMSolverSinglestepScheduler(**FLOW, flow_shift=shift), steps)
    unipc = _agree(UniPCMultistepScheduler(**FLOW, flow_shift=shift), steps)
    assert (sde.sampler, pairs.sampler, unipc.sampler) == ("dpmpp_2m_sde", "dpmpp_2s", "unipc")


@pytest.mark.parametrize("steps", [4, 14, 20])
@pytest.mark.parametrize(
    "options",
    [{}, EDM, EDM | V, EDM | {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}],
    ids=["bare", "own", "v", "exponential", "above-zero"],
)
@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (EDMEulerScheduler, {}),
        (EDMDPMSolverMultistepScheduler, {}),
        (EDMDPMSolverMultistepScheduler, SDE),
    ],
)
def test_edm_agrees(cls, own, options, steps):
    config = _agree(cls(**own, **options), steps)
    assert config.levels == "edm"
    assert config.parameterization().sigma_data == options.get("sigma_data", 0.5)


@pytest.mark.parametrize("cls", [FlowMatchEulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_diffusers_reads_the_flow_that_is_written(cls):
    config = SchedulerConfig(
        class_name="FlowMatchEulerDiscreteScheduler", shift=2.5, num_train_timesteps=500
    )
    name = "dpmpp_2m" if cls is DPMSolverMultistepScheduler else "euler"
    written = scheduler_to_diffusers(config.with_sampler(name))
    assert written["_class_name"] == cls.__name__
    theirs, unused = cls.from_config(written, return_unused_kwargs=True)
    assert not {key for key in unused if not key.startswith("_")}
    ours, theirs = run_config(config.with_sampler(name), 6), their_run(theirs, 6)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_diffusers_reads_the_edm_that_is_written():
    config = SchedulerConfig(class_name="EDMEulerScheduler", sigma_max=30.0)
    for name, cls in (
        ("euler", EDMEulerScheduler),
        ("dpmpp_2m", EDMDPMSolverMultistepScheduler),
    ):
        written = scheduler_to_diffusers(config.with_sampler(name))
        theirs, unused = cls.from_config(written, return_unused_kwargs=True)
        assert not {key for key in unused if not key.startswith("_")}
        assert theirs.config.sigma_data == 1.0  # of latents, not of pixels
        ours, theirs = run_config(config.with_sampler(name), 6), their_run(theirs, 6)
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


# samplers that go elsewhere with each seed
DRAWING = (
    *("euler_a", "ddpm", "dpm2_a", "dpmpp_2s_a", "lcm", "tcd", "restart"),
    *("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"),
)


@pytest.mark.parametrize("class_name", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_samplers_without_a_class_go_where_eulers_method_goes(class_name):
    config = SchedulerConfig(class_name=class_name, sigma_min=0.01, sigma_max=40.0)
    wanted = run_config(config, 400)
    for name in config.samplers:
        if name in DRAWING:
            assert run_config(config.with_sampler(name), 20).isfinite().all()
            continue
        chosen = config.with_sampler(name)
        assert chosen.sampler == name
        assert (run_config(chosen, 200) - wanted).abs().max() <= 0.05 * wanted.abs().max(), name
        assert chosen.with_sampler("euler") == config.with_sampler("euler")


def test_a_flow_refuses_samplers_that_subtract_from_pure_noise():
    config = SchedulerConfig(class_name="FlowMatchEulerDiscreteScheduler")
    for name in ("heun", "plms"):
        with pytest.raises(SafelightError, match=f"sampler {name} does not go .* choose one of"):
            config.with_sampler(name)
