"""`safelight convert` and `inspect` on whole models, there and back."""

import numpy as np
import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.checkpoints.files import read_state


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
