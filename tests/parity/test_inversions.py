"""Textual inversion in each layout, against diffusers' own reading of it."""

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import safelight
from safelight.app.cli import main
from safelight.checkpoints.files import write_state
from safelight.errors import SafelightError

from .conftest import relative_error
from .small import BETAS, WIDTH, small_tower, small_unet, small_vae, small_words, small_xl_unet

PROMPT = "a red <snail> left of a blue ball"
WIDTHS = (WIDTH, 48)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """diffusers' pipelines of a small Stable Diffusion 1 and an XL, by name; each has tokenizers of
    its own, which learn words.
    """
    torch.manual_seed(9)
    words = tmp_path_factory.mktemp("tokenizer")
    size = len(small_words(words, ["a red snail left of a blue ball"], vocab_size=560))

    def build(name):
        parts = {
            "vae": small_vae(),
            "scheduler": EulerDiscreteScheduler(**BETAS),
            "tokenizer": CLIPTokenizer.from_pretrained(words),
            "text_encoder": small_tower(CLIPTextModel, size, WIDTHS[0]),
        }
        if name == "sd1":
            return StableDiffusionPipeline(
                **parts,
                unet=small_unet(),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        return StableDiffusionXLPipeline(
            **parts,
            unet=small_xl_unet(context=sum(WIDTHS)),
            tokenizer_2=CLIPTokenizer.from_pretrained(words),
            text_encoder_2=small_tower(CLIPTextModelWithProjection, size, WIDTHS[1]),
        )

    return build


def _vectors(width, count):
    torch.manual_seed(count)
    return torch.randn(count, width)


def _a1111(vectors, path):
    torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "<snail>"}, path
    )


def _diffusers(vectors, path):
    torch.save({"<snail>": vectors}, path)


def _safe(vectors, path):
    write_state(path, {"<snail>": vectors})


def _context(ours, prompt):
    with torch.no_grad():
        return ours._text([prompt])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("write", [_a1111, _diffusers, _safe])
def test_a_word_has_diffusers_embedding(models, write, count, tmp_path):
    theirs = models("sd1")
    theirs.save_pretrained(tmp_path / "model")
    path = tmp_path / ("snail.safetensors" if write is _safe else "snail.bin")
    write(_vectors(WIDTHS[0], count), path)
    theirs.load_textual_inversion(str(path))
    with torch.no_grad():
        wanted, _ = theirs.encode_prompt(PROMPT, "cpu", 1, False)
    ours = safelight.load(tmp_path / "model", device="cpu", embeddings={path: None})
    assert ours.embeddings[0].token == "<snail>"
    assert relative_error(_context(ours, PROMPT).context, wanted) < 1e-4
    plain = safelight.load(tmp_path / "model", device="cpu")
    assert relative_error(_context(plain, PROMPT).context, wanted) > 0.01


def test_a_word_of_xl_has_diffusers_embedding_in_both_towers(models, tmp_path):
    theirs = models("xl")
    theirs.save_pretrained(tmp_path / "model")
    state = {"clip_l": _vectors(WIDTHS[0], 2), "clip_g": _vectors(WIDTHS[1], 2)}
    write_state(tmp_path / "snail.safetensors", state)
    for name, number in (("clip_l", ""), ("clip_g", "_2")):
        theirs.load_textual_inversion(
            state[name],
            token="<snail>",
            text_encoder=getattr(theirs, f"text_encoder{number}"),
            tokenizer=getattr(theirs, f"tokenizer{number}"),
        )
    with torch.no_grad():
        context, _, pooled, _ = theirs.encode_prompt(PROMPT, device="cpu")
    ours = safelight.load(tmp_path / "model", device="cpu")
    assert ours.embed(tmp_path / "snail.safetensors", "<snail>") == "<snail>"
    made = _context(ours, PROMPT)
    assert relative_error(made.context, context) < 1e-4
    assert relative_error(made.vector, pooled) < 1e-4


def test_a_long_prompt_with_a_word_is_cut_as_in_diffusers(models, tmp_path):
    theirs = models("sd1")
    theirs.save_pretrained(tmp_path / "model")
    path = tmp_path / "snail.bin"
    _diffusers(_vectors(WIDTHS[0], 4), path)
    theirs.load_textual_inversion(str(path))
    prompt = "a red ball left of a blue ball " * 2 + PROMPT
    with torch.no_grad():
        wanted, _ = theirs.encode_prompt(prompt, "cpu", 1, False)
    ours = safelight.load(tmp_path / "model", device="cpu", embeddings={path: None})
    assert relative_error(_context(ours, prompt).context, wanted) < 1e-4


def test_a_word_on_the_command_line_makes_a_picture_that_comes_again(models, tmp_path, capsys):
    models("sd1").save_pretrained(tmp_path / "model")
    _a1111(_vectors(WIDTHS[0], 2), tmp_path / "s.pt")
    fixed = ["--model", str(tmp_path / "model"), "--device", "cpu", "--steps", "2"]
    made = tmp_path / "made.png"
    option = ["--embedding", f"{tmp_path / 's.pt'}:Snail"]
    assert main(["generate", "a red snail", *fixed, "-o", str(made), *option]) == 0
    assert main(["generate", "a red snail", *fixed, "-o", str(tmp_path / "plain.png")]) == 0
    assert (np.asarray(Image.open(made)) != np.asarray(Image.open(tmp_path / "plain.png"))).any()
    assert main(["rerun", str(made)]) == 0
    _a1111(_vectors(WIDTHS[0], 1), tmp_path / "s.pt")
    assert main(["rerun", str(made)]) == 2
    assert "is not the embedding that made the picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"<snail>": torch.ones(1, 40)}, "width 40; the text towers of this model have 32"),
        ({"a": torch.ones(1, 32), "b": torch.ones(1, 32)}, "2 tensors that are no textual"),
        ({"string_to_param": {"*": "text"}}, "no tensor of numbers"),
        ({"string_to_param": {}}, "embeddings of 0 words"),
        ({"string_to_param": 3}, "no table of embeddings but int"),
        ({"<snail>": torch.full((1, 32), float("nan"))}, "infinite numbers"),
        ({"<snail>": torch.ones(1, 1, 32)}, "shape 1x1x32"),
        ({"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 48)}, "width 32 and 48"),
        ([1, 2], "no table of embeddings but list"),
    ],
)
def test_a_file_that_is_none_is_told_in_a_line(models, content, message, tmp_path):
    models("sd1").save_pretrained(tmp_path / "model")
    torch.save(content, tmp_path / "x.pt")
    ours = safelight.load(tmp_path / "model", device="cpu")
    with pytest.raises(SafelightError, match=message):
        ours.embed(tmp_path / "x.pt")
    assert ours.embeddings == ()


def test_a_word_is_taught_once_and_found_whole(models, tmp_path):
    models("sd1").save_pretrained(tmp_path / "model")
    _diffusers(_vectors(WIDTHS[0], 1), tmp_path / "x.bin")
    ours = safelight.load(tmp_path / "model", device="cpu")
    plain = _context(ours, "two balls").context
    ours.embed(tmp_path / "x.bin", "ball")
    assert torch.equal(_context(ours, "two balls").context, plain)
    assert not torch.equal(_context(ours, "two Ball").context, _context(ours, "two").context)
    with pytest.raises(SafelightError, match="'Ball' is known already"):
        ours.embed(tmp_path / "x.bin", "Ball")
