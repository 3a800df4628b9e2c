"""Pictures of AUTOMATIC1111's web UI made again, and its infotext written."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from safelight.app.cli import main
from safelight.pipelines.infotext import parse
from safelight.pipelines.picture_files import read_manifest, read_texts

TOLD = (
    "a red cube\nNegative prompt: mush\nSteps: 2, Sampler: Euler a, CFG scale: 3, Seed: 7, "
    "Size: 32x40, Model hash: 0123456789, Model: tiny, RNG: CPU"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, model_folder) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFELIGHT_MODELS", str(tmp_path / "models"))
    shutil.copytree(model_folder, tmp_path / "models" / "tiny")
    return tmp_path


def save(name: str, text: str) -> None:
    """Writes an infotext as the web UI does."""
    image = Image.new("RGB", (32, 40))
    if name.endswith(".png"):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", text)
        image.save(name, pnginfo=info)
        return
    exif = Image.Exif()
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    image.save(name, exif=exif)


@pytest.mark.parametrize("name", ["theirs.png", "theirs.jpg", "theirs.webp"])
def test_a_picture_of_the_web_ui_is_made_again(capsys, name):
    save(name, TOLD)
    assert main(["show", name]) == 0
    assert capsys.readouterr().out == f"{TOLD}\n"
    assert main(["rerun", name, "-o", "ours.png"]) == 0
    told = capsys.readouterr().err
    assert "not the file of hash 0123456789" in told
    assert "levels on average" in told
    made = read_manifest(Path("ours.png"))
    assert (made.prompt, made.negative, made.sampler) == ("a red cube", "mush", "euler_a")
    assert (made.steps, made.scale, made.seed) == (2, 3.0, 7)
    assert (made.width, made.height) == (32, 40)
    assert (made.schedule, made.rng) == ("normal", "cpu")


@pytest.mark.parametrize("digits", [8, 10])
def test_a_model_is_found_by_its_hash(here, digits):
    assert main(["convert", "models/tiny", "models/other.safetensors"]) == 0
    content = Path("models/other.safetensors").read_bytes()
    hashed = content[0x100000:0x110000] if digits == 8 else content
    digest = hashlib.sha256(hashed).hexdigest()[:digits]
    save("a.png", TOLD.replace("0123456789", digest).replace("Model: tiny", "Model: gone"))
    assert main(["rerun", "a.png"]) == 0
    assert read_manifest(Path("a-rerun.png")).model.endswith("other.safetensors")


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("Model: tiny", "The infotext names gone (0123456789)"),
        ("Steps: 2", "Steps should be a whole number"),
        ("Size: 32x40", "Size should be such as 512x768"),
    ],
)
def test_errors(capsys, parameter, said):
    name = parameter.split(":")[0]
    save("a.png", TOLD.replace(parameter, f"{name}: gone"))
    assert main(["rerun", "a.png"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("ADetailer model: face.pt", "ADetailer model: face.pt is not honoured."),
        ("Denoising strength: 0.5", "begun from another one"),
        ("VAE: kl.pt", "'kl.pt' is not looked for"),
        ("Mask blur: 4", "safelight generate takes --mask-blur 4."),
        ("Refiner: gone [0a1b], Refiner switch at: 0.8", "'gone [0a1b]' is not known here"),
        ('ControlNet 0: "Module: canny, Model: a"', "takes --control canny=FILE --control-net"),
        (
            "Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, Denoising strength: 0.5",
            "The upscaler 'R-ESRGAN 4x+' is not known here; lanczos is taken.",
        ),
    ],
)
def test_what_is_not_honoured_is_said(capsys, parameter, said):
    save("a.png", f"{TOLD}, {parameter}, Version: v1.10.1")
    assert main(["rerun", "a.png"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if said in line and line.startswith("safelight: ")]
    assert not [line for line in lines if "Version" in line]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_is_written(suffix):
    name = f"x{suffix}"
    options = ["--model", "models/tiny", "--hires", "1.5", "--hires-strength", "0.6"]
    prompt = "一 red cube,\nNegative prompt: a (ball)"
    assert main(["generate", prompt, "--steps", "3", *options, "-o", name, "--infotext"]) == 0
    infotext = parse(read_texts(Path(name)).infotext or "")
    assert infotext.prompt == prompt
    expected = {"Steps": "3", "Sampler": "Euler", "CFG scale": "2", "Seed": "0", "Size": "32x32"}
    hires = {"Denoising strength": "0.6", "Hires upscale": "1.5", "Hires upscaler": "Latent"}
    assert (
        expected | hires | {"Model": "tiny", "RNG": "CPU"}
    ).items() <= infotext.parameters.items()
    assert main(["rerun", name, "-o", f"y{suffix}"]) == 0
    assert Path(f"y{suffix}").read_bytes() == Path(name).read_bytes()


def test_a_refiner_is_written_and_taken(capsys):
    options = ["--model", "models/tiny", "--refiner", "models/tiny", "--refine-at", "0.5"]
    made = ["a red cube", "--steps", "4", *options, "--infotext"]
    assert main(["generate", *made, "-o", "a.png"]) == 0
    told = parse(read_texts(Path("a.png")).infotext or "")
    assert told.parameters["Refiner"] == "tiny"
    assert told.parameters["Refiner switch at"] == "0.5"
    save("theirs.png", str(told))  # without the manifest
    capsys.readouterr()
    assert main(["rerun", "theirs.png", "-o", "again.png"]) == 0
    assert "efiner" not in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open("again.png")), np.asarray(Image.open("a.png")))
    save("old.png", str(replace(told, parameters=told.parameters | {"Version": "v1.7.0"})))
    assert main(["rerun", "old.png"]) == 0
    assert "at a part of the steps there" in capsys.readouterr().err
    save("broken.png", str(told).replace("switch at: 0.5", "switch at: x"))
    assert main(["rerun", "broken.png"]) == 2
    assert "Refiner switch at should be a number, got 'x'." in capsys.readouterr().err


def test_a_mask_is_written():
    Image.new("RGB", (32, 32), "red").save("image.png")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    mask.save("mask.png")
    given = ["--image", "image.png", "--mask", "mask.png", "--mask-blur", "3", "--strength", "0.5"]
    made = ["generate", "a red cube", "--steps", "4", "--model", "models/tiny", *given]
    assert main([*made, "-o", "a.png", "--infotext"]) == 0
    told = parse(read_texts(Path("a.png")).infotext or "")
    assert told.parameters["Mask blur"] == "3"
    save("theirs.png", str(told))
    assert main(["rerun", "theirs.png"]) == 0
