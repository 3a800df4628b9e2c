"""Models that hold their weights in fewer bytes than they compute with, made and made again."""

import inspect
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.app.cli import main
from safelight.checkpoints.folder import Folder, read_folder, write_folder
from safelight.checkpoints.lora_file import write_lora
from safelight.checkpoints.model import write_upon
from safelight.checkpoints.motion import write_motion
from safelight.errors import SafelightError
from safelight.models.motion import MotionAdapter, MotionConfig
from safelight.nn.deltas import LowRank
from safelight.nn.lora import adaptable, fresh
from safelight.nn.stored import StoredConv2d, StoredLinear
from safelight.pipelines.clip_files import read_clip_manifest
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.load_video import load_video
from safelight.pipelines.picture_files import read_manifest
from safelight.pipelines.storing import reading_precision
from safelight.pipelines.streaming import stream
from tiny_model import seeing_folder, tiny_folder
from tiny_video import video_folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose file is in float16."""
    path = tmp_path_factory.mktemp("models") / "half"
    write_folder(path, tiny_folder(), dtype=torch.float16)
    return path


def lora_of(folder: Folder, mark: str, size: float) -> dict[str, LowRank]:
    """A LoRA of the U-Net's layers in whose paths there is a mark."""
    torch.manual_seed(0)
    deltas = {path: fresh(layer, 2, 2.0) for path, layer in adaptable(folder.unet) if mark in path}
    for delta in deltas.values():
        delta.up.data = torch.randn_like(delta.up) * size
    return deltas


def pixels(pipeline: ImagePipeline) -> np.ndarray:
    [made] = pipeline.generate("a red cube", seed=3)
    return np.asarray(made.image).astype(float)


def test_what_a_file_holds_in_half_precision_makes_the_same_picture_in_half_the_memory(half: Path):
    plain, held = load(half, device="cpu"), load(half, device="cpu", storage="float16")
    assert np.array_equal(pixels(plain), pixels(held))
    sizes = [
        sum(p.numel() * p.element_size() for p in pipeline.folder.unet.parameters())
        for pipeline in (plain, held)
    ]
    assert sizes[1] < 0.6 * sizes[0]
    towers = held.folder.text_towers
    assert any(isinstance(layer, StoredLinear) for _, layer in adaptable(towers[0]))
    autoencoder = held.folder.autoencoder
    assert {p.dtype for p in autoencoder.parameters()} == {torch.float32}
    assert all(type(m) not in (StoredLinear, StoredConv2d) for m in autoencoder.modules())


def test_whole_numbers_make_almost_the_same_picture(model_folder: Path):
    plain = pixels(load(model_folder, device="cpu", engine="torch"))
    held = load(model_folder, device="cpu", storage="int8")
    ours = pixels(held)
    assert held.engine == "torch"
    assert 0 < np.abs(ours - plain).mean() < 3


def test_a_lora_that_comes_into_the_weights_is_not_rounded_before(half: Path, tmp_path: Path):
    folder = read_folder(half)
    deltas = lora_of(folder, "attn2.to_q", 0.1)
    write_upon(tmp_path / "upon", half, folder, deltas, "diffusers")
    held = load(tmp_path / "upon", device="cpu", storage="bfloat16")
    wanted = load(tmp_path / "upon", device="cpu", engine="torch")
    layers = dict(adaptable(held.folder.unet))
    for path, layer in adaptable(wanted.folder.unet):
        if path not in ("conv_in", "conv_out"):
            assert torch.equal(layers[path].weight, layer.weight.bfloat16()), path


def test_the_command_line_records_it_and_makes_it_again(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(model_folder), "--device", "cpu"]
    assert main(["generate", "a red cube", "-o", "x.png", "--storage", "int8", *options]) == 0
    manifest = read_manifest(Path("x.png"))
    assert (manifest.storage, manifest.precision, manifest.engine) == ("int8", "float32", "torch")
    assert main(["generate", "a red cube", "-o", "plain.png", *options]) == 0
    plain = read_manifest(Path("plain.png"))
    assert plain.storage is None
    assert plain.pixels != manifest.pixels
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 0
    assert "the same pixels" in capsys.readouterr().err
    assert read_manifest(Path("x-rerun.png")) == manifest
    assert main(["generate", "a", "--storage", "int4", *options]) == 2
    assert "int4" in capsys.readouterr().err


