"""`--control`: pictures steered by a ControlNet, their manifests, and the same pictures again."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.app.cli import main
from safelight.app.control_options import ControlOptions
from safelight.checkpoints.controlnet import read_controlnet, write_controlnet
from safelight.checkpoints.folder import DEFAULTS, write_folder
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNetConfig, control_of
from safelight.pipelines.control_settings import Control
from safelight.pipelines.picture_files import read_manifest
from tiny_model import tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that brings a control of edges, which steers at random."""
    folder, path = tiny_folder(), tmp_path_factory.mktemp("model") / "tiny"
    write_folder(path, folder)
    _write_control(path / "controls" / "canny", folder.unet)
    return path


def _write_control(path, unet, **shape):
    config = ControlNetConfig(unet.config, hint_block_channels=(4, 6, 8), **shape)
    network = control_of(unet, config)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    write_controlnet(path, network)


@pytest.fixture
def photo(tmp_path):
    levels = np.random.default_rng(4).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((40, 50)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _make(model, into, *options):
    fixed = ["--model", str(model), "--device", "cpu", "--steps", "4", "-o", str(into)]
    assert main(["generate", "a red cube", *fixed, *options]) == 0
    return np.asarray(Image.open(into), dtype=int)


def _again(path):
    assert main(["rerun", str(path)]) == 0
    return np.asarray(Image.open(path.with_name(f"{path.stem}-rerun.png")), dtype=int)


def test_a_controlled_picture_comes_again(model, photo, tmp_path, capsys):
    plain = _make(model, tmp_path / "plain.png")
    options = ["--control", f"canny={photo}:0.8", "--control-mode", "control"]
    made = _make(model, tmp_path / "a.png", *options, "--control-end", "canny=0.8")
    assert (made != plain).any()
    assert (_again(tmp_path / "a.png") == made).all()
    capsys.readouterr()
    assert main(["show", str(tmp_path / "a.png")]) == 0
    [told] = json.loads(capsys.readouterr().out)["controls"]
    assert (told["kind"], told["weight"], told["end"]) == ("canny", 0.8, 0.8)
    assert told["picture"]["file"] == str(photo)
    assert (_make(model, tmp_path / "b.png", "--control", f"canny={photo}:0") == plain).all()
    Image.new("RGB", (40, 50), "red").save(photo)
    assert main(["rerun", str(tmp_path / "a.png")]) == 2
    assert "not the picture of control canny" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--hires", "1.5", "--hires-strength", "0.5"],
        ["--width", "64", "--tiled-diffusion"],
        ["--image", "PHOTO", "--strength", "0.5"],
        ["--image", "PHOTO", "--mask", "PHOTO"],
        ["--image", "PHOTO", "--outpaint", "right=7"],
        ["--precision", "bfloat16"],
        ["--guide", "MODEL"],
        ["--pag-scale", "2"],
        ["--scale", "4,2"],
        ["--scale", "4", "--negative", "blue", "--perp-neg", "1.0"],
        ["--refiner", "MODEL", "--refine-at", "0.5"],
        ["--sampler", "heun"],
    ],
)
@pytest.mark.parametrize("mode", ["balanced", "guided", "guess"])
def test_a_control_goes_with_all_else(model, photo, tmp_path, options, mode):
    places = {"PHOTO": str(photo), "MODEL": str(model)}
    options = [places.get(word, word) for word in options]
    plain = _make(model, tmp_path / "plain.png", *options)
    controls = ["--control", f"canny={photo}", "--control-mode", mode]
    made = _make(model, tmp_path / "a.png", *options, *controls)
    assert made.shape == plain.shape
    assert (made != plain).any()
    assert (_again(tmp_path / "a.png") == made).all()


def test_a_mask_says_where(model, photo, tmp_path):
    """Masks of nothing and of all are no control and a whole one; one of a part is neither."""
    made = {}
    for name, box in (("none", None), ("all", (0, 0, 40, 50)), ("part", (0, 0, 20, 50))):
        mask = Image.new("L", (40, 50), 0)
        if box is not None:
            mask.paste(255, box)
        mask.save(tmp_path / f"{name}-mask.png")
        options = ["--control", f"canny={photo}", "--hint"]
        options += ["--control-mask", str(tmp_path / f"{name}-mask.png")]
        made[name] = _make(model, tmp_path / f"{name}.png", *options)
    plain = _make(model, tmp_path / "plain.png")
    whole = _make(model, tmp_path / "whole.png", "--control", f"canny={photo}", "--hint")
    assert (made["none"] == plain).all()
    assert (made["all"] == whole).all()
    assert (made["part"] != plain).any()
    assert (made["part"] != whole).any()


