"""Students and their LoRAs in diffusers: the same seed gives the same picture."""

import numpy as np
import pytest
import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    TCDScheduler,
)

import safelight
from distilling import METHODS, distilled, write_workshop
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.lora_file import LORA_FILE
from safelight.conditioners.numbers import with_guidance
from safelight.models.unet import UNet
from safelight.train.consistency_task import bounded, moved
from safelight.types import Conditioning
from tiny_model import SIZE, tiny_folder

PROMPT, SEED = "a red ball", 5
RATE = "optim.lr=1e-2"  # so that a few steps change what is seen


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return write_workshop(tmp_path_factory.mktemp("distilled"))


def _distilled(workshop, out, *changed):
    with torch.enable_grad():
        return distilled(workshop, out, RATE, "loop.ema=0", *changed)


def _theirs(pipeline, *, scale, steps=4):
    pipeline.set_progress_bar_config(disable=True)
    tcd = isinstance(pipeline.scheduler, TCDScheduler)
    return pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=scale,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **({"eta": 0.3} if tcd else {}),  # its gamma
    ).images[0]


def _ours(pipeline, **options):
    (made,) = pipeline.generate(PROMPT, seed=SEED, **options)
    return np.asarray(made.image) / 255


def _same(ours, theirs):
    return np.abs(ours - theirs).max() <= 1 / 255


@pytest.mark.parametrize("method", ["lcm", "lcm, not told", "tcd", "guidance", "progressive"])
def test_a_student_makes_the_same_picture_in_diffusers(workshop, tmp_path, method):
    folder = _distilled(workshop, tmp_path / "out", *METHODS[method])
    student = read_folder(folder)
    told = student.unet.config.guidance_dim is not None
    if told:  # so that the scale is seen
        student.unet.time_embedding.cond_proj.weight.add_(torch.randn(32, 16))
        write_folder(folder, student)
    pipeline = safelight.load(folder, device="cpu")
    scale = 3.0 if told else 1.0
    sampler = "ddim" if method == "guidance" else None
    ours = _ours(pipeline, scale=scale, steps=4, sampler=sampler)
    assert _same(ours, _theirs(StableDiffusionPipeline.from_pretrained(folder), scale=scale))
    if method == "lcm":
        other = LatentConsistencyModelPipeline.from_pretrained(folder)
        assert _same(ours, _theirs(other, scale=scale))
    if told:
        assert not _same(ours, _ours(pipeline, scale=1.5, steps=4, sampler=sampler))


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("method", ["lcm", "tcd"])
def test_a_lora_makes_the_same_picture_in_diffusers(workshop, tmp_path, layout, method):
    changed = (f'lora={{rank=4, alpha=8, layout="{layout}"}}', f'distillation.method="{method}"')
    lora = _distilled(workshop, tmp_path / "out", *changed)
    sibling = tiny_folder()  # fine-tuned from the base
    for parameter in sibling.unet.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    write_folder(tmp_path / "sibling", sibling)
    scheduler = {"lcm": LCMScheduler, "tcd": TCDScheduler}[method]
    for model in (workshop / "model", tmp_path / "sibling"):
        pipeline = safelight.load(model, device="cpu")
        plain = _ours(pipeline, scale=1.0, steps=4, sampler=method)
        pipeline.adapt(lora / LORA_FILE)
        ours = _ours(pipeline, scale=1.0, steps=4, sampler=method)
        assert not _same(ours, plain)
        theirs = StableDiffusionPipeline.from_pretrained(model)
        theirs.scheduler = scheduler.from_config(theirs.scheduler.config)
        theirs.load_lora_weights(lora)
        assert _same(ours, _theirs(theirs, scale=1.0))


def test_the_boundary_is_that_of_their_scheduler():
    scheduler = LCMScheduler()
    t = torch.tensor([0.0, 1.0, 19.0, 999.0])
    sigma = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()[t.long()]
    denoised, x = torch.randn(2, 4, 3, 2, 2)
    z = x / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
    ours = bounded(denoised, x, sigma, t)
    for i, time in enumerate(t.tolist()):
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(time)
        assert torch.allclose(ours[i], c_skip * z[i] + c_out * denoised[i], atol=1e-6)
    assert torch.equal(ours[0], z[0])


def test_a_jump_is_that_of_their_scheduler():
    scheduler = TCDScheduler()
    scheduler.set_timesteps(4, original_inference_steps=50)
    start, landing = scheduler.timesteps[:2].tolist()
    end = int((1 - 0.3) * landing)
    a = scheduler.alphas_cumprod
    sigma = ((1 - a) / a).sqrt()
    x, denoised = torch.randn(2, 1, 4, 2, 2)
    z = x * a[start].sqrt()
    noise = (x - denoised) / sigma[start]
    theirs = scheduler.step(noise, start, z, eta=0.3, generator=torch.Generator().manual_seed(0))
    ours = moved(denoised, x, sigma[start : start + 1], sigma[end : end + 1])
    assert torch.allclose(ours, theirs.pred_noised_sample, atol=1e-5)


def test_scales_of_a_batch_are_told_each_their_own():
    unet = UNet(tiny_folder().unet.config.__class__(guidance_dim=256))
    cond = Conditioning(context=torch.zeros(2, 5, 768))
    rows = with_guidance(cond, torch.tensor([3.0, 8.5]), unet.config).vector
    assert rows is not None
    for row, scale in zip(rows, (3.0, 8.5), strict=True):
        theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
            None, torch.tensor([scale - 1]), embedding_dim=256
        )
        assert torch.allclose(row, theirs[0], atol=2e-3)  # sines of thousands, in float32
