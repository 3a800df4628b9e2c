"""Previews of a training: what the finished model makes."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from safelight.app.recipe import PreviewConfig
from safelight.app.training_previews import Asked, sample_preview
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.denoiser import Denoiser
from safelight.errors import SafelightError
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.kind import kind_of
from safelight.pipelines.request import Request
from safelight.pipelines.sampling import text_conditioner
from tiny_model import SIZE, tiny_folder

STEPS = 4
PROMPTS = ("a red cube", "a blue ball")
SCHEDULERS = {
    "ddim, trailing": SchedulerConfig(timestep_spacing="trailing", prediction_type="v_prediction"),
    "leading": SchedulerConfig("EulerDiscreteScheduler", timestep_spacing="leading"),
    "linspace": SchedulerConfig("EulerDiscreteScheduler", timestep_spacing="linspace"),
    "karras": SchedulerConfig("EulerDiscreteScheduler", use_karras_sigmas=True),
    "flow": SchedulerConfig("FlowMatchEulerDiscreteScheduler", shift=3.0),
    "edm": SchedulerConfig("EDMEulerScheduler", sigma_data=0.5),
}
"""Whose own sampler is DDIM without noise, which is Euler's."""


def _preview(folder, steps=STEPS):
    scheduler = folder.scheduler
    denoiser = Denoiser(folder.unet, scheduler.parameterization(), scheduler.schedule())
    text = text_conditioner(folder, kind_of(folder, "x"))
    config = PreviewConfig(PROMPTS, steps=steps, scale=3.0, seed=5)
    asked = Asked(PROMPTS, (SIZE, SIZE), lambda cond, _: cond)
    return sample_preview(denoiser, scheduler, text, folder.autoencoder, config, asked)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_preview_is_what_the_model_makes(name):
    folder = tiny_folder(scheduler=SCHEDULERS[name])
    folder = replace(folder, defaults=replace(folder.defaults, sampler=None))
    with torch.no_grad():
        shown = _preview(folder)(0).picture
    pipeline = ImagePipeline(folder, "x", dtype=torch.float32, device="cpu")
    rows = []
    for scale in (1.0, 3.0):
        settings = pipeline.settle(Request("a red cube", steps=STEPS, scale=scale))
        rows.append(pipeline.sample(PROMPTS, [5, 6], settings))
    made = rearrange(torch.stack(rows), "row b c h w -> c (row h) (b w)")
    assert (shown.clamp(-1, 1) - made).abs().max() < 1e-4


def test_too_many_steps_are_told_before_the_training():
    with pytest.raises(SafelightError, match="1 to 1000 steps, got 1001"):
        _preview(tiny_folder(), steps=1001)
