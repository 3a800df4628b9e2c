"""Models that are told a picture by an image tower, against diffusers' pipelines and
transformers' tower.
"""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImageVariationPipeline,
    StableUnCLIPImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import safelight
from safelight.app.cli import main
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.model import read_model
from safelight.checkpoints.single_file import write_single_file
from safelight.checkpoints.vision_file import read_vision_parts, vision_state
from safelight.conditioners.image import prepared
from safelight.errors import SafelightError

from .conftest import relative_error, shaken
from .small import BETAS, WIDTH, small_tower, small_unet, small_vae, small_words

SEED, STEPS, VECTOR = 11, 5, 32
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"


@pytest.fixture(scope="module")
def image():
    """A picture that is neither square nor of the tower's size."""
    rows, columns = np.mgrid[0:50, 0:71]
    blue = np.where(columns > rows, 220, 30)
    return Image.fromarray(np.stack([rows * 5, columns * 3, blue], axis=-1).astype(np.uint8))


def _tower(act="quick_gelu"):
    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        projection_dim=VECTOR,
        num_hidden_layers=3,
        num_attention_heads=16,
        image_size=28,
        patch_size=7,
        hidden_act=act,
    )
    return shaken(CLIPVisionModelWithProjection(config))


def _features():
    return CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def _variation(scheduler=PNDMScheduler):
    options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
    return StableDiffusionImageVariationPipeline(
        vae=small_vae(),
        image_encoder=_tower(),
        unet=small_unet(context=VECTOR),
        scheduler=scheduler(**BETAS, **options),
        safety_checker=None,
        feature_extractor=_features(),
        requires_safety_checker=False,
    )


def _unclip(folder, noising="squaredcos_cap_v2"):
    folder.mkdir(exist_ok=True)
    words = small_words(folder, [PROMPT, NEGATIVE])
    normalizer = StableUnCLIPImageNormalizer(VECTOR)
    torch.nn.init.normal_(normalizer.mean, std=0.3)
    torch.nn.init.uniform_(normalizer.std, 0.5, 1.5)
    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=_features(),
        image_encoder=_tower("gelu"),
        image_normalizer=normalizer,
        image_noising_scheduler=DDPMScheduler(beta_schedule=noising),
        tokenizer=words,
        text_encoder=small_tower(CLIPTextModel, len(words)),
        unet=small_unet(
            context=WIDTH,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * VECTOR,
        ),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, prediction_type="v_prediction"),
        vae=small_vae(),
    )


def _theirs(pipeline, image, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        image,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **options,
    ).images[0]


def _agree(ours, theirs):
    wanted = np.round(theirs * 255)
    assert np.asarray(ours).shape == wanted.shape
    assert theirs.std() > 0.05  # a picture, not a plain colour
    assert np.abs(np.asarray(ours, dtype=np.float32) - wanted).max() <= 1


@pytest.mark.parametrize("scheduler", [PNDMScheduler, EulerAncestralDiscreteScheduler])
def test_variation_of_a_picture(tmp_path, image, scheduler):
    pipeline = _variation(scheduler)
    pipeline.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    made = ours.generate("", image=image, steps=STEPS, scale=4.0, seed=SEED)[0]
    _agree(made.image, _theirs(pipeline, image))
    assert {"image_encoder", "unet", "vae"} == set(made.manifest.weights)
    assert "feature_extractor/preprocessor_config.json" in made.manifest.configuration
    other = ours.generate("", image=image.rotate(90), steps=STEPS, scale=4.0, seed=SEED)[0]
    assert np.asarray(other.image).tolist() != np.asarray(made.image).tolist()


@pytest.mark.parametrize("level", [0, 250])
def test_unclip(tmp_path, image, level):
    pipeline = _unclip(tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "model")
    ours = safelight.load(tmp_path / "model", device="cpu")
    options = {"steps": STEPS, "scale": 4.0, "seed": SEED, "noise_level": level}
    made = ours.generate(PROMPT, negative=NEGATIVE, image=image, **options)[0]
    _agree(
        made.image,
        _theirs(pipeline, image, prompt=PROMPT, negative_prompt=NEGATIVE, noise_level=level),
    )
    assert made.manifest.noise_level == level


@pytest.mark.parametrize("kind", ["variation", "unclip"])
def test_written_folders_are_theirs_too(tmp_path, image, kind):
    pipeline = _variation() if kind == "variation" else _unclip(tmp_path / "words", "linear")
    pipeline.save_pretrained(tmp_path / "theirs")
    write_folder(tmp_path / "ours", read_folder(tmp_path / "theirs"))
    again = type(pipeline).from_pretrained(tmp_path / "ours")
    options = {"prompt": PROMPT, "noise_level": 99} if kind == "unclip" else {}
    first, second = (_theirs(p, image, **options) for p in (pipeline, again))
    assert np.abs(first - second).max() <= 1e-5


def test_image_tower(tmp_path, image):
    pipeline = _variation()
    pipeline.save_pretrained(tmp_path)
    vision = read_folder(tmp_path).vision
    pixels = pipeline.feature_extractor(images=image, return_tensors="pt").pixel_values
    ours = prepared(image, vision.preparation)
    assert relative_error(ours, pixels) < 1e-6
    with torch.no_grad():
        theirs = pipeline.image_encoder(pixels).image_embeds
        assert relative_error(vision.tower(ours), theirs) < 1e-5


