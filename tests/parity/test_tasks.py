"""Models that take more than a prompt, against diffusers' pipelines: the same seed, the same
picture.
"""

import inspect
import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
)

import safelight
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.errors import SafelightError
from safelight.pipelines.given import give
from safelight.pipelines.request import Hires, Margins

from .conftest import relative_error, shaken
from .small import BETAS, small_tower, small_unet, small_vae, small_words, small_xl_unet

SIZE, SEED, STEPS = 32, 11, 6
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A tokenizer and two text towers, the second with a projection."""
    torch.manual_seed(5)
    tokenizer = small_words(tmp_path_factory.mktemp("tokenizer"), [PROMPT, NEGATIVE])
    return {
        "tokenizer": tokenizer,
        "text_encoder": small_tower(CLIPTextModel, len(tokenizer)),
        "text_encoder_2": small_tower(CLIPTextModelWithProjection, len(tokenizer)),
    }


@pytest.fixture(scope="module")
def image():
    """A picture that is not of the model's size, with a gradient and an edge."""
    rows, columns = np.mgrid[0:40, 0:36]
    red = (rows * 6).astype(np.uint8)
    green = (columns * 7).astype(np.uint8)
    blue = np.where(columns > rows, 220, 30).astype(np.uint8)
    return Image.fromarray(np.stack([red, green, blue], axis=-1))


@pytest.fixture(scope="module")
def mask():
    levels = np.zeros((40, 36), dtype=np.uint8)
    levels[8:30, 5:20] = 255
    return Image.fromarray(levels)


def _pipeline(kind, text, unet, scheduler=None, **parts):
    """diffusers' pipeline of a kind, with as many text towers as it takes."""
    parts = {
        "vae": small_vae(),
        "unet": unet,
        "scheduler": scheduler or EulerDiscreteScheduler(**BETAS),
        "tokenizer": text["tokenizer"],
        "text_encoder": text["text_encoder"],
        **parts,
    }
    takes = inspect.signature(kind.__init__).parameters
    if "text_encoder_2" in takes:
        parts |= {"text_encoder_2": text["text_encoder_2"], "tokenizer_2": text["tokenizer"]}
    if "safety_checker" in takes:
        parts["safety_checker"] = None
    if "feature_extractor" in takes:
        parts.setdefault("feature_extractor", None)
    if "requires_safety_checker" in takes:
        parts["requires_safety_checker"] = False
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


OWN = {DDIMScheduler: {"clip_sample": False}, PNDMScheduler: {"skip_prk_steps": True}}


def _options(scheduler):
    return BETAS | OWN.get(scheduler, {})


def _their_picture(pipeline, **options):
    options = {"num_inference_steps": STEPS, "guidance_scale": 4.0} | options
    return pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **options,
    ).images[0]


def _our_picture(pipeline, tmp_path, **options):
    pipeline.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    return _made(ours, **options)


def _made(ours, **options):
    options = {"steps": STEPS, "scale": 4.0} | options
    return ours.generate(PROMPT, negative=NEGATIVE, seed=SEED, **options)[0].image


def _agree(made, theirs):
    wanted = np.round(theirs * 255)
    assert np.asarray(made).shape == wanted.shape
    assert theirs.std() > 0.05  # a picture, not a plain colour
    assert np.abs(np.asarray(made, dtype=np.float32) - wanted).max() <= 1


def _agree_inside(made, theirs, image, mask):
    """As `_agree` where the mask is; elsewhere ours is the given picture to the bit."""
    kept, inside = (np.asarray(part.resize(made.size, 1)) for part in (image, mask))
    inside = inside > 127
    ours = np.asarray(made)
    assert np.array_equal(ours[~inside], kept[~inside])
    assert theirs.std() > 0.05
    assert np.abs(ours.astype(np.float32) - np.round(theirs * 255))[inside].max() <= 1


