"""Steered pictures against diffusers' pipelines: the same seed, the same picture."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPAGPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import safelight
from safelight.pipelines.control_settings import Control
from safelight.pipelines.guidance_settings import Guidance

from .conftest import shaken
from .small import BETAS, small_tower, small_unet, small_vae, small_words, small_xl_unet

SIZE, SEED, STEPS = 32, 11, 6
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"
TEXT = StableDiffusionControlNetPipeline
IMAGE = StableDiffusionControlNetImg2ImgPipeline
INPAINT = StableDiffusionControlNetInpaintPipeline
PAG = StableDiffusionControlNetPAGPipeline
XL = StableDiffusionXLControlNetPipeline


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


def _picture(seed, size=(40, 36)):
    levels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def _mask(size=(40, 36)):
    mask = Image.new("L", size, 0)
    mask.paste(255, (6, 8, 30, 24))
    return mask


def _controls(unet, count, **options):
    """ControlNets that move the picture well away from where it would be without."""
    controls = []
    for _ in range(count):
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
        network.register_to_config(**options)
        shaken(network)
        for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            layer.weight.mul_(2)
        controls.append(network)
    return controls


CASES = {
    "one": (TEXT, [{"weight": 0.8}], {"controlnet_conditioning_scale": 0.8}),
    "guess": (TEXT, [{"mode": "guess"}], {"guess_mode": True}),
    "no guidance": (TEXT, [{"mode": "guess"}], {"guess_mode": True, "guidance_scale": 1.0}),
    "some steps": (
        TEXT,
        [{"start": 0.2, "end": 0.7}],
        {"control_guidance_start": 0.2, "control_guidance_end": 0.7},
    ),
    "several": (
        TEXT,
        [{"weight": 0.9, "end": 0.5}, {"weight": 0.4, "start": 0.4}],
        {
            "controlnet_conditioning_scale": [0.9, 0.4],
            "control_guidance_start": [0.0, 0.4],
            "control_guidance_end": [0.5, 1.0],
        },
    ),
    "pooled": (TEXT, [{"weight": 1.3}], {"controlnet_conditioning_scale": 1.3}),
    "image": (
        IMAGE,
        [{"end": 0.6}],
        {"controlnet_conditioning_scale": 1.0, "control_guidance_end": 0.6},
    ),
    "mask": (INPAINT, [{"weight": 0.7}], {"controlnet_conditioning_scale": 0.7}),
    "mask beside": (INPAINT, [{"weight": 0.7}], {"controlnet_conditioning_scale": 0.7}),
    "perturbed": (PAG, [{}], {"pag_scale": 2.0}),
    "xl": (
        XL,
        [{"weight": 0.8, "mode": "guess", "end": 0.8}],
        {"controlnet_conditioning_scale": 0.8, "guess_mode": True, "control_guidance_end": 0.8},
    ),
}
CASES |= {f"v {case}": CASES[case] for case in ("guess", "several")}
BESIDE = {
    IMAGE: ({"strength": 0.7}, {"image": _picture(8), "strength": 0.7}),
    INPAINT: (
        {"strength": 0.84, "mask_blur": 0},
        {"image": _picture(8), "mask_image": _mask(), "strength": 0.84},
    ),
    PAG: ({"guidance": Guidance(pag_scale=2.0)}, {}),
}


def _diffusers(case, kind, parts, count):
    """Their pipeline with its controls, and the same model's without."""
    own = dict(parts, feature_extractor=None)
    if kind is XL:
        unet = small_xl_unet()
        tower = small_tower(CLIPTextModelWithProjection, len(parts["tokenizer"]))
        own |= {"text_encoder_2": tower, "tokenizer_2": parts["tokenizer"], "unet": unet}
        del own["feature_extractor"]
        plain = StableDiffusionXLPipeline(**own)
    else:
        unet = small_unet(9 if case == "mask beside" else 4)
        if case.startswith("v "):  # of the shape of Stable Diffusion 2
            unet = small_unet(use_linear_projection=True, attention_head_dim=(2, 4))
            own["scheduler"] = EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction")
        own |= {"unet": unet, "safety_checker": None, "requires_safety_checker": False}
        plain = StableDiffusionPipeline(**own)
    steered = small_unet() if case == "mask beside" else unet  # a control of the ordinary model
    controls = _controls(steered, count, global_pool_conditions=case == "pooled")
    pipeline = kind(**own, controlnet=controls if count > 1 else controls[0])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, plain, controls


