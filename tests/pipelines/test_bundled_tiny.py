"""The bundled tiny autoencoder: near the own one's pictures, made again by its name."""

import shutil

import numpy as np
import torch
from diffusers import AutoencoderTiny

from safelight.app.cli import main
from safelight.models.tiny import TinyAutoencoder
from safelight.pipelines import find
from safelight.pipelines.load import load
from safelight.pipelines.picture_files import read_manifest

PROMPT = "a 3d emoji of a red apple"


def test_its_pictures_are_near_those_of_the_own_one():
    own, tiny = load(device="cpu"), load(device="cpu", vae="default-tiny")
    assert isinstance(tiny.folder.autoencoder, TinyAutoencoder)
    levels = [
        np.asarray(pipeline.generate(PROMPT, steps=8, seed=3)[0].image, float)
        for pipeline in (own, tiny)
    ]
    error = np.square(levels[0] - levels[1]).mean()
    assert 20 < 10 * np.log10(255**2 / error) < 60


def test_a_file_names_it_and_is_made_again_wherever_the_package_lies(tmp_path, monkeypatch, capsys):
    options = ["--vae", "default-tiny", "--steps", "2", "--device", "cpu"]
    assert main(["generate", PROMPT, "-o", str(tmp_path / "a.png"), *options]) == 0
    assert read_manifest(tmp_path / "a.png").vae == "default-tiny"
    shutil.copytree(find.bundled().parent / "default", tmp_path / "moved" / "default")
    shutil.copytree(find.bundled().parent / "default-tiny", tmp_path / "moved" / "default-tiny")
    monkeypatch.setattr(find, "bundled", lambda: tmp_path / "moved" / "default")
    assert main(["rerun", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]) == 0
    assert "same" in capsys.readouterr().err.lower()


def test_diffusers_opens_it_and_decodes_the_same():
    folder = find.bundled_autoencoders()["default-tiny"]
    theirs = AutoencoderTiny.from_pretrained(folder)
    z = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load(device="cpu", vae="default-tiny").folder.autoencoder.decode(z)
        torch.testing.assert_close(ours, theirs.decode(z).sample, rtol=1e-4, atol=1e-4)
