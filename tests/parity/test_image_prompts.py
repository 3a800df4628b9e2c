"""Pictures that speak beside the prompt against diffusers' pipelines: one seed, one picture."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import safelight
from safelight.errors import SafelightError
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.control_settings import Control
from safelight.pipelines.guidance_settings import Guidance

from .conftest import shaken
from .image_adapters import save_adapter, small_adapter, small_image_tower
from .small import BETAS, small_tower, small_unet, small_vae, small_words, small_xl_unet

SIZE, SEED, STEPS, SCALE = 32, 11, 6, 4.0
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"
TEXT, XL = StableDiffusionPipeline, StableDiffusionXLPipeline
IMAGE, INPAINT = StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
CONTROL, PAG = StableDiffusionControlNetPipeline, StableDiffusionPAGPipeline


def _picture(seed, size=(40, 36)):
    levels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def _mask(size=(40, 36)):
    mask = Image.new("L", size, 0)
    mask.paste(255, (6, 8, 30, 24))
    return mask


PERTURBED = ({"guidance": Guidance(pag_scale=2.0)}, {"pag_scale": 2.0})
CASES = {  # the pipeline, the kind of adapter, weights, and what ours and theirs are told besides
    "plain": (TEXT, "plain", (0.8,), {}, {}),
    "plus": (TEXT, "plus", (0.8,), {}, {}),
    "full": (TEXT, "full", (0.5,), {}, {}),
    "two": (TEXT, "plain", (0.9, 0.3), {}, {}),
    "two of plus": (TEXT, "plus", (0.4, 0.7), {}, {}),
    "no guidance": (TEXT, "plus", (0.6,), {"scale": 1.0}, {"guidance_scale": 1.0}),
    "rescaled": (
        TEXT,
        "plain",
        (1.0,),
        {"guidance": Guidance(rescale=0.6)},
        {"guidance_rescale": 0.6},
    ),
    "image": (
        IMAGE,
        "plain",
        (0.8,),
        {"image": _picture(8, (SIZE, SIZE)), "strength": 0.7},
        {"image": _picture(8, (SIZE, SIZE)), "strength": 0.7},
    ),
    "mask": (
        INPAINT,
        "plus",
        (0.7, 0.2),
        {"image": _picture(8), "mask": _mask(), "strength": 0.84, "mask_blur": 0},
        {"image": _picture(8), "mask_image": _mask(), "strength": 0.84},
    ),
    "control": (
        CONTROL,
        "plus",
        (0.8,),
        {"controls": [{"weight": 0.8, "end": 0.7}]},
        {
            "image": _picture(7),
            "controlnet_conditioning_scale": 0.8,
            "control_guidance_end": 0.7,
        },
    ),
    "perturbed": (PAG, "plain", (0.8,), *PERTURBED),
    "adapted": (TEXT, "plain", (0.8,), {}, {}),  # by a LoRA too
    "xl": (XL, "plain", (0.6,), {}, {}),
    "xl plus, two": (XL, "plus", (0.5, 0.4), {}, {}),
    "xl perturbed": (StableDiffusionXLPAGPipeline, "plus", (0.6,), *PERTURBED),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    torch.manual_seed(5)
    tokenizer = small_words(tmp_path_factory.mktemp("tokenizer"), [PROMPT, NEGATIVE])
    return {
        "tokenizer": tokenizer,
        "text_encoder": small_tower(CLIPTextModel, len(tokenizer)),
        "vae": small_vae(),
        "scheduler": EulerDiscreteScheduler(**BETAS),
    }


def _diffusers(kind, parts):
    """Their pipeline, and the same model's without a ControlNet."""
    own = dict(parts)
    if kind in (XL, StableDiffusionXLPAGPipeline):
        tower = small_tower(CLIPTextModelWithProjection, len(parts["tokenizer"]))
        own |= {"text_encoder_2": tower, "tokenizer_2": parts["tokenizer"]}
        own |= {"unet": small_xl_unet()}
        return kind(**own), XL(**own)
    own |= {"unet": small_unet(), "feature_extractor": None}
    own |= {"safety_checker": None, "requires_safety_checker": False}
    if kind is not CONTROL:
        return kind(**own), TEXT(**own)
    network = ControlNetModel.from_unet(own["unet"], conditioning_embedding_out_channels=(4, 8))
    return kind(**own, controlnet=shaken(network)), TEXT(**own)


def _lora(unet):
    """Of the layers that a picture is attended to by, and of others."""
    state = {}
    for path, layer in unet.named_modules():
        if path.endswith(("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn1.to_v")):
            out, wide = layer.weight.shape
            state[f"unet.{path}.lora_A.weight"] = torch.randn(2, wide)
            state[f"unet.{path}.lora_B.weight"] = torch.randn(out, 2) * 0.1
    return state


@pytest.fixture
def seeing(parts, tmp_path):
    """A model of ours, its folder, and the file of an adapter for it with its encoder beside."""
    plain = _diffusers(TEXT, parts)[1]
    plain.save_pretrained(tmp_path / "model")
    small_image_tower().save_pretrained(tmp_path / "image_encoder")
    file = save_adapter(tmp_path / "one.safetensors", small_adapter(plain.unet, "plain"))
    return safelight.load(tmp_path / "model", device="cpu"), file


def _levels(pipeline, *shown, **options):
    options = {"steps": STEPS, "scale": SCALE, "seed": SEED, "image_prompts": shown} | options
    return np.asarray(pipeline.generate(PROMPT, **options)[0].image, dtype=np.float32)


