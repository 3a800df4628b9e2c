"""Whole folders as diffusers writes them, sharded, in half precision, with one tower or two."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

import safelight
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.errors import SafelightError
from safelight.models.tokenizer import ClipTokenizer
from safelight.pipelines.request import Request

from .conftest import relative_error, shaken

WIDTHS, POOLED, NUMBERS = (24, 32), 20, 8
PROMPTS = ["a red cube!", ""]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    ClipTokenizer.train(["a red cube", "a blue ball"], vocab_size=540, length=16).save(folder)
    return folder


def _tower(cls, width, size, **options):
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        **options,
    )
    return shaken(cls(config))


def _xl(words, *, refiner):
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    second = CLIPTokenizer.from_pretrained(words, pad_token="!")
    size = len(tokenizer)
    towers = (
        None if refiner else _tower(CLIPTextModel, WIDTHS[0], size),
        _tower(
            CLIPTextModelWithProjection,
            WIDTHS[1],
            size,
            hidden_act="gelu",
            projection_dim=POOLED,
        ),
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=WIDTHS[1] if refiner else sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=NUMBERS,
        projection_class_embeddings_input_dim=POOLED + (5 if refiner else 6) * NUMBERS,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.13025,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    cls = StableDiffusionXLImg2ImgPipeline if refiner else StableDiffusionXLPipeline
    extra = {"requires_aesthetics_score": True} if refiner else {}
    return cls(
        vae=shaken(vae),
        text_encoder=towers[0],
        text_encoder_2=towers[1],
        tokenizer=None if refiner else tokenizer,
        tokenizer_2=second,
        unet=shaken(unet),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=not refiner,
        **extra,
    )


@pytest.mark.parametrize("refiner", [False, True])
def test_xl_is_read_and_written_back(words, refiner, tmp_path):
    theirs = _xl(words, refiner=refiner)
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert len(folder.text_towers) == (1 if refiner else 2)
    assert folder.settings["force_zeros_for_empty_prompt"] is not refiner
    if not refiner:
        wanted, _, pooled, _ = theirs.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
        features = [
            tower(tokenizer.encode(PROMPTS))
            for tower, tokenizer in zip(folder.text_towers, folder.tokenizers, strict=True)
        ]
        tokens = torch.cat([part.tokens for part in features], dim=-1)
        assert relative_error(tokens, wanted) < 1e-5
        assert relative_error(features[-1].pooled, pooled) < 1e-5

    write_folder(tmp_path / "ours", folder)
    again = type(theirs).from_pretrained(tmp_path / "ours")
    assert again.config.force_zeros_for_empty_prompt is not refiner
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        mine, original = getattr(again, name), getattr(theirs, name)
        if original is None:
            assert mine is None
            continue
        states = mine.state_dict(), original.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("negative", ["", "a blue ball"])
@pytest.mark.parametrize("zeros", [True, False])
def test_a_picture_of_xl_agrees(words, negative, zeros, tmp_path):
    theirs = _xl(words, refiner=False)
    theirs.register_to_config(force_zeros_for_empty_prompt=zeros)
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path)
    size = {"height": 24, "width": 16}
    wanted = theirs(
        PROMPTS[0],
        negative_prompt=negative or None,
        num_inference_steps=20,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **size,
    ).images
    ours = safelight.load(tmp_path, device="cpu")
    assert ours.settle(Request(PROMPTS[0])).scale == 5.0  # diffusers' default for XL
    settings = ours.settle(Request(PROMPTS[0], steps=20, scale=6.0, **size))
    pixels = ours.sample([PROMPTS[0]], [5], settings, negative=negative)
    made = (pixels / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    assert wanted.std() > 0.05
    assert np.abs(made - wanted).max() <= 1 / 255


def test_the_refiner_says_that_it_makes_no_picture_from_a_prompt_alone(words, tmp_path):
    _xl(words, refiner=True).save_pretrained(tmp_path)
    refiner = safelight.load(tmp_path, device="cpu")
    with pytest.raises(SafelightError, match="goes on from a picture; give an image"):
        refiner.generate("a cube")


def test_shards_and_half_precision_of_diffusers_are_read(words, tmp_path):
    theirs = _xl(words, refiner=False)
    theirs.save_pretrained(tmp_path, variant="fp16", max_shard_size="200KB")
    assert list(tmp_path.glob("unet/*.index.fp16.json"))
    for variant in (None, "fp16"):
        folder = read_folder(tmp_path, variant=variant)
        assert torch.equal(folder.unet.conv_in.weight, theirs.unet.conv_in.weight)


def test_what_we_write_names_no_part_that_is_not_there(words, tmp_path):
    _xl(words, refiner=False).save_pretrained(tmp_path / "theirs")
    write_folder(tmp_path / "ours", read_folder(tmp_path / "theirs"), dtype=torch.float16)
    index = json.loads((tmp_path / "ours/model_index.json").read_text())
    named = {name for name, entry in index.items() if isinstance(entry, list) and entry[1]}
    there = {path.name for path in (tmp_path / "ours").iterdir() if path.is_dir()}
    assert named == there
