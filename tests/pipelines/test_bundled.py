"""The model in the package: there, small, and an ordinary one to diffusers."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

import safelight
from safelight.eval.edges import edge_f1
from safelight.pipelines.control_settings import Control
from safelight.pipelines.find import bundled, own_controls
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

PROMPT = "a 3d emoji of a red apple"


@pytest.fixture(scope="module")
def pipeline() -> ImagePipeline:
    return safelight.load(device="cpu")


def test_it_fits_into_a_package():
    sizes = {path: path.stat().st_size for path in bundled().rglob("*") if path.is_file()}
    weights = {path: size for path, size in sizes.items() if path.suffix == ".safetensors"}
    controls = sum(size for path, size in weights.items() if "controls" in path.parts)
    assert 1_000_000 < sum(weights.values()) - controls <= 40_000_000
    assert controls <= 15_000_000
    assert sum(sizes.values()) - sum(weights.values()) <= 1_000_000


@pytest.mark.parametrize("kind", own_controls(bundled()))
def test_its_controls_make_what_their_hints_show(pipeline, kind):
    """The picture's own edges lie nearer to the hint's than without control."""
    cv2 = pytest.importorskip("cv2")
    assert kind == "canny"  # another kind needs a measure of its own here
    hint = Image.new("RGB", (64, 64))
    ImageDraw.Draw(hint).ellipse((8, 30, 36, 58), outline="white")
    control = Control(kind, hint, hint=True)

    def distance(controls: list[Control]) -> float:
        made = pipeline.generate("a green ball", seed=4, controls=controls)[0].image
        return edge_f1(cv2.Canny(np.asarray(made), 100, 200) > 0, np.asarray(hint)[..., 0] > 0)

    assert distance([control]) > distance([]) + 0.2


def test_it_says_how_it_is_best_used(pipeline):
    settings = pipeline.settle(Request(PROMPT))
    assert settings.steps <= 50
    assert 1 < settings.scale < 10
    assert settings.width == settings.height >= 64


def test_its_pictures_follow_the_seed_and_the_prompt(pipeline):
    request = Request(PROMPT, steps=4, count=2)
    one, two = pipeline.each(request)
    [other] = pipeline.generate("a 3d emoji of a blue heart", steps=4)
    arrays = [np.asarray(picture.image, float) for picture in (one, two, other)]
    assert all(array.std() > 10 for array in arrays)
    assert np.abs(arrays[0] - arrays[1]).mean() > 1
    assert np.abs(arrays[0] - arrays[2]).mean() > 1


def test_diffusers_opens_it_and_makes_the_same_picture(pipeline):
    peer = StableDiffusionPipeline.from_pretrained(bundled(), torch_dtype=torch.float32)
    peer.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    theirs = peer(PROMPT, num_inference_steps=5, guidance_scale=3.0, generator=generator)
    [ours] = pipeline.generate(
        PROMPT, steps=5, scale=3.0, seed=3, sampler=pipeline.folder.scheduler.sampler
    )
    difference = np.asarray(ours.image, int) - np.asarray(theirs.images[0], int)
    assert np.abs(difference).max() <= 1
