"""The model in the package: there, small, and an ordinary one to diffusers."""

import numpy as np
import pytest
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from PIL import Image, ImageDraw

import safelight
from safelight.conditioners.annotators.pose import Keypoint, Person, draw_pose
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
    video = sum(size for path, size in weights.items() if "video" in path.parts)
    assert 1_000_000 < sum(weights.values()) - controls - video <= 40_000_000
    assert video <= 4_000_000
    assert controls <= 15_000_000
    assert sum(sizes.values()) - sum(weights.values()) <= 1_000_000


def test_all_bundled_weights_are_few_enough_for_a_package():
    weights = list(bundled().parent.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 60_000_000


def test_each_of_its_controls_is_held_to_a_hint_here():
    assert list(own_controls(bundled())) == ["canny", "depth", "pose", "scribble"]


@pytest.mark.parametrize(("kind", "width"), [("canny", 1), ("scribble", 3)])
def test_its_controls_of_lines_make_what_their_hints_show(pipeline, kind, width):
    """The picture's own edges lie nearer to the hint's than without control."""
    cv2 = pytest.importorskip("cv2")
    hint = Image.new("RGB", (64, 64))
    ImageDraw.Draw(hint).ellipse((8, 30, 36, 58), outline="white", width=width)
    control = Control(kind, hint, hint=True)

    def distance(controls: list[Control]) -> float:
        made = pipeline.generate("a green ball", seed=4, controls=controls)[0].image
        return edge_f1(cv2.Canny(np.asarray(made), 100, 200) > 0, np.asarray(hint)[..., 0] > 0)

    assert distance([control]) > distance([]) + 0.2


def test_its_control_of_depth_puts_the_ball_where_it_stands_out_of_the_floor(pipeline):
    floor = np.clip((np.arange(64.0) - 20) / 44, 0, 1)[:, None] * np.ones(64) * 235

    def middle(x: int) -> np.ndarray:
        hint = Image.fromarray(floor.astype(np.uint8)).convert("RGB")
        ImageDraw.Draw(hint).ellipse((x - 11, 23, x + 11, 45), fill=(185, 185, 185))
        control = Control("depth", hint, hint=True)
        [made] = pipeline.generate("a green ball", seed=4, controls=[control])
        red, green, blue = np.asarray(made.image, float).transpose(2, 0, 1)
        return np.argwhere(green - np.maximum(red, blue) > 40).mean(axis=0)

    for x in (18, 45):
        np.testing.assert_allclose(middle(x), (34, x), atol=3)


def test_its_control_of_poses_puts_the_arms_where_the_hint_has_them(pipeline):
    """A person is darker or brighter than the room where an arm is, and is not where none is."""
    up, out = ((20.0, 8.0), (44.0, 8.0)), ((10.0, 24.0), (54.0, 24.0))

    def hint(hands: tuple[tuple[float, float], tuple[float, float]]) -> Image.Image:
        places = {
            0: (32, 14),
            1: (32, 22),
            2: (27, 22),
            5: (37, 22),
            8: (29, 38),
            11: (35, 38),
            9: (28, 48),
            10: (28, 58),
            12: (36, 48),
            13: (36, 58),
            4: hands[0],
            7: hands[1],
        }
        places |= {3: _between(places[2], hands[0]), 6: _between(places[5], hands[1])}
        body = tuple(Keypoint(*map(float, places[i])) if i in places else None for i in range(18))
        return draw_pose([Person(body)], (64, 64), 1)

    def made(hands: tuple[tuple[float, float], tuple[float, float]]) -> np.ndarray:
        control = Control("pose", hint(hands), hint=True)
        [picture] = pipeline.generate("a person", seed=3, controls=[control])
        levels = np.asarray(picture.image, float)
        room = np.median(np.concatenate([levels[:, :4], levels[:, -4:]], axis=1), axis=(0, 1))
        return np.abs(levels - room).mean(axis=2)

    raised, spread = made(up), made(out)

    def at(levels: np.ndarray, hands: tuple[tuple[float, float], ...]) -> float:
        return float(
            np.mean(
                [levels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].mean() for x, y in hands]
            )
        )

    assert at(raised, up) > 1.5 * at(spread, up)
    assert at(spread, out) > 1.5 * at(raised, out)


def _between(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


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


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("default-lcm", LCMScheduler), ("default-turbo", EulerAncestralDiscreteScheduler)],
)
def test_its_students_make_pictures_in_one_call_each_and_the_same_in_diffusers(name, scheduler):
    student = safelight.load(name, device="cpu")
    settings = student.settle(Request(PROMPT))
    assert (settings.steps, settings.scale) == (4, 1.0)
    folder = bundled().with_name(name)
    peer = StableDiffusionPipeline.from_pretrained(bundled(), torch_dtype=torch.float32)
    peer.scheduler = scheduler.from_pretrained(folder / "scheduler")
    peer.load_lora_weights(folder)
    peer.set_progress_bar_config(disable=True)
    for steps in (1, 4):
        generator = torch.Generator().manual_seed(3)
        theirs = peer(PROMPT, num_inference_steps=steps, guidance_scale=1.0, generator=generator)
        [ours] = student.generate(PROMPT, steps=steps, seed=3)
        difference = np.asarray(ours.image, int) - np.asarray(theirs.images[0], int)
        assert np.abs(difference).max() <= 1


def test_its_students_are_steered_by_its_controls():
    hint = Image.new("RGB", (64, 64))
    ImageDraw.Draw(hint).ellipse((8, 30, 36, 58), outline="white")
    student = safelight.load("default-lcm", device="cpu")
    pictures = [
        np.asarray(student.generate("a green ball", seed=4, controls=controls)[0].image, int)
        for controls in ([Control("canny", hint, hint=True)], [])
    ]
    green = [image[..., 1] - image[..., ::2].max(axis=2) > 30 for image in pictures]
    wanted = np.zeros((64, 64), bool)
    down, across = np.mgrid[:64, :64]
    wanted[(across - 22) ** 2 + (down - 44) ** 2 <= 14**2] = True
    overlap = [(mask & wanted).sum() / (mask | wanted).sum() for mask in green]
    assert overlap[0] > max(0.6, overlap[1])