def test_what_such_models_do_not_take(tmp_path, image):
    _variation().save_pretrained(tmp_path / "variation")
    ours = safelight.load(tmp_path / "variation", device="cpu")
    with pytest.raises(SafelightError, match="leave the prompt out"):
        ours.generate("a cube", image=image)
    with pytest.raises(SafelightError, match="from an image; it lacks an image"):
        ours.generate("")
    with pytest.raises(SafelightError, match="strength needs"):
        ours.generate("", image=image, strength=0.5)
    with pytest.raises(SafelightError, match="noise_level is for"):
        ours.generate("", image=image, noise_level=3)
    _unclip(tmp_path / "words").save_pretrained(tmp_path / "unclip")
    ours = safelight.load(tmp_path / "unclip", device="cpu")
    with pytest.raises(SafelightError, match="between 0 and 999"):
        ours.generate(PROMPT, image=image, noise_level=1000)


def test_parts_of_different_models(tmp_path):
    pipeline = _unclip(tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "model/image_normalizer/config.json").write_text(
        '{"_class_name": "StableUnCLIPImageNormalizer", "embedding_dim": 16}'
    )
    with pytest.raises(SafelightError, match="misshapen"):
        read_folder(tmp_path / "model")
    folder = tmp_path / "narrow"
    pipeline.register_modules(image_normalizer=StableUnCLIPImageNormalizer(16))
    pipeline.save_pretrained(folder)
    with pytest.raises(SafelightError, match="vectors of width 32, the normalizer takes 16"):
        read_folder(folder)
    processor = folder / "feature_extractor/preprocessor_config.json"
    text = processor.read_text().replace("28", "30")
    processor.write_text(text)
    with pytest.raises(SafelightError, match="cut to 30 pixels, the image tower takes 28"):
        read_folder(folder)


def test_single_file_of_unclip(tmp_path, image):
    """Ours is read again with all that its tensors do not show, and inspected."""
    pipeline = _unclip(tmp_path / "words", "linear")
    pipeline.save_pretrained(tmp_path / "model")
    whole = read_folder(tmp_path / "model")
    file = tmp_path / "whole.safetensors"
    write_single_file(file, whole)
    options = {"steps": STEPS, "scale": 4.0, "seed": SEED, "noise_level": 99}
    first, second = (
        safelight.load(path, device="cpu").generate(PROMPT, image=image, **options)[0].image
        for path in (tmp_path / "model", file)
    )
    assert np.array_equal(np.asarray(first), np.asarray(second))
    kind = inspect(file)
    assert kind.kind.startswith("a whole model of its own sizes, in the layout of Stable unCLIP")
    assert "image tower" in kind.parts
    write_folder(tmp_path / "again", read_model(file))
    again = StableUnCLIPImg2ImgPipeline.from_pretrained(tmp_path / "again")
    theirs = [_theirs(p, image, prompt=PROMPT, noise_level=9) for p in (pipeline, again)]
    assert np.abs(theirs[0] - theirs[1]).max() <= 1e-5


def test_published_layout_of_unclip(tmp_path):
    """Without our header: the tower's shape is read off its tensors, in OpenCLIP's names."""
    pipeline = _unclip(tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "model")
    whole = read_folder(tmp_path / "model")
    published = _open_clip_names(pipeline.image_encoder.state_dict())
    ours = vision_state(whole.vision, "embedder.model.visual.")
    spread = {f"noise_augmentor.data_{name}" for name in ("mean", "std")}
    assert {f"embedder.model.visual.{name}" for name in published} | spread == ours.keys()
    for name, tensor in published.items():
        assert torch.equal(ours[f"embedder.model.visual.{name}"], tensor), name
    read = read_vision_parts(published, {}, {}, source="a file", dtype=torch.float32, device="cpu")
    assert read.tower.config.image_size == 28
    assert read.tower.config.num_attention_heads == 16
    assert read.noising.scheduler.beta_schedule == "squaredcos_cap_v2"
    assert read.noising.normalizer.std.unique().tolist() == [1.0]
    for name, tensor in whole.vision.tower.state_dict().items():
        assert torch.equal(read.tower.state_dict()[name], tensor), name


def _open_clip_names(theirs):
    """transformers' image tower under OpenCLIP's names, written down apart from our tables."""
    blocks = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc"}
    blocks |= {"mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    tower = {key.removeprefix("vision_model."): value for key, value in theirs.items()}
    named = {
        "class_embedding": tower["embeddings.class_embedding"],
        "positional_embedding": tower["embeddings.position_embedding.weight"],
        "conv1.weight": tower["embeddings.patch_embedding.weight"],
        "proj": tower["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        named[f"ln_pre.{kind}"] = tower[f"pre_layrnorm.{kind}"]
        named[f"ln_post.{kind}"] = tower[f"post_layernorm.{kind}"]
        for i in range(3):
            block = f"transformer.resblocks.{i}"
            layer = f"encoder.layers.{i}"
            for mine, other in blocks.items():
                named[f"{block}.{other}.{kind}"] = tower[f"{layer}.{mine}.{kind}"]
            parts = [tower[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            named[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    return named


def test_a_variation_needs_no_prompt_on_the_command_line(tmp_path, image):
    image.save(tmp_path / "given.png")
    _variation().save_pretrained(tmp_path / "model")
    options = ["--model", str(tmp_path / "model"), "--image", str(tmp_path / "given.png")]
    made = tmp_path / "made.png"
    assert main(["generate", *options, "--steps", "3", "--device", "cpu", "-o", str(made)]) == 0
    assert Image.open(made).size == (32, 32)  # the model's own size, not the picture's
    assert main(["rerun", str(made)]) == 0
    again = np.asarray(Image.open(tmp_path / "made-rerun.png"))
    assert np.array_equal(again, np.asarray(Image.open(made)))
