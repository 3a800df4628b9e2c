"""Image prompts by IP-Adapters against diffusers' `load_ip_adapter`: the same file, the same
picture.
"""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import safelight
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.ip_adapter import read_image_adapter, write_image_adapter
from safelight.errors import SafelightError
from safelight.models.image_adapter import Pictured
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.control_settings import Control
from safelight.pipelines.guidance_settings import Guidance
from safelight.types import Conditioning

from .conftest import relative_error, shaken
from .small import BETAS, WIDTH, small_tower, small_unet, small_vae, small_words, small_xl_unet

SIZE, SEED, STEPS = 32, 11, 4
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"
HIDDEN, VECTOR, PATCHES = 64, 48, 17
KINDS = ["plain", "plus", "full"]


def _picture(seed: int, size: tuple[int, int] = (40, 52)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def _state(unet, kind: str, context: int, seed: int = 3) -> dict[str, torch.Tensor]:
    """Random tensors in the layout of the authors' files."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    state: dict[str, torch.Tensor] = {}
    if kind == "plain":
        state["proj.weight"], state["proj.bias"] = draw(4 * context, VECTOR), draw(4 * context)
        state["norm.weight"], state["norm.bias"] = draw(context) + 1, draw(context)
    elif kind == "full":
        state["proj.0.weight"], state["proj.0.bias"] = draw(HIDDEN, HIDDEN), draw(HIDDEN)
        state["proj.2.weight"], state["proj.2.bias"] = draw(context, HIDDEN), draw(context)
        state["proj.3.weight"], state["proj.3.bias"] = draw(context) + 1, draw(context)
    else:
        width = 128
        state["latents"] = draw(1, 6, width)
        state["proj_in.weight"], state["proj_in.bias"] = draw(width, HIDDEN), draw(width)
        state["proj_out.weight"], state["proj_out.bias"] = draw(context, width), draw(context)
        state["norm_out.weight"], state["norm_out.bias"] = draw(context) + 1, draw(context)
        for i in range(4):
            for norm in ("0.norm1", "0.norm2", "1.0"):
                state[f"layers.{i}.{norm}.weight"] = draw(width) + 1
                state[f"layers.{i}.{norm}.bias"] = draw(width)
            state[f"layers.{i}.0.to_q.weight"] = draw(128, width)
            state[f"layers.{i}.0.to_kv.weight"] = draw(256, width)
            state[f"layers.{i}.0.to_out.weight"] = draw(width, 128)
            state[f"layers.{i}.1.1.weight"] = draw(4 * width, width)
            state[f"layers.{i}.1.3.weight"] = draw(width, 4 * width)
    whole = {f"image_proj.{name}": tensor for name, tensor in state.items()}
    for place, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            whole[f"ip_adapter.{place}.to_k_ip.weight"] = draw(width, context) * 3
            whole[f"ip_adapter.{place}.to_v_ip.weight"] = draw(width, context) * 3
    return whole


def _nested(state):
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


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


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """An image tower with how pictures are prepared for it, in folders as the authors lay them."""
    torch.manual_seed(7)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=96,
        projection_dim=VECTOR,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=28,
        patch_size=7,
        hidden_act="gelu",
    )
    tower = shaken(CLIPVisionModelWithProjection(config))
    folder = tmp_path_factory.mktemp("seen")
    tower.save_pretrained(folder / "image_encoder")
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28)
    return folder, {"image_encoder": tower, "feature_extractor": processor}


def _theirs(cls, unet, parts, seen, **more):
    extra = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}
    if cls is StableDiffusionXLPipeline:
        extra = {"force_zeros_for_empty_prompt": True}
    pipe = cls(unet=unet, **(parts | extra | seen[1] | more))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _run(pipe, **said):
    generator = torch.Generator().manual_seed(SEED)
    usual = {"height": SIZE, "width": SIZE} if "image" not in said else {}
    return pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=generator,
        **(usual | said),
    ).images[0]


def _difference(ours, theirs) -> int:
    return int(np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max())


def _saved(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    return safelight.load(str(tmp_path / "model"))


def _ours(pipeline, **said):
    usual = {"width": SIZE, "height": SIZE} if "image" not in said else {}
    [made] = pipeline.generate(
        PROMPT,
        negative=NEGATIVE,
        steps=STEPS,
        sampler="euler",
        seed=SEED,
        prompt_syntax="plain",
        **({"scale": 4.0} | usual | said),
    )
    return made.image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_one_picture_beside_the_prompt_is_diffusers(parts, seen, tmp_path, kind, suffix):
    unet = shaken(small_unet())
    state = _state(unet, kind, WIDTH)
    file = tmp_path / f"adapter.{suffix}"
    if suffix == "bin":
        torch.save(_nested(state), file)
    else:
        save_file(state, file)
    pipe = _theirs(StableDiffusionPipeline, unet, parts, seen)
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    plain = _run(pipe)
    pipe.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name=file.name, image_encoder_folder=None
    )
    pipe.set_ip_adapter_scale(0.7)
    wanted = _run(pipe, ip_adapter_image=_picture(1))
    pipeline.see_by(file, seen[0] / "image_encoder")
    made = _ours(pipeline, image_prompts=[ImagePrompt(_picture(1), 0.7)])
    assert _difference(made, wanted) <= 1
    assert _difference(plain, wanted) > 8
    assert _difference(_ours(pipeline), plain) <= 1  # without a picture it is the model's own


def test_two_pictures_are_two_adapters_of_diffusers(parts, seen, tmp_path):
    unet = shaken(small_unet())
    save_file(_state(unet, "plain", WIDTH), tmp_path / "adapter.safetensors")
    pipe = _theirs(StableDiffusionPipeline, unet, parts, seen)
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    pipe.load_ip_adapter(
        str(tmp_path),
        subfolder=["", ""],
        weight_name=["adapter.safetensors"] * 2,
        image_encoder_folder=None,
    )
    pipe.set_ip_adapter_scale([0.9, 0.3])
    wanted = _run(pipe, ip_adapter_image=[_picture(1), _picture(2)])
    pipeline.see_by(tmp_path / "adapter.safetensors", seen[0] / "image_encoder")
    prompts = [ImagePrompt(_picture(1), 0.9), ImagePrompt(_picture(2), 0.3)]
    assert _difference(_ours(pipeline, image_prompts=prompts), wanted) <= 1
    turned = [ImagePrompt(_picture(2), 0.9), ImagePrompt(_picture(1), 0.3)]
    assert _difference(_ours(pipeline, image_prompts=turned), wanted) > 4


def test_a_picture_to_begin_from_and_one_that_speaks(parts, seen, tmp_path):
    unet = shaken(small_unet())
    save_file(_state(unet, "plus", WIDTH), tmp_path / "adapter.safetensors")
    pipe = _theirs(StableDiffusionImg2ImgPipeline, unet, parts, seen)
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    pipe.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder=None
    )
    begun = _picture(4, (SIZE, SIZE))
    wanted = _run(pipe, image=begun, strength=0.75, ip_adapter_image=_picture(1))
    pipeline.see_by(tmp_path / "adapter.safetensors", seen[0] / "image_encoder")
    made = _ours(pipeline, image=begun, strength=0.75, image_prompts=[ImagePrompt(_picture(1))])
    assert _difference(made, wanted) <= 1


def test_a_controlnet_does_not_see_the_picture(parts, seen, tmp_path):
    unet = shaken(small_unet())
    save_file(_state(unet, "plain", WIDTH), tmp_path / "adapter.safetensors")
    network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    shaken(network)
    network.save_pretrained(tmp_path / "control")
    pipe = _theirs(StableDiffusionControlNetPipeline, unet, parts, seen, controlnet=network)
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    pipe.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder=None
    )
    pipe.set_ip_adapter_scale(0.8)
    hint = _picture(6, (SIZE, SIZE))
    generator = torch.Generator().manual_seed(SEED)
    wanted = pipe(
        PROMPT,
        image=hint,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=generator,
        ip_adapter_image=_picture(1),
    ).images[0]
    pipeline.see_by(tmp_path / "adapter.safetensors", seen[0] / "image_encoder")
    control = Control("edges", hint, hint=True, network=tmp_path / "control")
    made = _ours(pipeline, controls=[control], image_prompts=[ImagePrompt(_picture(1), 0.8)])
    assert _difference(made, wanted) <= 1


def test_stable_diffusion_xl(parts, seen, tmp_path):
    width = 2 * WIDTH
    size = len(parts["tokenizer"])
    second = small_tower(CLIPTextModelWithProjection, size)
    unet = shaken(small_xl_unet(context=width))
    two = {"tokenizer_2": parts["tokenizer"], "text_encoder_2": second}
    save_file(_state(unet, "plain", width), tmp_path / "adapter.safetensors")
    pipe = _theirs(StableDiffusionXLPipeline, unet, parts | two, seen)
    pipeline = _saved(_theirs(StableDiffusionXLPipeline, unet, parts | two, (None, {})), tmp_path)
    pipe.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder=None
    )
    pipe.set_ip_adapter_scale(0.6)
    wanted = _run(pipe, ip_adapter_image=_picture(1))
    pipeline.see_by(tmp_path / "adapter.safetensors", seen[0] / "image_encoder")
    made = _ours(pipeline, image_prompts=[ImagePrompt(_picture(1), 0.6)])
    assert _difference(made, wanted) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_diffusers(kind, tmp_path):
    theirs = shaken(small_unet())
    state = _state(theirs, kind, WIDTH)
    save_file(state, tmp_path / "adapter.safetensors")
    theirs.save_pretrained(tmp_path / "unet")
    ours, adapter = (
        read_unet(tmp_path / "unet"),
        read_image_adapter(tmp_path / "adapter.safetensors"),
    )
    theirs._load_ip_adapter_weights([_nested(state)])
    for processor in theirs.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.5]
    torch.manual_seed(1)
    seen = torch.randn(2, VECTOR) if kind == "plain" else torch.randn(2, PATCHES, HIDDEN)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0])
    context = torch.randn(2, 9, WIDTH)
    with torch.no_grad():
        tokens = adapter(seen)
        made = Pictured(ours, adapter, [0.5], tokens.shape[1])(
            x, t, Conditioning(context=context, pictures=(tokens,))
        )
        wanted = theirs(x, t, context, added_cond_kwargs={"image_embeds": [seen[:, None]]}).sample
    assert relative_error(made, wanted) < 1e-4


def test_it_goes_with_perturbed_attention_and_leaves_the_model_as_it_was(parts, seen, tmp_path):
    unet = shaken(small_unet())
    save_file(_state(unet, "plain", WIDTH), tmp_path / "adapter.safetensors")
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    before = _ours(pipeline)
    pipeline.see_by(tmp_path / "adapter.safetensors", seen[0] / "image_encoder")
    silent = _ours(pipeline, image_prompts=[ImagePrompt(_picture(1), 0.0)], scale=1.0)
    assert _difference(silent, _ours(pipeline, scale=1.0)) == 0
    shown = [ImagePrompt(_picture(1))]
    perturbed = _ours(pipeline, image_prompts=shown, guidance=Guidance(pag_scale=2.0))
    assert _difference(perturbed, _ours(pipeline, image_prompts=shown)) > 0
    own = _ours(pipeline, image_prompts=shown, image_prompt_scale=4.0)
    assert _difference(own, _ours(pipeline, image_prompts=shown)) <= 1
    further = _ours(pipeline, image_prompts=shown, image_prompt_scale=8.0)
    assert _difference(further, _ours(pipeline, image_prompts=shown)) > 2
    assert _difference(_ours(pipeline), before) == 0


def test_a_file_comes_back_and_is_told(tmp_path):
    state = _state(shaken(small_unet()), "plus", WIDTH)
    save_file(state, tmp_path / "adapter.safetensors")
    adapter = read_image_adapter(tmp_path / "adapter.safetensors")
    write_image_adapter(tmp_path / "again.safetensors", adapter)
    again = read_image_adapter(tmp_path / "again.safetensors")
    assert again.config == adapter.config
    assert set(again.state_dict()) == set(state)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in state.items())
    assert inspect(tmp_path / "adapter.safetensors").kind.startswith("an IP-Adapter plus, for")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {"x": torch.ones(1)}, "no IP-Adapter"),
        (lambda state: state | {"image_proj.extra": torch.ones(1)}, "extra"),
        (lambda state: {n: v for n, v in state.items() if "adapter.5." not in n}, "numbered 1, 3"),
        (
            lambda state: {n: v for n, v in state.items() if n != "image_proj.norm.bias"},
            "norm.bias",
        ),
        (
            lambda state: {n: v for n, v in state.items() if not n.startswith("image_proj")},
            "no known kind",
        ),
        (
            lambda state: state | {"ip_adapter.0.to_q_lora.down.weight": torch.ones(1, 1)},
            "FaceID",
        ),
        (lambda state: state | {"image_proj.proj.weight": torch.ones(5)}, "with 2 axes"),
    ],
)
def test_files_that_cannot_be_are_one_line(tmp_path, change, told):
    state = _state(shaken(small_unet()), "plain", WIDTH)
    save_file(change(state), tmp_path / "adapter.safetensors")
    with pytest.raises(SafelightError, match=told):
        read_image_adapter(tmp_path / "adapter.safetensors")


def test_what_does_not_fit_is_told(parts, seen, tmp_path):
    unet = shaken(small_unet())
    save_file(_state(unet, "plain", WIDTH + 8), tmp_path / "wide.safetensors")
    save_file(_state(unet, "plain", WIDTH), tmp_path / "adapter.safetensors")
    pipeline = _saved(_theirs(StableDiffusionPipeline, unet, parts, (None, {})), tmp_path)
    with pytest.raises(SafelightError, match="a context of width"):
        pipeline.see_by(tmp_path / "wide.safetensors", seen[0] / "image_encoder")
    with pytest.raises(SafelightError, match="no image encoder beside"):
        pipeline.see_by(tmp_path / "adapter.safetensors")
    with pytest.raises(SafelightError, match="brings no IP-Adapter"):
        _ours(pipeline, image_prompts=[ImagePrompt(_picture(1))])
    with pytest.raises(SafelightError, match="weight of an image prompt"):
        _ours(pipeline, image_prompts=[ImagePrompt(_picture(1), float("nan"))])
