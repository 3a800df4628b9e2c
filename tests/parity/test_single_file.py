"""Single files in CompVis' and Stability's layout, against diffusers' own reading of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
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
from safelight.checkpoints.families import SD1, SD2, XL, scheduler_of
from safelight.checkpoints.files import read_metadata, read_state, write_state
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.single_file import read_single_file, write_single_file
from safelight.errors import SafelightError
from safelight.models.tokenizer import ClipTokenizer
from safelight.pipelines.kind import kind_of
from safelight.pipelines.request import Request

from .conftest import shaken

PROMPT = "a red cube left of a blue ball"
WORDS = 49408
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    ClipTokenizer.bundled().save(folder)
    return folder


def _tower(cls, width, layers=3, **options):
    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
        **options,
    )
    return shaken(cls(config))


def _vae(scale):
    return shaken(
        AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=2,
            scaling_factor=scale,
        )
    )


def _sd(words, kind):
    """A small Stable Diffusion 1.x or 2.x of random weights, in diffusers."""
    torch.manual_seed(1)
    second = kind == "sd2"
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2) if second else 8,
        cross_attention_dim=64,
        use_linear_projection=second,
    )
    pipeline = StableDiffusionPipeline(
        tokenizer=CLIPTokenizer.from_pretrained(words, **({"pad_token": "!"} if second else {})),
        text_encoder=_tower(CLIPTextModel, 64, **({"hidden_act": "gelu"} if second else {})),
        unet=shaken(unet),
        vae=_vae(0.18215),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _xl(words):
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(1, 2),
        cross_attention_dim=64 + 128,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=40 + 6 * 256,
    )
    pipeline = StableDiffusionXLPipeline(
        tokenizer=CLIPTokenizer.from_pretrained(words),
        tokenizer_2=CLIPTokenizer.from_pretrained(words, pad_token="!"),
        text_encoder=_tower(CLIPTextModel, 64),
        text_encoder_2=_tower(
            CLIPTextModelWithProjection, 128, hidden_act="gelu", projection_dim=40
        ),
        unet=shaken(unet),
        vae=_vae(0.13025),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


PIPELINES = {
    "sd1": lambda words: _sd(words, "sd1"),
    "sd2": lambda words: _sd(words, "sd2"),
    "xl": _xl,
}


def _picture(pipeline):
    return pipeline(
        PROMPT,
        negative_prompt="grey",
        num_inference_steps=5,
        guidance_scale=4.0,
        height=16,
        width=16,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images


def _ours(path):
    pipeline = safelight.load(path, device="cpu")
    settings = pipeline.settle(Request(PROMPT, steps=5, scale=4.0, width=16, height=16))
    pixels = pipeline.sample([PROMPT], [3], settings, negative="grey")
    return (pixels / 2 + 0.5).permute(0, 2, 3, 1).numpy()


def _written(words, kind, top):
    """A model as `top/folder` and, by us, as `top/one.safetensors`, whose tensors it gives."""
    PIPELINES[kind](words).save_pretrained(top / "folder")
    write_single_file(top / "one.safetensors", read_folder(top / "folder"))
    return read_state(top / "one.safetensors")


def _foreign(path, into):
    """The same file without our header, as another program would have written it."""
    write_state(into, read_state(path))
    return into


@pytest.mark.parametrize("kind", PIPELINES)
def test_what_we_write_is_read_by_diffusers_and_gives_its_picture(words, kind, tmp_path):
    theirs = PIPELINES[kind](words)
    theirs.save_pretrained(tmp_path / "folder")
    wanted = _picture(theirs)
    assert wanted.std() > 0.05
    folder = read_folder(tmp_path / "folder")
    write_single_file(tmp_path / "one.safetensors", folder)
    again = type(theirs).from_single_file(
        str(tmp_path / "one.safetensors"),
        config=str(tmp_path / "folder"),
        local_files_only=True,
        **({} if kind == "xl" else {"safety_checker": None}),
    )
    again.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        original = getattr(theirs, name, None)
        if original is not None:
            mine = getattr(again, name).state_dict()
            assert all(torch.equal(mine[key], t) for key, t in original.state_dict().items())
    assert np.abs(_picture(again) - wanted).max() <= 1 / 255
    assert np.abs(_ours(tmp_path / "one.safetensors") - wanted).max() <= 1 / 255

    back = read_single_file(tmp_path / "one.safetensors")
    write_folder(tmp_path / "back", back)
    for name in ("unet", "vae"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        ours, others = (read_state(tmp_path / top / file) for top in ("back", "folder"))
        assert ours.keys() == others.keys()
        assert all(torch.equal(ours[key], others[key]) for key in ours)


@pytest.mark.parametrize("kind", ["sd1", "xl"])
def test_a_file_without_our_header_is_told_by_its_tensors(words, kind, tmp_path):
    theirs = PIPELINES[kind](words)
    theirs.save_pretrained(tmp_path / "folder")
    folder = read_folder(tmp_path / "folder")
    write_single_file(tmp_path / "one.safetensors", folder)
    told = read_single_file(_foreign(tmp_path / "one.safetensors", tmp_path / "foreign.bin"))
    assert told.pipeline_class == type(theirs).__name__
    for mine, original in ((told.unet, folder.unet), (told.autoencoder, folder.autoencoder)):
        assert replace(mine.config, sample_size=None) == replace(original.config, sample_size=None)
        states = mine.state_dict(), original.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert [tower.config for tower in told.text_towers] == [
        tower.config for tower in folder.text_towers
    ]


def test_the_last_layer_of_a_whole_openclip_tower_is_left_out(words, tmp_path):
    state = _written(words, "sd2", tmp_path)
    prefix = "cond_stage_model.model."
    last = f"{prefix}transformer.resblocks.2."
    more = {  # as Stability's files have it: a layer more, a projection, a temperature
        key.replace("resblocks.2.", "resblocks.3."): torch.randn_like(tensor)
        for key, tensor in state.items()
        if key.startswith(last)
    }
    more |= {
        f"{prefix}text_projection": torch.randn(64, 64),
        f"{prefix}logit_scale": torch.ones(()),
    }
    write_state(tmp_path / "whole.safetensors", state | more)
    told = read_single_file(tmp_path / "whole.safetensors")
    assert told.text_towers[0].config == read_folder(tmp_path / "folder").text_towers[0].config
    assert [tokenizer.pad for tokenizer in told.tokenizers] == ["!"]


def test_a_pickled_file_gives_the_same_model(words, tmp_path):
    state = _written(words, "sd1", tmp_path)
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["betas"] = torch.zeros(1000)
    for legacy in (False, True):
        file = tmp_path / f"model-{legacy}.ckpt"
        content = {"global_step": 470000, "state_dict": state, "callbacks": {object: 1}}
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        folder = read_single_file(file)
        names = folder.unet.state_dict()
        wanted = read_folder(tmp_path / "folder").unet.state_dict()
        assert all(torch.equal(names[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: {k: t for k, t in s.items() if "cond_stage" not in k}, "whole text-to-image"),
        (lambda s: s | {"control_model.x": torch.ones(1)}, "control_model.x"),
        (lambda s: {k: t for k, t in s.items() if "middle_block.2.in" not in k}, "missing"),
        (lambda s: {k: t for k, t in s.items() if ".out.2." not in k}, "is whole"),
        (lambda s: {k: t for k, t in s.items() if "encoder.conv_in" not in k}, "is whole"),
        (lambda s: {k: t for k, t in s.items() if "token_embedding" not in k}, "is whole"),
    ],
)
def test_a_file_that_is_not_whole_is_one_line(words, change, named, tmp_path):
    state = _written(words, "sd1", tmp_path)
    write_state(tmp_path / "less.safetensors", change(state))
    with pytest.raises(SafelightError, match=named) as caught:
        read_single_file(tmp_path / "less.safetensors")
    assert "\n" not in str(caught.value)


def test_a_header_of_absurd_numbers_is_one_line(words, tmp_path):
    state = _written(words, "sd1", tmp_path)
    said = json.loads(read_metadata(tmp_path / "one.safetensors")["safelight"])
    changes = (
        ("unet", {"layers_per_block": 10**8}, "layers"),
        ("unet", {"norm_num_groups": 0}, "cannot be built"),
        ("unet", {"in_channels": -1}, "cannot be built"),
        ("vae", {"layers_per_block": 10**8}, "layers"),
        ("text", [said["text"][0] | {"num_hidden_layers": 10**8}], "layers"),
        ("text", [], "towers"),
        ("tokenizers", [], "tokenizers"),
        ("tokenizers", [said["tokenizers"][0] | {"length": 500}], "max_position_embeddings"),
    )
    for name, change, told in changes:
        entry = said | {name: said[name] | change if isinstance(change, dict) else change}
        write_state(tmp_path / "odd.safetensors", state, {"safelight": json.dumps(entry)})
        with pytest.raises(SafelightError, match=told) as caught:
            read_single_file(tmp_path / "odd.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", [SD1, SD2, XL])
def test_v_prediction_shows_in_the_spread_of_one_bias_of_2x(family):
    key = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    for spread, wanted in ((0.2, "v_prediction"), (0.05, "epsilon"), (float("nan"), "epsilon")):
        scheduler = scheduler_of(family, {key: torch.tensor([-spread, spread])}, {})
        assert scheduler.prediction == (wanted if family is SD2 else "epsilon")


def test_a_model_that_predicts_v_is_written_with_marks(words, tmp_path):
    PIPELINES["sd2"](words).save_pretrained(tmp_path / "folder")
    folder = read_folder(tmp_path / "folder")
    for prediction, zero, marks in (
        ("epsilon", False, set()),
        ("v_prediction", False, {"v_pred"}),
        ("v_prediction", True, {"v_pred", "ztsnr"}),
    ):
        scheduler = replace(
            folder.scheduler,
            class_name="DDIMScheduler",
            prediction_type=prediction,
            rescale_betas_zero_snr=zero,
        )
        path = tmp_path / "marked.safetensors"
        write_single_file(path, replace(folder, scheduler=scheduler))
        state = read_state(path)
        assert {"v_pred", "ztsnr"} & set(state) == marks
        assert read_single_file(path).scheduler == scheduler
        write_state(path, state)  # its header left out
        told = read_single_file(path)
        assert told.scheduler.prediction == prediction
        assert told.scheduler.rescale_betas_zero_snr == zero
        assert told.unet.config.sample_size == (96 if marks else 64)


def test_v_prediction_shows_in_marks(words, tmp_path):
    state = _written(words, "sd2", tmp_path)
    write_state(tmp_path / "marked.safetensors", state | {"v_pred": torch.ones(1)})
    assert read_single_file(tmp_path / "marked.safetensors").scheduler.prediction == "v_prediction"
    write_state(tmp_path / "told.safetensors", state, {"modelspec.prediction_type": "v"})
    assert read_single_file(tmp_path / "told.safetensors").scheduler.prediction == "v_prediction"
    write_state(tmp_path / "plain.safetensors", state)
    assert read_single_file(tmp_path / "plain.safetensors").scheduler.prediction == "epsilon"


@pytest.mark.parametrize("entry", ["{", "[]", "{}", json.dumps({"pipeline": 3})])
def test_a_broken_header_entry_is_one_line(words, entry, tmp_path):
    state = _written(words, "sd1", tmp_path)
    write_state(tmp_path / "broken.safetensors", state, {"safelight": entry})
    with pytest.raises(SafelightError, match="header") as caught:
        read_single_file(tmp_path / "broken.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("channels", "options", "pipeline", "beside"),
    [
        (5, {}, "StableDiffusionDepth2ImgPipeline", "depth"),
        (
            7,
            {
                "num_class_embeds": 1000,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "only_cross_attention": (False, True),
            },
            "StableDiffusionUpscalePipeline",
            "low resolution",
        ),
        (8, {}, "StableDiffusionInstructPix2PixPipeline", "image"),
        (9, {}, "StableDiffusionInpaintPipeline", "mask"),
    ],
)
def test_a_file_of_others_for_a_task_is_told_by_its_channels(
    words, channels, options, pipeline, beside, tmp_path
):
    theirs = _sd(words, "sd2")
    config = dict(theirs.unet.config) | {"in_channels": channels} | options
    config.pop("_use_default_values")  # what was left out then is said now
    if channels == 7:
        config["attention_head_dim"] = 8
    theirs.register_modules(unet=shaken(UNet2DConditionModel.from_config(config)))
    theirs.save_pretrained(tmp_path / "folder")
    folder = read_folder(tmp_path / "folder")
    write_single_file(tmp_path / "ours.safetensors", folder)
    state = read_state(tmp_path / "ours.safetensors")
    extra = {"depth_model.model.scratch.output_conv.0.bias": torch.zeros(3)}
    write_state(tmp_path / "theirs.safetensors", state | extra)
    found = read_single_file(tmp_path / "theirs.safetensors")
    assert found.pipeline_class == pipeline
    assert kind_of(found, "it").beside == beside
    assert found.autoencoder.config.scaling_factor == (0.08333 if channels == 7 else 0.18215)
    ours = folder.unet.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in found.unet.state_dict().items())
    wanted = replace(folder.unet.config, sample_size=None)
    assert replace(found.unet.config, sample_size=None, upcast_attention=False) == wanted
    if channels == 7:
        assert found.scheduler.prediction == "v_prediction"