def test_an_adapter_goes_around_what_is_stored(model_folder: Path, tmp_path: Path):
    write_lora(tmp_path / "style.safetensors", lora_of(tiny_folder(), "attn", 0.2), "diffusers")
    plain, held = (
        load(model_folder, device="cpu", engine="torch", storage=storage)
        for storage in (None, "float16")
    )
    bare = pixels(held)
    for pipeline in (plain, held):
        pipeline.adapt(tmp_path / "style.safetensors")
    assert np.abs(pixels(held) - pixels(plain)).max() <= 2
    assert np.abs(pixels(held) - bare).max() > 8
    held.eject()
    assert np.array_equal(pixels(held), bare)


def test_what_takes_no_stored_weights_says_so(model_folder: Path):
    with pytest.raises(SafelightError, match="weights as they are; leave storage 'int8' out"):
        load(model_folder, device="cpu", engine="compile", storage="int8")
    unchecked = inspect.unwrap(reading_precision)  # by the checks of types that tests have
    with pytest.raises(SafelightError, match=r"Unknown storage 'int4'\. .*int8"):
        unchecked(model_folder, "int4", torch.float32)
    held = load(model_folder, device="cpu", storage="int8")
    with pytest.raises(SafelightError, match="int8, which streams do not take"):
        stream(held, prompt="a red cube")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_precision_that_a_processor_only_emulates_is_warned_of(
    model_folder: Path,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("safelight.pipelines.load.multiplies_bfloat16", lambda device: False)
    with caplog.at_level(logging.WARNING, "safelight"):
        load(model_folder, device="cpu", dtype=dtype)
    told = [record.getMessage() for record in caplog.records]
    if dtype == torch.float32:
        assert not told
        return
    [line] = told
    assert f"--storage {str(dtype).removeprefix('torch.')}" in line
    monkeypatch.setattr("safelight.pipelines.load.multiplies_bfloat16", lambda device: True)
    caplog.clear()
    load(model_folder, device="cpu", dtype=torch.bfloat16)
    assert not caplog.records


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_clips_are_made_with_stored_weights_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, storage: str
):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "moving", video_folder(), dtype=torch.float16)
    options = ["--model", str(tmp_path / "moving"), "--device", "cpu", "--prompt", "a red cube"]
    assert main(["animate", "-o", "held.webp", "--storage", storage, *options]) == 0
    assert main(["animate", "-o", "plain.webp", *options]) == 0
    held, plain = (read_clip_manifest(Path(f"{name}.webp")) for name in ("held", "plain"))
    assert (held.storage, plain.storage) == (storage, None)
    assert (held.pixels == plain.pixels) == (storage == "float16")
    capsys.readouterr()
    assert main(["rerun", "held.webp"]) == 0
    assert "the same pixels" in capsys.readouterr().err


def test_a_motion_module_is_stored_with_the_model_that_it_moves(tmp_path: Path):
    write_folder(tmp_path / "pictures", tiny_folder())
    torch.manual_seed(0)
    adapter = MotionAdapter(MotionConfig((32, 64), (1, 1), groups=8, max_frames=4))
    write_motion(tmp_path / "motion", adapter)
    loaded = load_video(
        tmp_path / "pictures",
        motion_module=tmp_path / "motion",
        storage="int8",
        device="cpu",
    )
    held = [p for p, m in loaded.folder.unet.named_modules() if isinstance(m, StoredLinear)]
    assert any(".motion." in path for path in held)
    assert any(".base.transformer_blocks." in path for path in held)
    clip = loaded.animate(prompt="a red cube", frames=2, steps=2, width=32, height=32)
    assert len(clip.frames) == 2


def test_the_image_tower_of_a_model_is_stored_too(tmp_path: Path):
    write_folder(tmp_path / "seeing", seeing_folder())
    pipeline = load(tmp_path / "seeing", device="cpu", storage="bfloat16")
    vision = pipeline.folder.vision
    assert vision is not None
    assert any(isinstance(layer, StoredLinear) for layer in vision.tower.modules())
