"""Networks that wait elsewhere. There they hold nothing but not-a-number here, so that a network
that is called while it waits spoils the picture.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.checkpoints.folder import write_folder
from safelight.errors import SafelightError
from safelight.pipelines import load as loading
from safelight.pipelines import offloading
from safelight.pipelines.load import load
from safelight.pipelines.load_video import load_video
from safelight.pipelines.request import Hires
from tiny_model import SIZE, seeing_folder, write_tiny_model
from tiny_video import write_video_model

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8))
MASK = Image.fromarray(np.kron(np.eye(2), np.ones((16, 16))).astype(np.uint8) * 255)


@pytest.fixture
def waiting(monkeypatch):
    """What lets a pipeline's networks wait."""
    real: dict[int, torch.Tensor] = {}

    def wait(pipeline) -> None:
        for network in modules_of(pipeline.folder):
            for weight in (*network.parameters(), *network.buffers()):
                there = torch.full_like(weight.data, torch.nan)
                real[there.data_ptr()], weight.data = weight.data, there
        pipeline.offload = True

    monkeypatch.setattr(offloading, "moved", lambda home, device: real[home.data_ptr()])
    return wait


def modules_of(part) -> Iterator[torch.nn.Module]:
    """All that has weights in a model's folder, wherever it is."""
    if isinstance(part, torch.nn.Module):
        yield part
    elif is_dataclass(part):
        for one in fields(part):
            yield from modules_of(getattr(part, one.name))
    elif isinstance(part, tuple | list):
        for one in part:
            yield from modules_of(one)


def pixels(pictures) -> np.ndarray:
    return np.stack([np.asarray(one.image if hasattr(one, "image") else one) for one in pictures])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image": PICTURE, "mask": MASK, "strength": 0.8, "count": 2},
        {"hires": Hires(scale=2.0, strength=0.6)},
        {"prompt": "a [red:blue:0.5] cube AND a ball", "negative": "a cube", "scale": 3.0},
    ],
    ids=["prompt", "picture", "twice", "prompts"],
)
def test_pictures_are_the_same(model_folder, waiting, options):
    options = {"prompt": "a red cube", "steps": 3} | options
    plain = load(model_folder, device="cpu", engine="torch")
    wanted = pixels(plain.generate(**options))
    waits = load(model_folder, device="cpu", engine="torch")
    waiting(waits)
    with torch.no_grad():
        assert all(weight.isnan().all() for weight in waits.folder.unet.parameters())
    for _ in range(2):
        assert np.array_equal(pixels(waits.generate(**options)), wanted)
    assert all(weight.isnan().all() for weight in waits.folder.unet.parameters())
    both = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    assert torch.equal(waits.reconstruct(both), plain.reconstruct(both))


@pytest.mark.parametrize("second", ["refiner", "guide"])
def test_so_they_are_with_a_second_model(model_folder, waiting, tmp_path, second: str):
    parts = {second: write_tiny_model(tmp_path / "other", seed=1)}
    parts |= {"refine_at": 0.5} if second == "refiner" else {}
    plain = load(model_folder, device="cpu", engine="torch", **parts)
    waits = load(model_folder, device="cpu", engine="torch", **parts)
    for one in (waits, getattr(waits, second).pipeline):
        waiting(one)
    options = {"prompt": "a red cube", "steps": 4, "scale": 2.0}
    assert np.array_equal(pixels(waits.generate(**options)), pixels(plain.generate(**options)))


def test_so_are_those_of_a_picture_that_is_seen(waiting, tmp_path):
    write_folder(tmp_path / "seeing", seeing_folder())
    plain, waits = (load(tmp_path / "seeing", device="cpu", engine="torch") for _ in range(2))
    waiting(waits)
    options = {"prompt": "a red cube", "image": PICTURE, "steps": 2}
    assert np.array_equal(pixels(waits.generate(**options)), pixels(plain.generate(**options)))


def test_so_are_clips(waiting, tmp_path):
    folder = write_video_model(tmp_path / "moving")
    plain, waits = (load_video(folder, device="cpu") for _ in range(2))
    waiting(waits)
    options = {"image": PICTURE, "prompt": "a red cube", "steps": 2}
    assert np.array_equal(
        pixels(waits.animate(**options).frames), pixels(plain.animate(**options).frames)
    )


def test_they_wait_for_another_device_alone(model_folder, monkeypatch):
    assert not load(model_folder, device="cpu", offload=True, engine="prepared").offload
    monkeypatch.setattr(loading, "_device_counts", lambda: {"cpu": 1, "cuda": 1})
    pipeline = load(model_folder, device="cuda", offload=True)
    assert pipeline.offload
    assert {weight.device.type for weight in pipeline.folder.unet.parameters()} == {"cpu"}
    with pytest.raises(SafelightError, match="streams do not fetch them"):
        safelight.stream(pipeline, prompt="a cube")
    with pytest.raises(SafelightError, match='leave "offload" out'):
        load(model_folder, device="cuda", offload=True, engine="compile")
