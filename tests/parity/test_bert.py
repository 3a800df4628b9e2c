"""CompVis' first text-to-image model against diffusers' `LDMTextToImagePipeline`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from safetensors.torch import save_file
from transformers import BertTokenizer, BertTokenizerFast

import safelight
from safelight.checkpoints.components import read_bert, read_wordpiece, write_text_tower
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.single_file import read_single_file, write_single_file
from safelight.checkpoints.swap import with_autoencoder
from safelight.checkpoints.tables import autoencoder, compvis, unet
from safelight.checkpoints.tables.bert import (
    bert_config_from_transformers,
    bert_config_to_transformers,
)
from safelight.errors import SafelightError
from safelight.models.bert import BertText, BertTextConfig
from safelight.models.wordpiece import WordPieceTokenizer

from .conftest import relative_error, saved, shaken

PROMPT = "A red cube, left of the unknowable ball! [MASK] Café 東京"
WORDS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cub", "##e", ","]
WORDS += ["left", "of", "the", "un", "##know", "##able", "ball", "!", "cafe", "東", "京", "##s"]
LENGTH = 24
SHAPE = {
    "vocab_size": len(WORDS),
    "max_position_embeddings": LENGTH,
    "encoder_layers": 3,
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 8,
    "head_dim": 6,  # so that the heads together are not as wide as the tokens
    "d_model": 32,
}
STEPS, SIZE, SEED = 20, 16, 7


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def theirs(words):
    torch.manual_seed(3)
    network = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=32,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=SIZE,
        scaling_factor=0.18215,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = LDMTextToImagePipeline(
        vqvae=shaken(vae),
        bert=shaken(LDMBertModel(LDMBertConfig(**SHAPE))),
        tokenizer=BertTokenizer(str(words / "vocab.txt")),
        unet=shaken(network),
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    # the pipeline pads to 77 tokens whatever the tower's length; the shape under test has 24
    tokenizer = pipeline.tokenizer
    pipeline.tokenizer = _Short(tokenizer)
    return pipeline


class _Short:
    """A tokenizer that pads to the small tower's length where the pipeline asks for 77 tokens."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, texts, **options):
        return self.tokenizer(texts, **(options | {"max_length": LENGTH}))

    def save_pretrained(self, folder, **options):
        self.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def model(theirs, words, tmp_path_factory):
    """The pipeline as a folder."""
    folder = tmp_path_factory.mktemp("model")
    short, theirs.tokenizer = theirs.tokenizer, theirs.tokenizer.tokenizer
    theirs.save_pretrained(folder)
    theirs.tokenizer = short
    return folder


