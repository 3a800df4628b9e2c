"""What is begun from under a mask, as AUTOMATIC1111's `inpainting_fill` has it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.checkpoints.folder import write_folder
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.pipelines.beginning import Batch, begin
from safelight.pipelines.given import Given, give
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.request import Request, first_step
from tiny_model import tiny_folder


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


@pytest.fixture(scope="module")
def given() -> Given:
    levels = np.random.default_rng(4).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    return Given(give("image", Image.fromarray(levels)), give("mask", Image.fromarray(mask)))


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    torch.manual_seed(0)
    folder, where = tiny_folder(), tmp_path_factory.mktemp("nine")
    unet = UNet(replace(folder.unet.config, in_channels=9)).eval()
    write_folder(where / "nine", replace(folder, unet=unet))
    return safelight.load(where / "nine", device="cpu")


def start(pipeline, given, fill, subseed_strength=0.0, strength: float | None = 0.5):
    request = Request("x", steps=4, given=given, strength=strength, mask_fill=fill)
    request = replace(request, subseed_strength=subseed_strength, subseed=9)
    settings = pipeline.settle(request)
    model = pipeline.model
    scheduler = model.scheduler(settings)
    first = first_step(settings.steps, settings.strength)
    with torch.inference_mode():
        begun = begin(model, Batch(["x"], [7], "", settings, given), scheduler, first)
    return begun, scheduler.beginning(settings.steps, first)


def test_nothing_leaves_the_noise_alone_and_noise_is_the_seeds_own(pipeline, given):
    """There `init_latent * mask + random * nmask` of the same seeds, then noised by sigma."""
    own, sigma = start(pipeline, given, "original")
    nothing, _ = start(pipeline, given, "nothing")
    noise, _ = start(pipeline, given, "noise")
    drawn = own.kept.noise
    left = (slice(None), slice(None), slice(None), slice(0, 4))
    right = (slice(None), slice(None), slice(None), slice(4, 8))
    torch.testing.assert_close(nothing.x[left], (sigma * drawn)[left])
    torch.testing.assert_close(noise.x[left], ((1 + sigma) * drawn)[left])
    assert not torch.allclose(own.x[left], nothing.x[left])
    for filled in (nothing, noise):
        assert torch.equal(filled.x[right], own.x[right])
        assert torch.equal(filled.kept.x0[right], own.kept.x0[right])


def test_a_sub_seed_changes_the_noise_that_is_added_and_not_the_fill(pipeline, given):
    one, sigma = start(pipeline, given, "noise")
    two, _ = start(pipeline, given, "noise", 0.5)
    left = (slice(None), slice(None), slice(None), slice(0, 4))
    drawn, mixed = one.kept.noise, two.kept.noise
    torch.testing.assert_close(two.x[left], (drawn + sigma * mixed)[left])


def test_it_is_in_the_manifest(pipeline, given):
    request = Request("x", steps=2, given=given, strength=0.5, mask_fill="nothing")
    [picture] = pipeline.each(request)
    told = Manifest.from_json(picture.manifest.to_json(), "it")
    assert told.mask_fill == "nothing"


def test_without_a_mask_it_is_one_line(pipeline):
    with pytest.raises(SafelightError, match="needs a mask"):
        pipeline.settle(Request("x", mask_fill="noise"))


@pytest.mark.parametrize("name", ["pipeline", "inpainting"])
def test_a_fill_that_nobody_gave_a_strength_is_not_hidden_by_noise(request, given, name):
    """At full strength an unfilled picture is begun from noise alone."""
    model = request.getfixturevalue(name)
    for fill, strength in (("original", 1.0), ("noise", 0.8), ("nothing", 0.8)):
        asked = Request("x", steps=5, given=given, mask_fill=fill)
        assert model.settle(asked).strength == strength
    pictures = {
        next(model.each(Request("x", seed=7, steps=5, given=given, mask_fill=fill))).manifest.pixels
        for fill in ("original", "noise", "nothing")
    }
    assert len(pictures) == 3


@pytest.mark.parametrize("name", ["pipeline", "inpainting"])
def test_at_full_strength_it_is_noised_by_the_first_level(request, given, name):
    """There `x = init_latent + noise * sigma_sched[0]`."""
    model = request.getfixturevalue(name)
    nothing, sigma = start(model, given, "nothing", strength=1.0)
    noise, _ = start(model, given, "noise", strength=1.0)
    settings = model.settle(Request("x", steps=4, given=given))
    assert sigma == model.model.scheduler(settings).sigmas(4)[0]
    left = (slice(None), slice(None), slice(None), slice(0, 4))
    drawn = nothing.x[left] / sigma
    torch.testing.assert_close(noise.x[left], (1 + sigma) * drawn)