@pytest.mark.parametrize("case", CASES)
def test_a_controlled_picture_is_diffusers(case, parts, tmp_path):
    kind, asked, theirs = CASES[case]
    pipeline, plain, networks = _diffusers(case, kind, parts, len(asked))
    hints = [_picture(seed) for seed in range(len(asked))]
    ours_beside, theirs_beside = BESIDE.get(kind, ({}, {}))
    options = {"guidance_scale": 4.0, "num_inference_steps": STEPS} | theirs_beside | theirs
    image = "image" if kind in (TEXT, XL) else "control_image"
    given = hints if len(hints) > 1 else hints[0]
    if kind is PAG:
        image = "image"
    wanted = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        height=SIZE,
        width=SIZE,
        **{image: given, **options},
    ).images[0]
    plain.save_pretrained(tmp_path)
    controls = []
    for number, (network, hint, one) in enumerate(zip(networks, hints, asked, strict=True)):
        network.save_pretrained(tmp_path / "controls" / str(number))
        controls.append(Control(str(number), hint, hint=True, **one))
    ours = safelight.load(tmp_path, device="cpu")
    beside = {
        {"mask_image": "mask"}.get(name, name): value
        for name, value in theirs_beside.items()
        if name in ("image", "mask_image")
    }
    scale = options["guidance_scale"]
    options = {"steps": STEPS, "scale": scale, "width": SIZE, "height": SIZE}
    options |= beside | ours_beside
    made, free = (
        np.asarray(
            ours.generate(PROMPT, negative=NEGATIVE, seed=SEED, controls=some, **options)[0].image,
            dtype=np.float32,
        )
        for some in (controls, ())
    )
    levels = np.round(wanted * 255)
    assert wanted.std() > 0.05  # a picture, not a plain colour
    inside = np.ones((SIZE, SIZE), dtype=bool)
    if kind is INPAINT:
        inside = np.asarray(_mask().resize((SIZE, SIZE), 1)) > 127
    assert np.abs(made - levels)[inside].max() <= 1
    assert np.abs(free - levels)[inside].max() > 10  # they steer


def _lora(path, unet, tower):
    """A LoRA of the attention of both networks, in diffusers' layout."""
    state = {}
    for prefix, network in (("unet", unet), ("text_encoder", tower)):
        for name, layer in network.named_modules():
            if name.endswith(("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj")):
                for part, shape in (
                    ("lora_A", (2, layer.in_features)),
                    ("lora_B", (layer.out_features, 2)),
                ):
                    state[f"{prefix}.{name}.{part}.weight"] = torch.randn(shape) * 0.2
    save_file(state, path)


def test_a_lora_beside_controls(parts, tmp_path):
    """It is the U-Net's and the text tower's; the ControlNets stay as they are."""
    theirs, plain, networks = _diffusers("several", TEXT, parts, 2)
    plain.save_pretrained(tmp_path / "model")
    hints, weights = [_picture(1), _picture(2)], [0.9, 0.4]
    controls = []
    for number, network in enumerate(networks):
        network.save_pretrained(tmp_path / str(number))
        controls.append(
            Control(
                "edges",
                hints[number],
                hint=True,
                network=tmp_path / str(number),
                weight=weights[number],
            )
        )
    _lora(tmp_path / "lora.safetensors", plain.unet, plain.text_encoder)
    ours = safelight.load(tmp_path / "model", device="cpu")
    before = {
        name: tensor.clone()
        for network in (ours.folder.unet, *ours.folder.text_towers)
        for name, tensor in network.state_dict().items()
    }

    def made():
        asked = {"steps": STEPS, "scale": 4.0, "width": SIZE, "height": SIZE, "seed": SEED}
        image = ours.generate(PROMPT, negative=NEGATIVE, controls=controls, **asked)[0].image
        return np.asarray(image, dtype=np.float32)

    free = made()
    ours.adapt(tmp_path / "lora.safetensors", 0.7)
    adapted = made()
    theirs.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="it")
    theirs.set_adapters("it", 0.7)
    wanted = theirs(
        PROMPT,
        image=hints,
        negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        height=SIZE,
        width=SIZE,
        guidance_scale=4.0,
        num_inference_steps=STEPS,
        controlnet_conditioning_scale=weights,
    ).images[0]
    theirs.unload_lora_weights()
    assert np.abs(adapted - np.round(wanted * 255)).max() <= 1
    assert np.abs(adapted - free).max() > 10
    ours.eject()
    after = {
        name: tensor
        for network in (ours.folder.unet, *ours.folder.text_towers)
        for name, tensor in network.state_dict().items()
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (made() == free).all()