def _apart(one, other):
    return np.abs(one - other).max()


@pytest.mark.parametrize("case", CASES)
def test_a_picture_prompted_by_pictures_is_diffusers(case, parts, tmp_path):
    kind, adapter, weights, ours_beside, theirs_beside = CASES[case]
    pipeline, plain = _diffusers(kind, parts)
    plain.save_pretrained(tmp_path / "model")
    places = tmp_path / "adapters" / "models"
    small_image_tower().save_pretrained(places / "image_encoder")
    name = "one.bin" if adapter == "full" else "one.safetensors"
    save_adapter(places / name, small_adapter(pipeline.unet, adapter))
    shown = [_picture(20 + number, (50, 71)) for number in range(len(weights))]
    if kind is CONTROL:
        pipeline.controlnet.save_pretrained(tmp_path / "control")
        controls = [
            Control(str(tmp_path / "control"), _picture(7), hint=True, **one)
            for one in ours_beside["controls"]
        ]
        ours_beside = {"controls": controls}

    pipeline.set_progress_bar_config(disable=True)
    files = [name] * len(weights)
    pipeline.load_ip_adapter(str(places.parent), subfolder="models", weight_name=files)
    pipeline.set_ip_adapter_scale(list(weights))
    if case == "adapted":
        save_file(_lora(plain.unet), tmp_path / "lora.safetensors")
        pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    size = {} if kind is IMAGE else {"height": SIZE, "width": SIZE}  # it is that of the image
    wanted = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        ip_adapter_image=shown,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **({"guidance_scale": SCALE} | size | theirs_beside),
    ).images[0]

    ours = safelight.load(tmp_path / "model", device="cpu")
    ours.see_by(places / name)
    if case == "adapted":
        ours.adapt(tmp_path / "lora.safetensors")
    prompts = [ImagePrompt(*pair) for pair in zip(shown, weights, strict=True)]
    options = {"steps": STEPS, "scale": SCALE, "width": SIZE, "height": SIZE} | ours_beside
    made, free = (
        np.asarray(
            ours.generate(PROMPT, negative=NEGATIVE, seed=SEED, image_prompts=some, **options)[
                0
            ].image,
            dtype=np.float32,
        )
        for some in (prompts, ())
    )
    levels = np.round(wanted * 255)
    assert wanted.std() > 0.05  # a picture, not a plain colour
    inside = np.ones((SIZE, SIZE), dtype=bool)
    if kind is INPAINT:
        inside = np.asarray(_mask().resize((SIZE, SIZE), 1)) > 127
    assert np.abs(made - levels)[inside].max() <= 1
    assert np.abs(free - levels)[inside].max() > 10  # they speak


def test_the_model_stays_as_it_was_and_a_silent_picture_is_not_there(seeing):
    pipeline, file = seeing
    before = _levels(pipeline)
    pipeline.see_by(file)
    silent = ImagePrompt(_picture(1), 0.0)
    assert _apart(_levels(pipeline, silent), before) <= 1
    assert _apart(_levels(pipeline, silent, scale=1.0), _levels(pipeline, scale=1.0)) <= 1
    assert _apart(_levels(pipeline, ImagePrompt(_picture(1))), before) > 10
    assert _apart(_levels(pipeline), before) == 0


def test_pictures_have_a_guidance_of_their_own(seeing):
    pipeline, file = seeing
    pipeline.see_by(file)
    shown = ImagePrompt(_picture(1))
    usual = _levels(pipeline, shown)
    assert _apart(_levels(pipeline, shown, image_prompt_scale=SCALE), usual) <= 1
    assert _apart(_levels(pipeline, shown, image_prompt_scale=2 * SCALE), usual) > 4


def test_windows_that_see_the_whole_picture_show_it_what_speaks(seeing):
    pipeline, file = seeing
    pipeline.see_by(file)
    shown = (ImagePrompt(_picture(1), 0.9), ImagePrompt(_picture(2), 0.4))
    whole = _levels(pipeline, *shown)
    windows = {"tiled_diffusion": True, "tile_size": 16, "tile_overlap": 8}
    one = windows | {"tile_size": SIZE}
    assert _apart(_levels(pipeline, *shown, **one), whole) <= 1
    assert _apart(_levels(pipeline, *shown, **windows), _levels(pipeline, **windows)) > 10


def test_what_does_not_fit_is_one_line(seeing, tmp_path):
    pipeline, file = seeing
    wide = save_adapter(tmp_path / "wide.bin", small_adapter(small_unet(context=40), "plain"))
    lone = tmp_path / "far" / "away" / "one.safetensors"
    lone.parent.mkdir(parents=True)
    lone.write_bytes(file.read_bytes())
    narrow = small_adapter(small_unet(), "plain")
    narrow["image_proj.proj.weight"] = narrow["image_proj.proj.weight"][:, :9].clone()
    save_adapter(tmp_path / "narrow.bin", narrow)
    for told, given in {
        "a context of width 40; this U-Net": wide,
        "no image encoder beside": lone,
        "takes embeddings of width 9": tmp_path / "narrow.bin",
    }.items():
        with pytest.raises(SafelightError, match=told) as caught:
            pipeline.see_by(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(SafelightError, match="brings no IP-Adapter"):
        _levels(pipeline, ImagePrompt(_picture(1)))
    pipeline.see_by(file)
    with pytest.raises(SafelightError, match="weight of an image prompt"):
        _levels(pipeline, ImagePrompt(_picture(1), float("nan")))
