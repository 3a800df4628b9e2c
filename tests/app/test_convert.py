"""`safelight convert` and `inspect` on whole models, there and back."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.app.cli import main
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import read_control, write_control
from safelight.checkpoints.files import read_state
from safelight.checkpoints.video_layers import write_video_layers
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet, ControlNetConfig, control_of
from safelight.models.t2i_adapter import T2IAdapter, T2IAdapterConfig
from safelight.models.video import TemporalConfig, VideoUNet, inflate
from safelight.pipelines.load_video import load_video


def _picture(model, into):
    options = ["-o", str(into), "--model", str(model), "--device", "cpu", "--steps", "2"]
    assert main(["generate", "a red cube", *options]) == 0
    return np.asarray(Image.open(into))


def test_a_model_is_the_same_as_one_file_and_as_a_folder_again(model_folder, tmp_path, capsys):
    single, folder = tmp_path / "one.safetensors", tmp_path / "folder"
    assert main(["convert", str(model_folder), str(single)]) == 0
    assert main(["convert", str(single), str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(single), str(folder)]
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        before, after = (read_state(top / f"{name}.safetensors") for top in (model_folder, folder))
        assert before.keys() == after.keys()
        assert all((before[key] == after[key]).all() for key in before)
    wanted = _picture(model_folder, tmp_path / "a.png")
    assert (_picture(single, tmp_path / "b.png") == wanted).all()
    assert (_picture(folder, tmp_path / "c.png") == wanted).all()
    capsys.readouterr()
    assert main(["rerun", str(tmp_path / "b.png"), "-o", str(tmp_path / "again.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "again.png")) == wanted).all()


def test_the_precision_is_kept_or_chosen(model_folder, tmp_path, capsys):
    for options, wanted in (([], "float32"), (["--precision", "bfloat16"], "bfloat16")):
        single = tmp_path / f"{wanted}.safetensors"
        assert main(["convert", str(model_folder), str(single), *options]) == 0
        capsys.readouterr()
        assert main(["inspect", str(single)]) == 0
        shown = capsys.readouterr().out
        assert f" M in {wanted}\n" in shown
        assert "U-Net" in shown
        assert "layout of Stable Diffusion 1.x" in shown


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("there.safetensors", "--force"),
        ("model.ckpt", "not written"),
        ("full", "something else"),
        ("file", "as a file already"),
        ("nowhere/inside/x.safetensors", None),
    ],
)
def test_nothing_that_is_there_is_lost(target, told, model_folder, tmp_path, capsys):
    (tmp_path / "there.safetensors").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    status = main(["convert", str(model_folder), str(tmp_path / target)])
    error = capsys.readouterr().err
    if told is None:
        assert status == 0
        assert (tmp_path / target).is_file()
        return
    assert status == 2
    assert told in error
    assert error.count("\n") == 1
    for name in ("there.safetensors", "file", "full/mine"):
        assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["a ControlNet", "a T2I-Adapter"])
def test_what_steers_a_model_is_converted_and_is_no_model(kind, model_folder, tmp_path, capsys):
    if kind == "a ControlNet":
        config = ControlNetConfig(read_unet(model_folder / "unet").config)
        control = ControlNet(config)
    else:
        control = T2IAdapter(T2IAdapterConfig(block_out_channels=(8, 16), layers_per_block=1))
    single, folder = tmp_path / "one.safetensors", tmp_path / "folder"
    write_control(single, control, torch.bfloat16)
    assert main(["convert", str(single), str(folder)]) == 0
    assert main(["convert", str(folder), str(tmp_path / "again.safetensors")]) == 0
    before, after = read_state(single), read_state(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    capsys.readouterr()
    assert main(["inspect", str(single)]) == 0
    assert kind in capsys.readouterr().out
    out = ["-o", str(tmp_path / "x.png")]
    for command in (
        ["generate", "a red cube", "--model", str(single), *out],
        ["generate", "a red cube", "--model", str(folder), *out],
        ["convert", str(single), str(tmp_path / "new"), "--lora", "some"],
        ["generate", "a red cube", "--model", str(model_folder), "--vae", str(single), *out],
        ["generate", "a red cube", "--model", str(model_folder), "--lora", str(single), *out],
    ):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for other in (model_folder, single.with_name("nowhere")):
        with pytest.raises(SafelightError):
            read_control(other)


def test_a_folders_controls_go_along(model_folder, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(model_folder, source)
    shape = ControlNetConfig(read_unet(source / "unet").config, hint_block_channels=(4, 4, 8))
    networks = {
        "canny": control_of(read_unet(source / "unet"), shape),
        "colour": T2IAdapter(T2IAdapterConfig(block_out_channels=(8, 16), layers_per_block=1)),
    }
    for kind, network in networks.items():
        write_control(source / "controls" / kind, network, torch.float32)
    assert main(["convert", str(source), str(tmp_path / "same")]) == 0
    assert main(["convert", str(source), str(source), "--force", "--precision", "float16"]) == 0
    for kind in networks:
        same, half = (read_control(top / "controls" / kind) for top in (tmp_path / "same", source))
        before, after = same.state_dict(), half.state_dict()
        for name, tensor in networks[kind].state_dict().items():
            assert torch.equal(before[name], tensor)
            assert torch.equal(after[name], tensor.half().float())
    assert not list(tmp_path.glob(".*"))
    capsys.readouterr()
    assert main(["convert", str(source), str(tmp_path / "one.safetensors")]) == 0
    assert "no place for controls and the like (canny, colour)" in capsys.readouterr().err


def test_layers_along_the_frames_go_along_where_they_still_belong(model_folder, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(model_folder, source)
    pictures = read_unet(source / "unet")
    video = inflate(pictures, TemporalConfig(3, "placed", ("fps",)), number_dim=8)
    write_video_layers(source / "video", video, pictures)
    same, half = tmp_path / "same", tmp_path / "half"
    assert main(["convert", str(source), str(same)]) == 0
    assert "stay behind" not in capsys.readouterr().err
    assert isinstance(load_video(same, device="cpu").folder.unet, VideoUNet)
    assert main(["convert", str(source), str(half), "--precision", "float16"]) == 0
    assert "layers along the frames" in capsys.readouterr().err
    assert read_unet(half / "unet")
    assert not (half / "video").exists()
    assert main(["convert", str(source), str(tmp_path / "one.safetensors")]) == 0
    assert "no place for controls and the like (video U-Net)" in capsys.readouterr().err
