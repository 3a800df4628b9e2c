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