@pytest.mark.parametrize(
    ("scheduler", "strength"),
    [
        (EulerDiscreteScheduler, 1.0),
        (EulerDiscreteScheduler, 0.6),
        (DDIMScheduler, 0.6),
        (EulerAncestralDiscreteScheduler, 1.0),
        (EulerAncestralDiscreteScheduler, 0.6),
        (DPMSolverMultistepScheduler, 0.6),
    ],
)
def test_an_inpainting_model_makes_diffusers_picture(
    text, image, mask, scheduler, strength, tmp_path
):
    theirs = _pipeline(
        StableDiffusionInpaintPipeline, text, small_unet(9), scheduler(**_options(scheduler))
    )
    wanted = _their_picture(
        theirs, image=image, mask_image=mask, strength=strength, height=40, width=36
    )
    made = _our_picture(theirs, tmp_path, image=image, mask=mask, strength=strength, mask_blur=0)
    _agree_inside(made, wanted, image, mask)


def test_an_inpainting_model_resizes_as_diffusers_does(text, image, mask, tmp_path):
    theirs = _pipeline(StableDiffusionInpaintPipeline, text, small_unet(9))
    size = {"height": SIZE, "width": SIZE + 8}
    wanted = _their_picture(theirs, image=image, mask_image=mask, strength=1.0, **size)
    made = _our_picture(theirs, tmp_path, image=image, mask=mask, **size)
    _agree_inside(made, wanted, image, mask)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_an_xl_inpainting_model_makes_diffusers_picture(text, image, mask, strength, tmp_path):
    theirs = _pipeline(StableDiffusionXLInpaintPipeline, text, small_xl_unet(9))
    wanted = _their_picture(
        theirs, image=image, mask_image=mask, strength=strength, height=32, width=24
    )
    made = _our_picture(
        theirs, tmp_path, image=image, mask=mask, strength=strength, height=32, width=24
    )
    _agree_inside(made, wanted, image, mask)


@pytest.mark.parametrize(
    "scheduler",
    [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DDIMScheduler, PNDMScheduler],
)
@pytest.mark.parametrize("strength", [0.84, 0.5])
def test_an_ordinary_model_inpaints_as_in_diffusers(
    text, image, mask, scheduler, strength, tmp_path
):
    theirs = _pipeline(
        StableDiffusionInpaintPipeline, text, small_unet(4), scheduler(**_options(scheduler))
    )
    wanted = _their_picture(
        theirs, image=image, mask_image=mask, strength=strength, height=40, width=36
    )
    made = _our_picture(theirs, tmp_path, image=image, mask=mask, strength=strength)
    _agree_inside(made, wanted, image, mask)


@pytest.mark.parametrize("channels", [4, 9])
def test_a_picture_of_any_size_keeps_its_pixels_beside_a_mask(
    text, image, mask, channels, tmp_path
):
    """35 x 39 pixels are no multiple of the autoencoder's 2."""
    box = (0, 0, 35, 39)
    image, mask = image.crop(box), mask.crop(box)
    theirs = _pipeline(StableDiffusionInpaintPipeline, text, small_unet(channels))
    theirs.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    made, soft = (_made(ours, image=image, mask=mask, mask_blur=blur) for blur in (0, 3))
    masked = np.asarray(mask) > 127
    for picture in (made, soft):
        assert picture.size == image.size
        assert np.array_equal(np.asarray(picture)[~masked], np.asarray(image)[~masked])
    changed = np.abs(np.asarray(made, dtype=int) - np.asarray(image))[masked]
    assert changed.mean() > 10
    same = (np.asarray(made) == np.asarray(soft)).all(axis=-1)
    assert same[14:24, 10:15].all()  # further from the mask's edge than the blur
    assert not same[8:30, 5:8].all()  # beside it


