"""`--vae` and `--preview`: another autoencoder in a picture, its manifest, and on the way."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.app.cli import main
from safelight.checkpoints.components import read_autoencoder, write_autoencoder
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.pipelines import picture_files

TINY = TinyConfig(
    encoder_width=8, decoder_width=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
)


@pytest.fixture
def vae(model_folder, tmp_path):
    """An autoencoder of the model's shape with other weights."""
    folder = tmp_path / "other-vae"
    autoencoder = read_autoencoder(model_folder)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1)
    write_autoencoder(folder, autoencoder)
    return folder


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    write_autoencoder(tmp_path / "tiny", TinyAutoencoder(TINY))
    return tmp_path / "tiny"


def _make(model_folder, into, *options):
    fixed = ["--model", str(model_folder), "--device", "cpu", "--steps", "3", "-o", str(into)]
    assert main(["generate", "a red cube", *fixed, *map(str, options)]) == 0
    return np.asarray(Image.open(into))


def test_it_changes_the_picture_which_comes_again(model_folder, vae, tmp_path, capsys):
    plain = _make(model_folder, tmp_path / "plain.png")
    other = _make(model_folder, tmp_path / "other.png", "--vae", vae)
    assert (other != plain).any()
    capsys.readouterr()
    assert main(["show", str(tmp_path / "plain.png")]) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["show", str(tmp_path / "other.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (before["vae"], told["vae"]) == ("", str(vae))
    changed = {name for name in told["weights"] if told["weights"][name] != before["weights"][name]}
    assert changed == {"vae"}
    assert set(told["configuration"]) == set(before["configuration"])
    assert main(["rerun", str(tmp_path / "other.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "other-rerun.png")) == other).all()


def test_it_may_have_moved(model_folder, vae, tmp_path, capsys):
    _make(model_folder, tmp_path / "other.png", "--vae", vae)
    moved = vae.rename(tmp_path / "moved")
    assert main(["rerun", str(tmp_path / "other.png"), "--vae", str(moved)]) == 0
    assert "the same pixels" in capsys.readouterr().err


def test_other_weights_in_its_place_are_told(model_folder, vae, tmp_path, capsys):
    _make(model_folder, tmp_path / "other.png", "--vae", vae)
    shutil.rmtree(vae)
    write_autoencoder(vae, read_autoencoder(model_folder))
    assert main(["rerun", str(tmp_path / "other.png")]) == 2
    assert "vae (" in capsys.readouterr().err
    shutil.rmtree(vae)
    assert main(["rerun", str(tmp_path / "other.png")]) == 2
    assert "There is no autoencoder at" in capsys.readouterr().err


def test_a_file_s_configuration_is_not_its_neighbours(model_folder, vae, tmp_path):
    file = vae / "diffusion_pytorch_model.safetensors"
    (vae / "notes.txt").write_text("not of the model")
    pipeline = safelight.load(model_folder, device="cpu", vae=vae)
    own = safelight.load(model_folder, device="cpu").configuration
    assert set(pipeline.configuration) == set(own)
    assert pipeline.folder.files["vae"] == (file,)


@pytest.mark.parametrize("with_tiny", [True, False])
def test_a_preview_is_written_at_each_step(
    model_folder, tiny, tmp_path, monkeypatch, capsys, with_tiny
):
    written: list[Path] = []
    write = picture_files.write_preview

    def counted(path, image):
        write(path, image)
        with Image.open(path) as there:
            assert there.size == (32, 32)
        written.append(path)

    monkeypatch.setattr("safelight.app.making.write_preview", counted)
    plain = _make(model_folder, tmp_path / "plain.png")
    decoder = ("--preview-vae", tiny) if with_tiny else ()
    shown = tmp_path / "now.webp"
    options = ("--preview", shown, *decoder, "--count", "1")
    made = _make(model_folder, tmp_path / "made.png", *options)
    assert (made == plain).all()  # a preview leaves the picture as it is
    assert written == [shown] * 3
    assert capsys.readouterr().out.split() == [str(tmp_path / n) for n in ("plain.png", "made.png")]
    last = np.asarray(Image.open(shown).convert("RGB")).astype(int)
    near = np.abs(last - made).mean() < 8  # lossy, of what the model's own decodes at the end
    assert near is not with_tiny


def _error(capsys, *options):
    assert main(["generate", "a red cube", *map(str, options)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_mistakes_are_one_line(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    to = ("--model", model_folder, "--device", "cpu", "-o", "x.png")
    assert "There is no autoencoder at nowhere" in _error(capsys, *to, "--vae", "nowhere")
    assert "is the picture itself" in _error(capsys, *to, "--preview", tmp_path / "x.png")
    assert "Cannot tell the format" in _error(capsys, *to, "--preview", "now.txt")
    assert "does not exist" in _error(capsys, *to, "--preview", "missing/now.png")
    assert "--preview FILE" in _error(capsys, *to, "--preview-vae", "tiny")
    wide = TinyAutoencoder(TinyConfig(latent_channels=5, encoder_width=8, decoder_width=8))
    write_autoencoder(tmp_path / "wide", wide)
    preview = (*to, "--preview", "now.png", "--preview-vae", "wide")
    assert "latents of 5 channels, the model's U-Net makes 4" in _error(capsys, *preview)
    assert not (tmp_path / "x.png").exists()
