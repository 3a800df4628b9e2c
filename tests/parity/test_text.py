"""Our text tower and tokenizer against transformers', of both generations of its files."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from safelight.checkpoints.components import read_text_tower, read_tokenizer, write_text_tower
from safelight.checkpoints.tables.clip import (
    clip_config_from_transformers,
    clip_config_to_transformers,
)
from safelight.errors import SafelightError
from safelight.models.tokenizer import ClipTokenizer

from .conftest import relative_error, saved, shaken

SIZES = {
    "vocab_size": 1000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "bos_token_id": 998,
    "eos_token_id": 999,
}
TOWERS = {
    "clip-l": (CLIPTextModel, SIZES),
    "openclip-h": (CLIPTextModel, SIZES | {"hidden_act": "gelu"}),
    "openclip-bigg": (
        CLIPTextModelWithProjection,
        SIZES | {"hidden_act": "gelu", "projection_dim": 20},
    ),
    "legacy-eos": (CLIPTextModelWithProjection, SIZES | {"eos_token_id": 2, "projection_dim": 16}),
}
PROMPTS = [
    "",
    "a photo of a cat",
    "A  LOUD\tprompt,\nwith 12345 numbers & (odd:1.2) punctuation!!",
    "naïve café — 日本語 🍎 “quotes” it's they'll",
    "\u0130stanbul e\u0301 \u00a0 non\u2003breaking",
    "word " * 200,
    "a <|endoftext|> inside <|startoftext|> a prompt",
]


def _ids():
    ids = torch.randint(0, 990, (3, 24))
    ids[:, 0] = 998
    for row, end in enumerate((5, 12, 23)):
        ids[row, end:] = 999
    return ids


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("generation", [4, 5])
def test_agrees_with_transformers(name, generation, tmp_path):
    cls, options = TOWERS[name]
    theirs = shaken(cls(CLIPTextConfig(**options)))
    _spell_as(generation, saved(theirs, tmp_path))
    ids = _ids()
    wanted = theirs(ids, output_hidden_states=True)
    pooled = wanted.text_embeds if options.get("projection_dim") else wanted.pooler_output

    last = read_text_tower(tmp_path)(ids)
    assert relative_error(last.tokens, wanted.last_hidden_state) < 1e-5
    assert relative_error(last.pooled, pooled) < 1e-5

    penultimate = read_text_tower(tmp_path, skip=1, final_norm=False)(ids)  # as SDXL takes it
    assert relative_error(penultimate.tokens, wanted.hidden_states[-2]) < 1e-5
    assert relative_error(penultimate.pooled, pooled) < 1e-5


@pytest.mark.parametrize("name", TOWERS)
def test_transformers_reads_what_is_written(name, tmp_path):
    cls, options = TOWERS[name]
    theirs = shaken(cls(CLIPTextConfig(**options)))
    write_text_tower(tmp_path / "ours", read_text_tower(saved(theirs, tmp_path / "theirs")))
    again, report = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = _ids()
    torch.testing.assert_close(again(ids)[0], theirs(ids)[0], rtol=0, atol=0)
    torch.testing.assert_close(again(ids)[1], theirs(ids)[1], rtol=0, atol=0)


def test_every_written_key_has_the_prefix_that_version_4_asks_for(tmp_path):
    theirs = CLIPTextModelWithProjection(CLIPTextConfig(**SIZES, projection_dim=16))
    write_text_tower(tmp_path / "ours", read_text_tower(saved(theirs, tmp_path / "theirs")))
    keys = set(load_file(tmp_path / "ours/model.safetensors"))
    assert {key for key in keys if not key.startswith("text_model.")} == {"text_projection.weight"}


@pytest.mark.parametrize("name", TOWERS)
def test_a_configuration_survives_the_way_there_and_back(name):
    cls, options = TOWERS[name]
    theirs = cls(CLIPTextConfig(**options)).config.to_dict() | {"architectures": [cls.__name__]}
    ours = clip_config_from_transformers(theirs)
    assert clip_config_from_transformers(clip_config_to_transformers(ours)) == ours
    assert (ours.projection_dim is None) == (cls is CLIPTextModel)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "t5"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_attention_heads": 5}, "5 heads"),
    ],
)
def test_another_kind_of_tower_is_named_in_one_line(change, named):
    values = clip_config_to_transformers(clip_config_from_transformers({})) | change
    with pytest.raises(SafelightError, match=named):
        clip_config_from_transformers(values)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("generation", [4, 5])
def test_tokenizer_agrees_with_transformers(generation, pad, tmp_path):
    ClipTokenizer.bundled(pad=pad).save(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(tmp_path, pad_token=pad)
    if generation == 4:
        (tmp_path / "tokenizer.json").unlink()
    else:
        theirs.save_pretrained(tmp_path / "five")
        tmp_path = tmp_path / "five"
        assert not (tmp_path / "merges.txt").exists()
    ours = read_tokenizer(tmp_path)
    wanted = theirs(PROMPTS, padding="max_length", truncation=True, max_length=77).input_ids
    assert ours.encode(PROMPTS).tolist() == wanted


def test_a_tokenizer_learned_from_captions_agrees_with_transformers(tmp_path):
    captions = ["a red cube left of a blue ball", "a 3d emoji of a snake", "flat icon: ghost"] * 5
    ours = ClipTokenizer.train(captions, vocab_size=600, length=24)
    ours.save(tmp_path)
    prompts = [*PROMPTS[:3], *captions[:3], "un mot jamais vu 🎈"]
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    wanted = theirs(prompts, padding="max_length", truncation=True, max_length=24).input_ids
    assert ours.encode(prompts).tolist() == wanted
    assert read_tokenizer(tmp_path).encode(prompts).tolist() == wanted
    assert read_tokenizer(tmp_path).length == 24


def test_special_tokens_written_as_tables_are_read(tmp_path):
    ClipTokenizer.bundled().save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["pad_token"] = {"content": "!", "lstrip": False, "__type": "AddedToken"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_tokenizer(tmp_path).pad == "!"


def _spell_as(generation, folder):
    """Renames the keys as the generation of transformers writes them."""
    file = folder / "model.safetensors"
    plain = {key.removeprefix("text_model."): tensor for key, tensor in load_file(file).items()}
    if generation == 4:
        spelled = {
            key if key.startswith("text_projection") else f"text_model.{key}": tensor
            for key, tensor in plain.items()
        }
        spelled["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    else:
        spelled = plain
    save_file(spelled, file, metadata={"format": "pt"})