def test_a_picture_is_extended(text, image, tmp_path):
    _pipeline(StableDiffusionInpaintPipeline, text, small_unet(4)).save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    options = {"image": image, "outpaint": Margins(left=4, bottom=7)}
    picture = ours.generate(PROMPT, seed=SEED, steps=STEPS, **options)[0]
    levels = np.asarray(picture.image)
    assert levels.shape == (47, 40, 3)
    assert np.array_equal(levels[:40, 4:], np.asarray(image))
    assert picture.manifest.outpaint == Margins(left=4, bottom=7)
    assert picture.manifest.given["image"].sha256 == give("image", image).sha256
    other = ours.generate(PROMPT, seed=SEED + 1, steps=STEPS, **options)[0].image
    assert (np.asarray(other)[40:] != levels[40:]).any()


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_second_pass_is_as_beginning_from_enlarged_latents(text, upscaler, tmp_path):
    """diffusers' own pipelines, one after the other, with the same enlargement between."""
    parts = _pipeline(StableDiffusionPipeline, text, small_unet())
    options = {"width": SIZE, "height": SIZE}
    small = parts(
        PROMPT,
        negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        **options,
    ).images
    larger = _enlarged(parts.vae, small, upscaler)
    again = StableDiffusionImg2ImgPipeline(**parts.components, requires_safety_checker=False)
    wanted = _their_picture(again, image=larger, strength=0.6, num_inference_steps=5)
    hires = Hires(1.5, 0.6, 5, upscaler)
    made = _our_picture(parts, tmp_path, hires=hires, **options)
    assert made.size == (SIZE * 3 // 2, SIZE * 3 // 2)
    _agree(made, wanted)


def _enlarged(vae, z, upscaler):
    if upscaler == "latent":
        return torch.nn.functional.interpolate(z, scale_factor=1.5, mode="bilinear")
    with torch.no_grad():
        pixels = vae.decode(z / vae.config.scaling_factor).sample[0].clamp(-1, 1)
        planes = [
            np.asarray(Image.fromarray(plane.numpy()).resize((SIZE * 3 // 2,) * 2, 1))
            for plane in pixels
        ]
        larger = torch.from_numpy(np.stack(planes)).clamp(-1, 1)[None]
        return vae.encode(larger).latent_dist.mode() * vae.config.scaling_factor


@pytest.mark.parametrize(("scale", "image_scale"), [(4.0, 1.5), (4.0, 1.0), (1.0, 1.5)])
def test_an_editing_model_makes_diffusers_picture(text, image, scale, image_scale, tmp_path):
    theirs = _pipeline(StableDiffusionInstructPix2PixPipeline, text, small_unet(8))
    wanted = _their_picture(
        theirs, image=image, guidance_scale=scale, image_guidance_scale=image_scale
    )
    made = _our_picture(theirs, tmp_path, image=image, scale=scale, image_scale=image_scale)
    _agree(made, wanted)


@pytest.mark.parametrize("cosxl", [False, True])
def test_an_xl_editing_model_makes_diffusers_picture(text, image, cosxl, tmp_path):
    theirs = _pipeline(
        StableDiffusionXLInstructPix2PixPipeline, text, small_xl_unet(8), is_cosxl_edit=cosxl
    )
    wanted = _their_picture(theirs, image=image, height=32, width=24)
    theirs.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"  # diffusers leaves it to the user to say so
    index.write_text(json.dumps(json.loads(index.read_text()) | {"is_cosxl_edit": cosxl}))
    ours = safelight.load(tmp_path, device="cpu")
    _agree(_made(ours, image=image, height=32, width=24), wanted)


def _depth_estimator():
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return DPTForDepthEstimation(config).eval()


@pytest.mark.parametrize(
    ("scheduler", "strength"), [(EulerDiscreteScheduler, 0.8), (DDIMScheduler, 1.0)]
)
def test_a_depth_model_makes_diffusers_picture(text, image, scheduler, strength, tmp_path):
    theirs = _pipeline(
        StableDiffusionDepth2ImgPipeline,
        text,
        small_unet(5),
        scheduler(**_options(scheduler)),
        depth_estimator=_depth_estimator(),
        feature_extractor=DPTImageProcessor(),
    )
    depth = np.linspace(3, 90, 20 * 24, dtype=np.float32).reshape(20, 24)
    wanted = _their_picture(
        theirs, image=image, depth_map=torch.from_numpy(depth)[None], strength=strength
    )
    map_file = tmp_path / "depth.tiff"
    Image.fromarray(depth).save(map_file)
    made = _our_picture(theirs, tmp_path / "model", image=image, depth=map_file, strength=strength)
    _agree(made, wanted)


@pytest.mark.parametrize("level", [20, 250])
def test_an_upscaler_makes_diffusers_picture(text, level, tmp_path):
    unet = small_unet(7, num_class_embeds=1000, only_cross_attention=(True, False))
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8))
    theirs = _pipeline(
        StableDiffusionUpscalePipeline,
        text,
        unet,
        vae=small_vae(0.08333),
        low_res_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    )
    wanted = _their_picture(theirs, image=small, noise_level=level)
    made = _our_picture(theirs, tmp_path / "a", image=small, noise_level=level)
    assert made.size == (24, 16)
    _agree(made, wanted)
    write_folder(tmp_path / "b", read_folder(tmp_path / "a"))
    again = StableDiffusionUpscalePipeline.from_pretrained(tmp_path / "b")
    again.set_progress_bar_config(disable=True)
    assert np.abs(_their_picture(again, image=small, noise_level=level) - wanted).max() < 1 / 255


@pytest.mark.parametrize(
    ("scheduler", "strength"),
    [(EulerDiscreteScheduler, 0.5), (EulerAncestralDiscreteScheduler, 1.0), (DDIMScheduler, 0.7)],
)
def test_a_picture_to_begin_from_gives_diffusers_picture(
    text, image, scheduler, strength, tmp_path
):
    theirs = _pipeline(
        StableDiffusionImg2ImgPipeline, text, small_unet(), scheduler(**_options(scheduler))
    )
    wanted = _their_picture(theirs, image=image, strength=strength)
    _agree(_our_picture(theirs, tmp_path, image=image, strength=strength), wanted)


@pytest.mark.parametrize(("channels", "strength"), [(0, 0.7), (4, 0.6), (9, 1.0), (9, 0.6)])
def test_an_autoencoder_that_draws_no_noise_gives_diffusers_picture(
    text, image, mask, channels, strength, tmp_path
):
    tiny = shaken(
        AutoencoderTiny(
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    )
    kind = StableDiffusionInpaintPipeline if channels else StableDiffusionImg2ImgPipeline
    scheduler = EulerAncestralDiscreteScheduler(**BETAS)  # whose own noise comes after
    theirs = _pipeline(kind, text, small_unet(channels or 4), scheduler, vae=tiny)
    size = {"mask_image": mask, "height": 40, "width": 36} if channels else {}
    wanted = _their_picture(theirs, image=image, strength=strength, **size)
    if not channels:
        _agree(_our_picture(theirs, tmp_path, image=image, strength=strength), wanted)
        return
    options = {"image": image, "mask": mask, "strength": strength, "mask_blur": 0}
    _agree_inside(_our_picture(theirs, tmp_path, **options), wanted, image, mask)


PNDM = [
    # diffusers' pipelines cut its list of times, in which the second stands twice
    *((strength, steps, {}) for strength in (0.3, 0.5, 0.75, 1.0) for steps in (6, 7)),
    (0.5, 2, {}),  # the second time's two calls alone
    (0.7, 6, {"prediction_type": "v_prediction"}),
    (0.7, 7, {"timestep_spacing": "trailing"}),
    (0.7, 6, {"timestep_spacing": "linspace", "set_alpha_to_one": True}),
]


@pytest.mark.parametrize(("strength", "steps", "options"), PNDM)
@pytest.mark.parametrize("channels", [0, 9])  # 0 begins from a picture without a mask
def test_plms_from_a_later_step_gives_diffusers_picture(
    text, image, mask, channels, strength, steps, options, tmp_path
):
    kind = StableDiffusionInpaintPipeline if channels else StableDiffusionImg2ImgPipeline
    scheduler = PNDMScheduler(**_options(PNDMScheduler), **options)
    theirs = _pipeline(kind, text, small_unet(channels or 4), scheduler)
    same = {"image": image, "strength": strength}
    size = {"mask_image": mask, "height": 40, "width": 36} if channels else {}
    wanted = _their_picture(theirs, num_inference_steps=steps, **same, **size)
    if channels:
        made = _our_picture(theirs, tmp_path, mask=mask, mask_blur=0, steps=steps, **same)
        _agree_inside(made, wanted, image, mask)
    else:
        _agree(_our_picture(theirs, tmp_path, steps=steps, **same), wanted)


def _refiner(text, scheduler=None):
    return _pipeline(
        StableDiffusionXLImg2ImgPipeline,
        text,
        small_xl_unet(context=32, numbers=5),
        scheduler,
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def test_the_refiner_makes_diffusers_picture(text, image, tmp_path):
    theirs = _refiner(text)
    wanted = _their_picture(theirs, image=image, strength=0.5)
    _agree(_our_picture(theirs, tmp_path, image=image, strength=0.5), wanted)


@pytest.mark.parametrize(
    ("scheduler", "at"),
    [
        *((EulerDiscreteScheduler, at) for at in (0.5, 0.8)),
        *((DPMSolverMultistepScheduler, at) for at in (0.5, 0.8)),
        *((PNDMScheduler, at) for at in (0.1, 0.2, 0.5, 0.9)),
    ],
)
def test_a_base_hands_over_to_the_refiner_as_in_diffusers(text, scheduler, at, tmp_path):
    options = _options(scheduler)
    base = _pipeline(StableDiffusionXLPipeline, text, small_xl_unet(), scheduler(**options))
    refiner = _refiner(text, scheduler(**options))
    refiner.vae = base.vae
    options = {
        "negative_prompt": NEGATIVE,
        "num_inference_steps": 10,
        "guidance_scale": 4.0,
        "height": SIZE,
        "width": SIZE,
    }
    latents = base(
        PROMPT,
        generator=torch.Generator().manual_seed(SEED),
        denoising_end=at,
        output_type="latent",
        **options,
    ).images
    del options["height"], options["width"]
    wanted = refiner(PROMPT, image=latents, denoising_start=at, output_type="np", **options).images[
        0
    ]
    base.save_pretrained(tmp_path / "base")
    refiner.save_pretrained(tmp_path / "refiner")
    ours = safelight.load(
        tmp_path / "base", device="cpu", refiner=tmp_path / "refiner", refine_at=at
    )
    made = ours.generate(
        PROMPT, negative=NEGATIVE, steps=10, scale=4.0, seed=SEED, width=SIZE, height=SIZE
    )
    _agree(made[0].image, wanted)
    assert made[0].manifest.refiner is not None


@pytest.mark.parametrize(("xl", "upcast"), [(True, True), (True, False), (False, True)])
def test_an_autoencoder_too_wide_for_float16_works_in_float32_told_or_not(
    text, image, xl, upcast, tmp_path
):
    kind = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    unet = small_xl_unet() if xl else small_unet()
    theirs = _pipeline(kind, text, unet, EulerDiscreteScheduler(**BETAS))
    with torch.no_grad():
        for part in (theirs.vae.encoder, theirs.vae.decoder):
            weight = part.conv_in.weight
            weight.mul_(30_000 / weight.abs().max())  # fits float16, what comes out of it does not
    theirs.vae.register_to_config(force_upcast=upcast)
    theirs.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu", dtype=torch.float16)
    options = {"steps": 4, "seed": SEED, "width": SIZE, "height": SIZE}
    for given in ({}, {"image": image, "strength": 0.5}):
        assert len(ours.generate(PROMPT, **options, **given)) == 1
    kept = torch.float32 if xl and upcast else torch.float16
    assert ours.folder.autoencoder.decoder.conv_in.weight.dtype == kept
    pixels = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    vae = theirs.vae.half().float()
    with torch.inference_mode():
        wanted = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    assert relative_error(ours.reconstruct(pixels), wanted) < 1e-4


@pytest.mark.parametrize("steps", [1, 4])
def test_a_latent_consistency_model_makes_diffusers_picture(text, steps, tmp_path):
    unet = small_unet(time_cond_proj_dim=16)
    theirs = _pipeline(LatentConsistencyModelPipeline, text, unet, LCMScheduler(**BETAS))
    wanted = theirs(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=8.5,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        height=SIZE,
        width=SIZE,
    ).images[0]
    theirs.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    made = ours.generate(PROMPT, steps=steps, seed=SEED, scale=8.5, width=SIZE, height=SIZE)
    _agree(made[0].image, wanted)
    assert made[0].manifest.sampler == "lcm"


def test_an_ordinary_model_samples_by_lcm_as_in_diffusers(text, tmp_path):
    theirs = _pipeline(StableDiffusionPipeline, text, small_unet(), LCMScheduler(**BETAS))
    wanted = _their_picture(theirs, guidance_scale=1.5, height=SIZE, width=SIZE)
    _agree(_our_picture(theirs, tmp_path, scale=1.5, width=SIZE, height=SIZE), wanted)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("xl", [False, True])
def test_a_turbo_model_makes_diffusers_picture(text, steps, xl, tmp_path):
    scheduler = EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    kind = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    theirs = _pipeline(kind, text, small_xl_unet() if xl else small_unet(), scheduler)
    options = {"height": SIZE, "width": SIZE}
    wanted = _their_picture(theirs, num_inference_steps=steps, guidance_scale=0.0, **options)
    _agree(_our_picture(theirs, tmp_path, steps=steps, scale=0.0, **options), wanted)


@pytest.mark.parametrize(
    ("unet", "options", "message"),
    [
        (9, {"image": True}, "it lacks a mask"),
        (9, {}, "it lacks an image and a mask"),
        (8, {}, "it lacks an image"),
        (8, {"image": True, "strength": 0.5}, "strength needs a model that begins from a picture"),
        (5, {"image": True}, "it lacks a depth map"),
        (4, {"mask": True}, "give the image too"),
        (5, {"mask": True, "image": True}, "lacks a depth map"),
        (4, {"image": True, "mask_blur": 2}, "mask_blur needs a mask"),
        (4, {"outpaint": Margins(3)}, "outpaint needs an image"),
        (4, {"image": True, "outpaint": Margins()}, "one above 0"),
        (9, {"image": True, "mask": True, "hires": Hires(2.0)}, "hires goes with a prompt"),
        (4, {"hires": Hires(1.0)}, "a scale above 1"),
        (4, {"hires": Hires(2.0, 0.1)}, "leaves none of 6 steps"),
        (4, {"strength": 0.5}, "strength needs an image"),
        (4, {"image": True, "strength": 0.01}, "leaves none of 6 steps"),
        (4, {"image": True, "strength": 1.5}, "strength should lie above 0 and up to 1"),
        (4, {"image_scale": 1.5}, "image_scale is for models that edit"),
        (4, {"noise_level": 1}, "noise_level is for upscalers"),
        (6, {}, "takes 6 channels"),
    ],
)
def test_a_mistake_is_told_in_a_line(text, image, mask, unet, options, message, tmp_path):
    _pipeline(StableDiffusionPipeline, text, small_unet(unet)).save_pretrained(tmp_path)
    pictures = {"image": image, "mask": mask}
    given = {key: pictures.get(key) if value is True else value for key, value in options.items()}
    with pytest.raises(SafelightError, match=message):
        _made(safelight.load(tmp_path, device="cpu"), **given)
