"""`--lora`: a picture with an adapter, its manifest, and the same picture again."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.app.adapters import chosen_adapters
from safelight.app.cli import main
from safelight.checkpoints.files import read_state, write_state
from safelight.errors import SafelightError

NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture
def lora(tmp_path):
    torch.manual_seed(2)
    state = {
        f"{NAME}.lora_down.weight": torch.randn(2, 32),
        f"{NAME}.lora_up.weight": torch.randn(32, 2),
        f"{NAME}.alpha": torch.tensor(2.0),
        f"{TEXT}.lora_down.weight": torch.randn(2, 32),
        f"{TEXT}.lora_up.weight": torch.randn(64, 2),
    }
    write_state(tmp_path / "style.safetensors", state)
    return tmp_path / "style.safetensors"


def _make(model_folder, into, *options):
    fixed = ["--model", str(model_folder), "--device", "cpu", "--steps", "2", "-o", str(into)]
    assert main(["generate", "a red cube", *fixed, *options]) == 0
    return np.asarray(Image.open(into))


def test_a_lora_changes_the_picture_which_comes_again(model_folder, lora, tmp_path, capsys):
    plain = _make(model_folder, tmp_path / "plain.png")
    styled = _make(model_folder, tmp_path / "styled.png", "--lora", f"{lora}:0.8")
    assert (styled != plain).any()
    none = _make(model_folder, tmp_path / "none.png", "--lora", f"{lora}:0")
    assert (none == plain).all()
    capsys.readouterr()
    assert main(["show", str(tmp_path / "styled.png")]) == 0
    [told] = json.loads(capsys.readouterr().out)["adapters"]
    assert (told["file"], told["strength"]) == (str(lora), 0.8)
    assert main(["rerun", str(tmp_path / "styled.png")]) == 0
    again = np.asarray(Image.open(tmp_path / "styled-rerun.png"))
    assert (again == styled).all()


def test_another_file_in_its_place_is_told(model_folder, lora, tmp_path, capsys):
    _make(model_folder, tmp_path / "styled.png", "--lora", str(lora))
    state = {
        f"{NAME}.lora_down.weight": torch.ones(1, 32),
        f"{NAME}.lora_up.weight": torch.ones(32, 1),
    }
    write_state(lora, state)
    capsys.readouterr()
    assert main(["rerun", str(tmp_path / "styled.png")]) == 2
    assert "is not the adapter that made the picture" in capsys.readouterr().err
    assert main(["rerun", str(tmp_path / "styled.png"), "--other-weights"]) == 1
    lora.unlink()
    assert main(["rerun", str(tmp_path / "styled.png")]) == 2


def test_adapters_in_python_are_put_in_and_taken_out(model_folder, lora):
    pipeline = safelight.load(model_folder, device="cpu", adapters={lora: 0.5})
    before = safelight.load(model_folder, device="cpu")
    options = {"steps": 2, "seed": 3}
    [styled] = pipeline.generate("a red cube", **options)
    with pytest.raises(SafelightError, match="already"):
        pipeline.adapt(lora)
    with pytest.raises(SafelightError, match="finite"):
        pipeline.adapt(lora, float("nan"))
    pipeline.eject()
    [plain] = pipeline.generate("a red cube", **options)
    [wanted] = before.generate("a red cube", **options)
    assert plain.manifest.pixels == wanted.manifest.pixels != styled.manifest.pixels
    assert plain.manifest.adapters == ()


def test_files_and_strengths_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "with:colon"):
        (tmp_path / name).write_bytes(b"")
    chosen = chosen_adapters(["a.safetensors:-0.5", "with:colon"])
    assert [(str(path), strength) for path, strength in chosen.items()] == [
        ("a.safetensors", -0.5),
        ("with:colon", 1.0),
    ]
    for texts, told in ((["b"], "no adapter"), (["a.safetensors", "a.safetensors:2"], "twice")):
        with pytest.raises(SafelightError, match=told):
            chosen_adapters(texts)


@pytest.mark.parametrize(
    ("target", "magnitudes"),
    [("merged", {}), ("merged.safetensors", {f"{NAME}.dora_scale": 2, f"{TEXT}.dora_scale": 0.5})],
)
def test_a_merged_lora_gives_the_picture_of_one_put_in(
    model_folder, lora, target, magnitudes, tmp_path, capsys
):
    rows = {f"{NAME}.dora_scale": 32, f"{TEXT}.dora_scale": 64}
    made = {key: torch.full((rows[key], 1), float(size)) for key, size in magnitudes.items()}
    write_state(lora, read_state(lora) | made)
    assert main(["inspect", str(lora)]) == 0
    kind = "DoRA" if magnitudes else "LoRA"
    assert f"a {kind} of rank 2 in kohya's layout" in capsys.readouterr().out
    plain = _make(model_folder, tmp_path / "plain.png")
    styled = _make(model_folder, tmp_path / "styled.png", "--lora", f"{lora}:0.8")
    into = tmp_path / target
    assert main(["convert", str(model_folder), str(into), "--lora", f"{lora}:0.8"]) == 0
    merged = _make(into, tmp_path / "merged.png")
    assert np.abs(merged.astype(int) - styled.astype(int)).max() <= 1
    assert np.abs(merged.astype(int) - plain.astype(int)).max() > 1


def test_a_broken_lora_merges_into_nothing(model_folder, lora, tmp_path, capsys):
    lora.write_bytes(b"no adapter")
    into = tmp_path / "merged"
    assert main(["convert", str(model_folder), str(into), "--lora", str(lora)]) == 2
    assert str(lora) in capsys.readouterr().err
    assert not into.exists()


def test_a_prompt_names_an_adapter_for_its_picture(model_folder, lora, tmp_path, monkeypatch):
    (tmp_path / "loras" / "mine").mkdir(parents=True)
    lora = lora.rename(tmp_path / "loras" / "mine" / "style.safetensors")
    monkeypatch.setenv("SAFELIGHT_LORAS", str(tmp_path / "loras"))
    pipeline = safelight.load(model_folder, device="cpu")
    before = {name: tensor.clone() for name, tensor in pipeline.folder.unet.state_dict().items()}
    [plain] = pipeline.generate("a red cube", steps=2)
    [named] = pipeline.generate("a red <lora:style:0.8>cube", steps=2)
    after = pipeline.folder.unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert pipeline.adapters == ()
    [put_in] = safelight.load(model_folder, device="cpu", adapters={lora: 0.8}).generate(
        "a red cube", steps=2
    )
    assert np.array_equal(named.image, put_in.image)
    assert not np.array_equal(named.image, plain.image)
    assert named.manifest.adapters == put_in.manifest.adapters
    named.save(tmp_path / "named.png")
    monkeypatch.delenv("SAFELIGHT_LORAS")
    assert main(["rerun", str(tmp_path / "named.png")]) == 0


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("<lora:stile:1>", "'stile' that is not there. Did you mean 'style'?"),
        ("<lora:style:much>", "the strength 'much'; expected one number"),
        ("<lora:style:1:0.5>", "the strength '1:0.5'; expected one number"),
        ("<lora:style", None),
    ],
)
def test_a_wrong_tag_is_told_and_a_broken_one_is_text(
    model_folder, lora, tag, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SAFELIGHT_LORAS", str(lora.parent))
    fixed = ["--model", str(model_folder), "--device", "cpu", "-o", str(tmp_path / "a.png")]
    status = main(["generate", f"a cube {tag}", *fixed, "--steps", "1"])
    assert status == (0 if message is None else 2)
    assert (message or "") in capsys.readouterr().err