def test_guided_is_one_sided_by_full_weights(model, photo):
    """And the same as balanced where there is no other side."""
    pipeline = safelight.load(str(model), device="cpu")
    parts = read_controlnet(model / "controls" / "canny").parts

    def made(mode, scale=4.0, **weights):
        control = Control("canny", photo, mode=mode, **weights)
        [kept] = pipeline.generate("a red cube", steps=3, scale=scale, controls=(control,))
        return np.asarray(kept.image, dtype=int)

    guided = made("guided")
    assert (guided == made("control", weights=(1.0,) * parts)).all()
    assert (guided != made("balanced")).any()
    assert (guided != made("control")).any()
    assert (made("guided", scale=1.0) == made("balanced", scale=1.0)).all()


def test_a_model_says_how_its_controls_are_best_used(model, photo, tmp_path, capsys):
    own = shutil.copytree(model, tmp_path / "own")
    said = json.loads((own / DEFAULTS).read_text()) if (own / DEFAULTS).is_file() else {}
    (own / DEFAULTS).write_text(json.dumps({**said, "control_mode": "guided"}))
    options = ["--control", f"canny={photo}"]
    made = _make(own, tmp_path / "own.png", *options)
    guided = _make(model, tmp_path / "guided.png", *options, "--control-mode", "guided")
    assert (made == guided).all()
    assert (_make(own, tmp_path / "b.png", *options, "--control-mode", "balanced") != made).any()
    assert read_manifest(tmp_path / "own.png").controls[0].mode == "guided"
    assert (_again(tmp_path / "own.png") == made).all()
    (own / DEFAULTS).write_text('{"control_mode": "loud"}')
    capsys.readouterr()
    assert main(["generate", "a cube", "--model", str(own), *options]) == 2
    assert "asks for controls of mode 'loud'; expected one of balanced" in capsys.readouterr().err


def test_a_grid_varies_a_weight(model, photo, tmp_path):
    fixed = ["--model", str(model), "--device", "cpu", "--steps", "2"]
    options = ["--control", f"canny={photo}", "--x", "control-weight=0,0.5,1"]
    into = str(tmp_path / "grid.png")
    assert main(["grid", "a red cube", *fixed, *options, "-o", into]) == 0
    assert main(["rerun", into]) == 0


def test_networks_that_do_not_fit_are_a_line(model, photo, tmp_path, capsys):
    unet = tiny_folder().unet
    other = type(unet)(dataclasses.replace(unet.config, cross_attention_dim=48))
    _write_control(tmp_path / "other", other)
    _write_control(tmp_path / "two", unet, hint_channels=2)
    fixed = ["generate", "a cube", "--model", str(model), "--device", "cpu"]
    fixed += ["--control", f"canny={photo}", "-o", str(tmp_path / "a.png")]
    for options, line in (
        (["--control-net", f"canny={tmp_path / 'other'}"], "a context of width 48, and here it"),
        (["--control-net", f"canny={tmp_path / 'two'}"], "takes a hint of 2 channels"),
        (["--control-net", f"canny={tmp_path / 'none'}"], "There is no network of control canny"),
        (["--control-net", "cany=x"], "Did you mean 'canny'?"),
        (["--control-start", "0.5", "--control-end", "0.5"], "should start before it ends"),
        (["--control-mode", "loud"], "should be one of balanced"),
        (["--control", f"cany={photo}"], "it has canny. Did you mean 'canny'?"),
        (["--control", "canny=none.png"], "There is no picture none.png"),
        (["--control-weight", "much"], "should be a number, got much"),
    ):
        assert main([*fixed, *options]) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_names_of_files_may_hold_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:2", "b=1.png", "C:x.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    texts = ("pose=a:2", "pose=a:2:0.5", "pose=b=1.png:-1", "pose=C:x.png")
    read = ControlOptions(control=texts).controls()
    told = [(str(control.picture), control.weight) for control in read]
    assert told == [("a:2", 1.0), ("a:2", 0.5), ("b=1.png", -1.0), ("C:x.png", 1.0)]
    with pytest.raises(SafelightError, match=r"pose=figure\.png"):
        ControlOptions(control=("figure.png",)).controls()


def test_models_tells_of_controls(model, monkeypatch, capsys):
    monkeypatch.setenv("SAFELIGHT_MODELS", str(model.parent))
    assert main(["models"]) == 0
    assert "controls: canny" in capsys.readouterr().out
