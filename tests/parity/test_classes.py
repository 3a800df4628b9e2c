"""CompVis' class-conditional single file, against diffusers' networks with the same weights."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel

import safelight
from safelight.app.cli import main
from safelight.checkpoints.folder import write_folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.single_file import read_single_file, write_single_file
from safelight.checkpoints.tables import compvis
from safelight.checkpoints.tables.unet import unet_config_from_diffusers
from safelight.errors import SafelightError
from safelight.types import Conditioning

from .conftest import relative_error, shaken

CLASSES, WIDTH, STEPS, SIZE, SEED = 5, 16, 20, 16, 7
NAMES = "tench, Tinca tinca\ngoldfish\ngreat white shark\nhen\nostrich, Struthio camelus\n"


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=1,  # the number of heads
        cross_attention_dim=WIDTH,
    )
    vqvae = VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=2,
        latent_channels=3,
        num_vq_embeddings=64,
        scaling_factor=1.0,
    )
    shaken(vqvae)
    with torch.no_grad():
        vqvae.quantize.embedding.weight.copy_(torch.randn(64, 3))
        table = torch.randn(CLASSES + 1, WIDTH)
    return shaken(unet), vqvae, table


@pytest.fixture
def file(theirs, tmp_path):
    return _saved(theirs, tmp_path / "model.ckpt")


def _saved(theirs, path, **changed):
    unet, vqvae, table = theirs
    config = unet_config_from_diffusers({k: v for k, v in unet.config.items() if k[0] != "_"})
    network = from_ours(compvis.unet_table(config), unet.state_dict())
    coders = from_ours(compvis.autoencoder_table(2), vqvae.state_dict())
    state = {f"model.diffusion_model.{key}": tensor for key, tensor in network.items()}
    state |= {f"first_stage_model.{key}": tensor for key, tensor in coders.items()}
    state |= {"cond_stage_model.embedding.weight": table, "betas": torch.zeros(3)}
    torch.save({"state_dict": state | changed}, path)
    return path


def _picture(theirs, number, null=CLASSES, scale=3.0):
    unet, vqvae, table = theirs
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(STEPS)
    x = torch.randn((1, 3, SIZE // 2, SIZE // 2), generator=torch.Generator().manual_seed(SEED))
    context = table[[null, number]][:, None]
    for t in scheduler.timesteps:
        without, steered = unet(torch.cat([x, x]), t, context).sample.chunk(2)
        x = scheduler.step(without + scale * (steered - without), t, x).prev_sample
    return (vqvae.decode(x).sample[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()


def _made(pipeline, prompt, **options):
    asked = {"steps": STEPS, "seed": SEED, "width": SIZE, "height": SIZE} | options
    [made] = pipeline.generate(prompt, **asked)
    return np.asarray(made.image, dtype=np.float32)


def test_the_networks_are_told_by_their_tensors(theirs, file):
    folder = read_single_file(file)
    unet, vqvae, table = theirs
    assert torch.equal(folder.text_towers[0].embedding.weight, table)
    assert folder.unet.config.attention_heads == (1, 1)
    assert folder.defaults.scale == 3.0
    z, t, context = torch.randn(1, 3, 8, 8), torch.tensor([500.0]), table[None, 2:3]
    ours = folder.unet(z, t, Conditioning(context=context))
    assert relative_error(ours, unet(z, t, context).sample) < 2e-5
    assert relative_error(folder.autoencoder.decode(z), vqvae.decode(z).sample) < 2e-5
    assert "class-conditional model" in inspect(file).kind


@pytest.mark.parametrize(("prompt", "negative"), [("3", ""), ("0", ""), ("1", "4")])
def test_a_picture_agrees_with_diffusers(theirs, file, prompt, negative):
    null = int(negative) if negative else CLASSES
    wanted = _picture(theirs, int(prompt), null)
    assert wanted.std() > 0.05
    made = _made(safelight.load(file, device="cpu"), prompt, negative=negative)
    assert np.abs(made - wanted * 255).max() <= 1


def test_classes_have_names_where_a_file_beside_gives_them(file, tmp_path):
    numbers = safelight.load(file, device="cpu")
    (tmp_path / "classes.txt").write_text(NAMES)
    pipeline = safelight.load(file, device="cpu")
    assert set(pipeline.weights) == {"model", "classes"}
    for name, number in (("Hen", "3"), ("struthio camelus", "4"), ("tench, tinca tinca", "0")):
        assert (_made(pipeline, name) == _made(numbers, number)).all()
    assert (_made(pipeline, "1") != _made(pipeline, "2")).any()
    with pytest.raises(SafelightError, match=r"or a name, got 'ostrick'.*'ostrich'"):
        pipeline.generate("ostrick")
    (tmp_path / "classes.txt").write_text("hen\n")
    with pytest.raises(SafelightError, match="names 1 classes, its model has 5"):
        safelight.load(file, device="cpu")


@pytest.mark.parametrize("prompt", ["5", "-1", "hen", "9" * 5000])
def test_what_is_no_class_is_one_line_before_anything_is_made(file, prompt, tmp_path, capsys):
    arguments = ["generate", prompt, "--model", str(file), "--device", "cpu"]
    code = main(["generate", f" {prompt}", *arguments[2:], "-o", str(tmp_path / "x.png")])
    captured = capsys.readouterr()
    assert code == 2
    assert "expected a number from 0 to 4" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_a_picture_by_the_command_line_comes_again(file, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text(NAMES)
    to = ["--device", "cpu", "--steps", "2", "--width", "16", "--height", "16"]
    out = str(tmp_path / "x.png")
    assert main(["generate", "hen", "--model", str(file), *to, "-o", out]) == 0
    assert main(["rerun", out]) == 0
    assert "the same pixels" in capsys.readouterr().err
    (tmp_path / "classes.txt").write_text(NAMES.replace("goldfish", "gold fish"))
    assert main(["rerun", out]) == 2
    assert "classes (" in capsys.readouterr().err


def test_what_cannot_be_is_one_line(theirs, file, tmp_path):
    folder = read_single_file(file)
    with pytest.raises(SafelightError, match="no folder for a model of classes"):
        write_folder(tmp_path / "never", folder)
    with pytest.raises(SafelightError, match="no layout of one file"):
        write_single_file(tmp_path / "never.safetensors", folder)
    assert not (tmp_path / "never").exists()
    first = _saved(
        theirs,
        tmp_path / "first.ckpt",
        **{"cond_stage_model.embedding.weight": torch.zeros(1000, WIDTH)},
    )
    with pytest.raises(SafelightError, match=r"shape \(1000, 16\); expected a row for each class"):
        read_single_file(first)