def _picture(pipeline):
    return pipeline(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        height=4 * SIZE,  # it counts eight pixels to a latent, whatever its autoencoder
        width=4 * SIZE,
        latents=torch.randn(
            (1, 4, SIZE // 2, SIZE // 2), generator=torch.Generator().manual_seed(SEED)
        ),
        output_type="np",
    ).images[0]


def _agree(path, pipeline):
    wanted = _picture(pipeline)
    assert wanted.std() > 0.05
    made = safelight.load(path, device="cpu").generate(
        PROMPT,
        steps=STEPS,
        scale=4.0,
        seed=SEED,
        width=SIZE,
        height=SIZE,
        sampler="ddim",
        prompt_syntax="plain",  # in which [MASK] is a token
    )[0]
    assert np.abs(np.asarray(made.image, dtype=np.float32) - wanted * 255).max() <= 1


@pytest.mark.parametrize("prefix", [True, False])
def test_the_tower_agrees_and_is_read_back(prefix, tmp_path):
    theirs = shaken(LDMBertModel(LDMBertConfig(**SHAPE)))
    saved(theirs, tmp_path / "theirs")
    ours = read_bert(tmp_path / "theirs")
    ids = torch.randint(0, len(WORDS), (2, LENGTH if prefix else 9))
    wanted = theirs(ids)[0]
    assert relative_error(ours(ids).tokens, wanted) < 2e-5
    write_text_tower(tmp_path / "ours", ours)
    again = LDMBertModel.from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(again(ids)[0], wanted, rtol=0, atol=0)


def test_the_published_configuration_is_built():
    config = bert_config_from_transformers({"model_type": "ldmbert", "dropout": 0.1})
    assert config == BertTextConfig()
    assert bert_config_from_transformers(bert_config_to_transformers(config)) == config
    with torch.device("meta"):
        ours, theirs = BertText(config), LDMBertModel(LDMBertConfig())
    shapes = {f"model.{key}": t.shape for key, t in ours.state_dict().items()}
    wanted = {k: t.shape for k, t in theirs.state_dict().items() if not k.startswith("to_logits")}
    assert shapes == wanted


TEXTS = [PROMPT, "", "red " * 40, "ab\tcd\u0000 cubes", "x" * 101, "unknowable-cafe's", "CAFÉ"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_tokens_are_those_of_transformers(words, lowercase, tmp_path):
    theirs = BertTokenizerFast(str(words / "vocab.txt"), do_lower_case=lowercase)
    theirs.save_pretrained(tmp_path / "theirs")
    wanted = theirs(
        TEXTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    config = BertTextConfig(vocab_size=len(WORDS), max_position_embeddings=LENGTH)
    ours = read_wordpiece(tmp_path / "theirs", config)
    assert torch.equal(ours.encode(TEXTS), wanted)
    (tmp_path / "ours").mkdir()
    ours.save(tmp_path / "ours")
    assert torch.equal(read_wordpiece(tmp_path / "ours", config).encode(TEXTS), wanted)
    (tmp_path / "ours" / "tokenizer.json").unlink()
    assert torch.equal(read_wordpiece(tmp_path / "ours", config).encode(TEXTS), wanted)
    again = BertTokenizerFast.from_pretrained(tmp_path / "ours")
    assert again(TEXTS[0]).input_ids == theirs(TEXTS[0]).input_ids


def test_a_picture_agrees_with_diffusers(theirs, model, tmp_path):
    folder = read_folder(model)
    assert folder.pipeline_class == "LDMTextToImagePipeline"
    assert set(folder.files) == {"unet", "vqvae", "bert"}
    assert folder.defaults.scale == 5.0
    _agree(model, theirs)
    write_folder(tmp_path / "again", folder)
    index = json.loads((model / "model_index.json").read_text())
    written = json.loads((tmp_path / "again" / "model_index.json").read_text())
    parts = {key for key, entry in index.items() if isinstance(entry, list)}
    assert {key: written[key] for key in parts} == {key: index[key] for key in parts}
    _agree(tmp_path / "again", theirs)
    again = LDMTextToImagePipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    again.tokenizer = _Short(again.tokenizer)
    assert np.abs(_picture(again) - _picture(theirs)).max() <= 1 / 255


def _compvis(theirs, folder):
    """The model as CompVis' one file, which brings no vocabulary."""
    state = {
        f"model.diffusion_model.{key}": tensor
        for key, tensor in from_ours(
            compvis.unet_table(folder.unet.config),
            from_ours(unet.UNET, folder.unet.state_dict()),
        ).items()
    }
    coders = from_ours(autoencoder.AUTOENCODER, folder.autoencoder.state_dict())
    for key, tensor in from_ours(compvis.autoencoder_table(2), coders).items():
        state[f"first_stage_model.{key}"] = tensor
    renames = {
        "embed_tokens": "token_emb",
        "embed_positions": "pos_emb.emb",
        "layer_norm": "norm",
        "self_attn_layer_norm": "0",
        "final_layer_norm": "0",
        "self_attn.q_proj": "1.to_q",
        "self_attn.k_proj": "1.to_k",
        "self_attn.v_proj": "1.to_v",
        "self_attn.out_proj": "1.to_out",
        "fc1": "1.net.0.0",
        "fc2": "1.net.2",
    }
    for key, tensor in theirs.bert.state_dict().items():
        name, _, kind = key.removeprefix("model.").rpartition(".")
        if name.startswith("layers."):
            _, number, layer = name.split(".", 2)
            place = 2 * int(number) + (layer in ("fc1", "fc2", "final_layer_norm"))
            name = f"attn_layers.layers.{place}.{renames[layer]}"
        else:
            name = renames.get(name, name)
        state[f"cond_stage_model.transformer.{name}.{kind}"] = tensor
    state["alphas_cumprod"] = torch.zeros(3)
    state["model_ema.decay"] = torch.zeros(())
    return {key: tensor.contiguous() for key, tensor in state.items()}


def test_the_one_file_of_compvis_is_read(theirs, model, words, tmp_path):
    folder = read_folder(model)
    state = _compvis(theirs, folder)
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": state, "global_step": 3}, file)
    with pytest.raises(SafelightError, match=r"no vocabulary; put BERT's .*vocab\.txt"):
        read_single_file(file)
    (tmp_path / "vocab.txt").write_bytes((words / "vocab.txt").read_bytes())
    told = read_single_file(file)
    assert told.pipeline_class == folder.pipeline_class
    pairs = [(told.unet, folder.unet), (told.autoencoder, folder.autoencoder)]
    pairs.append((told.text_towers[0], folder.text_towers[0]))
    for mine, original in pairs:
        states = mine.state_dict(), original.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert told.text_towers[0].config == folder.text_towers[0].config
    assert set(told.files) == {"model", "tokenizer"}  # of both of which pictures depend
    _agree(file, theirs)
    assert "first text-to-image model" in inspect(file).kind
    with pytest.raises(SafelightError, match="written as a folder"):
        write_single_file(tmp_path / "never.safetensors", told)


def test_its_autoencoder_is_swapped_under_its_own_name(theirs, model, tmp_path):
    other = replace(read_folder(model), files={})
    saved(theirs.vqvae, tmp_path / "vae")
    swapped = with_autoencoder(other, tmp_path / "vae")
    assert set(swapped.files) == {"vqvae"}
    assert set(with_autoencoder(other, model).files) == {"vqvae"}
    hashes = safelight.load(model, device="cpu", vae=tmp_path / "vae").configuration
    assert hashes.keys() == safelight.load(model, device="cpu").configuration.keys()


def _refused(match, call):
    with pytest.raises(SafelightError, match=match) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_mistakes_are_one_line(theirs, model, words, tmp_path):
    for change in ({"activation_function": "relu"}, {"scale_embedding": True}, {"d_model": 0}):
        [key] = change
        _refused(
            "d_model|hidden_size" if key == "d_model" else key,
            lambda values=change: bert_config_from_transformers(values),
        )
    bad = tmp_path / "vocab.txt"
    for text, match in (
        ("[PAD]\n[UNK]\na\n", r"lacks \[CLS\], \[SEP\]"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "count from 0, each once"),
    ):
        bad.write_text(text)
        _refused(match, lambda: WordPieceTokenizer.from_vocabulary(bad))
    bad.write_bytes(b"\xff\xfe")
    _refused("UTF-8", lambda: WordPieceTokenizer.from_vocabulary(bad))
    bad.write_text("{}")
    _refused("word-piece tokenizer", lambda: WordPieceTokenizer.from_tokenizer_json(bad))
    small = BertTextConfig(vocab_size=len(WORDS) - 1)
    _refused("token ids up to", lambda: read_wordpiece(words, small))
    state = _compvis(theirs, read_folder(model))
    del state["cond_stage_model.transformer.norm.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    _refused("missing", lambda: read_single_file(tmp_path / "cut.safetensors"))
