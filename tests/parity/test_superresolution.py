"""CompVis' super-resolution against diffusers' `LDMSuperResolutionPipeline` and `UNet2DModel`."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMSuperResolutionPipeline, PNDMScheduler, UNet2DModel, VQModel
from PIL import Image
from safetensors.torch import load_file, save_file

from safelight.app.cli import main
from safelight.checkpoints.components import read_unet, write_unet
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.tables.autoencoder import VQ
from safelight.checkpoints.tables.compvis import autoencoder_table
from safelight.checkpoints.tables.unet2d import (
    unet2d_config_from_diffusers,
    unet2d_config_to_diffusers,
)
from safelight.checkpoints.upscaler import read_upscaler
from safelight.errors import SafelightError
from safelight.models.unet import UNet, UNetConfig
from safelight.pipelines.picture_files import read_manifest
from safelight.pipelines.upscale import load_enlarger, upscale
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken

STEPS, SEED = 20, 7
SMALL = {
    "sample_size": 32,
    "in_channels": 6,
    "out_channels": 3,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 16,
}
SHAPES = {
    "super-resolution": SMALL,
    "one-head": SMALL | {"attention_head_dim": None, "freq_shift": 1, "flip_sin_to_cos": False},
    "attends-everywhere": SMALL
    | {
        "down_block_types": ("AttnDownBlock2D",) * 2,
        "up_block_types": ("AttnUpBlock2D",) * 2,
        "layers_per_block": 2,
    },
}
PUBLISHED = {  # CompVis/latent-diffusion, models/ldm/bsr_sr/config.yaml, in diffusers' words
    "_class_name": "UNet2DModel",
    "in_channels": 6,
    "out_channels": 3,
    "sample_size": 64,
    "block_out_channels": [160, 320, 320, 640],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"],
    "attention_head_dim": 32,
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_unet_agrees_with_diffusers_and_is_read_back_by_it(name, tmp_path):
    theirs = shaken(UNet2DModel(**SHAPES[name]))
    ours = read_unet(saved(theirs, tmp_path / "theirs"))
    x, t = torch.randn(2, 6, 8, 12), torch.tensor([3, 700])
    wanted = theirs(x, t).sample
    small = Conditioning(concat=x[:, 3:])
    assert relative_error(ours(x[:, :3], t.float(), small), wanted) < 2e-5
    write_unet(tmp_path / "ours", ours)
    again = UNet2DModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again(x, t).sample, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_its_configuration_survives_the_way_there_and_back(name):
    theirs = json.loads(UNet2DModel(**SHAPES[name]).to_json_string())
    ours = unet2d_config_from_diffusers(theirs)
    written = unet2d_config_to_diffusers(ours)
    assert unet2d_config_from_diffusers(written) == ours
    assert written.keys() >= {key for key in theirs if not key.startswith("_")}


def test_the_published_shape_is_built():
    with torch.device("meta"):
        ours = UNet(unet2d_config_from_diffusers(PUBLISHED))
        theirs = UNet2DModel.from_config(PUBLISHED)
    shapes = [sorted(tuple(t.shape) for t in net.state_dict().values()) for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_the_attention_names_of_old_files_are_read(tmp_path):
    theirs = shaken(UNet2DModel(**SMALL))
    saved(theirs, tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in olds.items():
        state = {key.replace(f".{new}.", f".{old}."): tensor for key, tensor in state.items()}
    assert any(".proj_attn." in name for name in state)
    save_file(state, weights, metadata={"format": "pt"})
    x = torch.randn(1, 6, 8, 8)
    ours = read_unet(tmp_path)(x[:, :3], torch.tensor([9.0]), Conditioning(concat=x[:, 3:]))
    assert relative_error(ours, theirs(x, 9).sample) < 2e-5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"down_block_types": ["SkipDownBlock2D"] * 4}, "SkipDownBlock2D"),
        ({"attention_head_dim": 33}, "do not split into heads of 33"),
        ({"add_attention": False}, "add_attention"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
    ],
)
def test_a_part_that_is_not_built_is_named_in_one_line(change, named):
    with pytest.raises(SafelightError, match=named) as raised:
        unet2d_config_from_diffusers(PUBLISHED | change)
    assert "\n" not in str(raised.value)


def test_self_attention_has_no_context():
    with pytest.raises(ValueError, match="looks at no context"):
        UNetConfig(self_attention=True)


def _pipeline(scheduler, **unet):
    torch.manual_seed(2)
    vqvae = VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        num_vq_embeddings=64,
        latent_channels=3,
    )
    network = shaken(UNet2DModel(**SMALL | unet))
    pipeline = LDMSuperResolutionPipeline(shaken(vqvae), network, scheduler)
    with torch.no_grad():  # a codebook as wide as the latents, so that rows differ
        vqvae.quantize.embedding.weight.copy_(torch.randn(64, 3))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


BETAS = {"beta_start": 0.0015, "beta_end": 0.0155, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(**BETAS, clip_sample=False),
    "plms": lambda: PNDMScheduler(**BETAS, skip_prk_steps=True),
}


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_picture_agrees_with_diffusers(sampler, tmp_path):
    theirs = _pipeline(SCHEDULERS[sampler]())
    theirs.save_pretrained(tmp_path)
    levels = torch.randint(0, 256, (40, 70, 3), dtype=torch.uint8).numpy()
    image = Image.fromarray(levels)
    wanted = theirs(
        image,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    ).images[0]
    assert wanted.std() > 0.05
    seen = []
    made = upscale(
        read_upscaler(tmp_path),
        image,
        steps=STEPS,
        seed=SEED,
        on_step=lambda step, sigma, x, denoised: seen.append(step),
    )
    assert made.size == (128, 64)  # twice 64 x 32, which is what is left of 70 x 40
    assert len(seen) == STEPS
    assert np.abs(np.asarray(made, dtype=np.float32) - wanted * 255).max() <= 1


def test_the_command_enlarges_without_a_prompt_and_makes_it_again(tmp_path, capsys):
    _pipeline(SCHEDULERS["ddim"]()).save_pretrained(tmp_path / "model")
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 70, 3), dtype=np.uint8)).save(
        tmp_path / "small.png"
    )
    told = ["--model", str(tmp_path / "model"), "--image", str(tmp_path / "small.png")]
    command = ["generate", *told, "--device", "cpu", "--steps", "3", "--seed", "5"]
    assert main([*command, "--count", "2", "-o", str(tmp_path / "large.png")]) == 0
    made = [np.asarray(Image.open(tmp_path / f"large-{number}.png")) for number in (0, 1)]
    wanted = upscale(
        read_upscaler(tmp_path / "model"), Image.open(tmp_path / "small.png"), steps=3, seed=6
    )
    assert (made[1] == np.asarray(wanted)).all()
    assert (made[0] != made[1]).any()
    manifest = read_manifest(tmp_path / "large-1.png")
    assert (manifest.seed, manifest.steps, manifest.width, manifest.height) == (6, 3, 128, 64)
    assert manifest.weights.keys() == {"unet", "vqvae"}
    assert {"model_index.json", "scheduler/scheduler_config.json"} <= manifest.configuration.keys()
    assert main(["rerun", str(tmp_path / "large-1.png")]) == 0
    capsys.readouterr()
    assert main([*command, "--lora", "a", "--scale", "2"]) == 2
    assert "takes no --scale, --lora" in capsys.readouterr().err
    _refused("The model 'default' needs a PROMPT", lambda: load_enlarger("default", device="cpu"))


def _refused(match, call):
    with pytest.raises(SafelightError, match=match) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_mistakes_are_one_line(tmp_path):
    _refused("expected a LDMSuperResolutionPipeline folder", lambda: read_upscaler(tmp_path))
    _pipeline(SCHEDULERS["ddim"]()).save_pretrained(tmp_path / "a")
    upscaler = read_upscaler(tmp_path / "a")
    _refused("32 x 32 pixels or more, got 64 x 31", lambda: upscale(upscaler, _image(64, 31)))
    _refused("steps should be 1 or more", lambda: upscale(upscaler, _image(32, 32), steps=0))
    _pipeline(SCHEDULERS["ddim"](), in_channels=7).save_pretrained(tmp_path / "b")
    _refused("takes 7 channels and makes 3; expected 6", lambda: read_upscaler(tmp_path / "b"))


def _image(width, height):
    return Image.new("RGB", (width, height))


HEADS_OF_32 = SMALL | {"block_out_channels": (64, 96), "attention_head_dim": 32}


def _compvis_unet(theirs):
    """diffusers' U-Net under CompVis' names, with its queries, keys and values in one convolution,
    written down apart from our tables.
    """
    blocks = {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    layers = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    layers |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    layers |= {"group_norm": "norm", "to_out.0": "proj_out"}
    named, state = {}, theirs.state_dict()
    for key, tensor in state.items():
        block = next(name for name in blocks if key.startswith(f"{name}."))
        layer, _, kind = key.removeprefix(f"{block}.").rpartition(".")
        if layer in ("to_k", "to_v"):
            continue
        if layer == "to_q":
            layer = "qkv"
            parts = [state[f"{block}.to_{part}.{kind}"] for part in "qkv"]
            heads = [part.reshape(-1, 32, *part.shape[1:]) for part in parts]
            tensor = torch.stack(heads, dim=1).reshape(-1, *tensor.shape[1:])
        if ".attentions." in key and kind == "weight" and layer != "group_norm":
            tensor = tensor[..., None]
        name = ".".join(part for part in (blocks[block], layers.get(layer, layer), kind) if part)
        named[f"model.diffusion_model.{name}"] = tensor
    return named


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_compvis_one_file_makes_the_folders_picture(tmp_path, suffix):
    pipeline = _pipeline(SCHEDULERS["ddim"](), **HEADS_OF_32)
    pipeline.scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0155,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline.save_pretrained(tmp_path / "folder")
    folder = read_upscaler(tmp_path / "folder")
    state = _compvis_unet(pipeline.unet)
    coders = from_ours(VQ, folder.autoencoder.state_dict())
    levels = len(folder.autoencoder.config.block_out_channels)
    state |= {
        f"first_stage_model.{name}": tensor
        for name, tensor in from_ours(autoencoder_table(levels), coders).items()
    }
    state["model_ema.decay"] = torch.tensor(0.5)
    file = tmp_path / f"bsr.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": state}, file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    assert inspect(file).kind == "CompVis' super-resolution, a whole model"
    one = read_upscaler(file)
    for name, tensor in folder.unet.state_dict().items():
        assert torch.equal(one.unet.state_dict()[name], tensor), name
    made, wanted = (upscale(model, _image(64, 64), steps=4, seed=SEED) for model in (one, folder))
    # the weights lie elsewhere in memory, so that sums round otherwise, and a rare code is another
    assert (np.asarray(made) != np.asarray(wanted)).mean() < 0.01
    _image(64, 64).save(tmp_path / "small.png")
    command = ["generate", "--model", str(file), "--image", str(tmp_path / "small.png")]
    target = tmp_path / "large.png"
    assert main([*command, "--device", "cpu", "--steps", "4", "-o", str(target)]) == 0
    assert read_manifest(target).configuration == {}
    assert main(["rerun", str(target)]) == 0


def test_heads_of_another_width_are_one_line(tmp_path):
    state = _compvis_unet(shaken(UNet2DModel(**HEADS_OF_32)))
    key = "model.diffusion_model.middle_block.1.qkv.weight"
    state |= {key: torch.ones(100, 96, 1), "first_stage_model.x": torch.ones(1)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "a.st")
    _refused("expected heads of 32 channels", lambda: read_upscaler(tmp_path / "a.st"))
