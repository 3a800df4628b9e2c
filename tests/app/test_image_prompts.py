"""Pictures that speak beside the prompt: learned by a recipe, from the command line, made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.app.cli import main
from safelight.app.training import run_recipe
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.errors import SafelightError
from safelight.models.clip_vision import ClipVision
from safelight.pipelines.beginning import Led
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.guidance_settings import Guidance
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.image_prompts import joined_prompts
from safelight.pipelines.load import load
from safelight.pipelines.request import Request
from tiny_model import SIZE, seeing_folder, write_tiny_model

RECIPE = """
kind = "latent"
output = "out"
base = "model"
data = {folders = [{path = "pictures"}], size = 32}
conditions = [{kind = "image", encoder = "seen/image_encoder", tokens = 3, dropout = 0.3}]
[optim]
lr = 1e-2
warmup = 1
[loop]
steps = 3
batch_size = 4
tensorboard = false
preview_every = 3
[preview]
columns = 2
steps = 2
"""


def _picture(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, an image tower, pictures, and a training under other pictures."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("variations")
    write_tiny_model(folder / "model")
    write_folder(folder / "seen", seeing_folder())
    (folder / "pictures").mkdir()
    for i in range(6):
        _picture(i).save(folder / f"pictures/a red cube {i}.png")
    (folder / "recipe.toml").write_text(RECIPE)
    run_recipe(folder / "recipe.toml", ())
    return folder


@pytest.fixture(scope="module")
def pipeline(workshop: Path) -> ImagePipeline:
    return load(workshop / "out/model")


def _made(pipeline: ImagePipeline, *prompts: ImagePrompt, **others):
    said = {"steps": 2, "seed": 1, "scale": 3.0} | others
    [made] = pipeline.generate("a red cube", image_prompts=prompts, **said)
    return np.asarray(made.image, dtype=int)


def test_u_net_and_adapter_learn_and_come_back(workshop: Path):
    folder = read_folder(workshop / "out/model")
    assert [condition.kind for condition in folder.beside.conditions] == ["image"]
    assert folder.beside.adapter is not None
    assert folder.beside.adapter.config.tokens == 3
    before, after = (read_unet(workshop / f"{path}model/unet") for path in ("", "out/"))
    assert before.config == after.config
    pair = folder.beside.adapter.ip_adapter["1"]
    layer = dict(before.named_modules())["down_blocks.0.attentions.0.transformer_blocks.0.attn2"]
    assert not torch.equal(pair.to_k_ip.weight, layer.to_k.weight)  # where it began


def test_a_training_goes_on_from_it(workshop: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(workshop)
    overrides = (f'output="{tmp_path}/out"', 'base="out/model"', "loop.steps=1")
    run_recipe(workshop / "recipe.toml", overrides)
    former, now = (read_folder(path / "out/model").beside for path in (workshop, tmp_path))
    assert former.conditions == now.conditions
    assert former.adapter is not None
    assert now.adapter is not None
    assert former.adapter.config == now.adapter.config


def test_pictures_speak_by_their_weights_and_silent_ones_do_not(pipeline: ImagePipeline):
    one, two = ImagePrompt(_picture(20)), ImagePrompt(_picture(21))
    said = _made(pipeline, one)
    assert (said != _made(pipeline)).any()
    assert (said != _made(pipeline, two)).any()
    assert (said != _made(pipeline, one, two)).any()
    silent = _made(pipeline, ImagePrompt(_picture(20), 0.0), scale=1.0)
    assert (silent == _made(pipeline, scale=1.0)).all()


def test_a_picture_is_looked_at_once(workshop: Path, monkeypatch):
    pipeline = load(workshop / "out/model")
    looked: list[int] = []
    run = ClipVision.forward

    def counted(tower: ClipVision, pixels: torch.Tensor) -> torch.Tensor:
        looked.append(len(pixels))
        return run(tower, pixels)

    monkeypatch.setattr(ClipVision, "forward", counted)
    shown = [ImagePrompt(_picture(20)), ImagePrompt(_picture(20), 0.5), ImagePrompt(_picture(21))]
    pipeline.generate("a red cube", steps=1, count=2, image_prompts=shown)
    assert looked == [1, 1, 1]  # two pictures, and what stands for none


def test_a_scale_of_their_own(pipeline: ImagePipeline):
    shown = ImagePrompt(_picture(20))
    plain = _made(pipeline, shown)
    assert abs(_made(pipeline, shown, image_prompt_scale=3.0) - plain).max() <= 1  # the prompt's
    assert abs(_made(pipeline, shown, image_prompt_scale=9.0) - plain).max() > 1


@pytest.mark.parametrize(
    ("option", "message"),
    [({"quality": "fast"}, "quality fast"), ({"token_merging": 0.5}, "token")],
)
def test_what_they_do_not_go_with(pipeline: ImagePipeline, option, message: str):
    with pytest.raises(SafelightError, match=f"{message}.* does not go with image prompts"):
        _made(pipeline, ImagePrompt(_picture(1)), **option)


def test_rows_of_a_batch_have_pictures_of_their_own(pipeline: ImagePipeline):
    settings = pipeline.settle(Request("a red cube", steps=2, scale=3.0))
    rows = [
        pipeline.read(Request("", image_prompts=(ImagePrompt(_picture(seed), 0.7),)))
        for seed in (20, 21)
    ]
    prompts = [row.image_prompts for row in rows if row.image_prompts is not None]
    led = Led(image_prompts=joined_prompts(prompts))
    both = pipeline.sample(["a red cube"] * 2, [1, 1], settings, led=led)
    for place, row in enumerate(rows):
        one = pipeline.sample(["a red cube"], [1], settings, led=row)
        torch.testing.assert_close(both[place], one[0], atol=1e-4, rtol=0)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_from_the_command_line_and_made_again(workshop: Path, tmp_path: Path, capsys):
    _picture(20).save(tmp_path / "one.png")
    _picture(21).save(tmp_path / "two.png")
    own = ["generate", "a red cube", "--model", str(workshop / "out/model"), "--steps", "2"]
    own += ["--image-prompt", f"{tmp_path / 'one.png'}:0.6"]
    own += ["--image-prompt", str(tmp_path / "two.png"), "--image-prompt-scale", "2"]
    adapter = workshop / "out/model/ip_adapter/ip_adapter.safetensors"
    other = ["generate", "a red cube", "--model", str(workshop / "model"), "--steps", "2"]
    other += ["--image-prompt", str(tmp_path / "one.png"), "--ip-adapter", str(adapter)]
    other += ["--image-encoder", str(workshop / "seen/image_encoder")]
    for said in (own, other):
        assert main([*said, "-o", str(tmp_path / "made.png")]) == 0
        capsys.readouterr()
        assert main(["rerun", str(tmp_path / "made.png"), "-o", str(tmp_path / "again.png")]) == 0
        assert "the same pixels" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "made.png")]) == 0
    used = json.loads(capsys.readouterr().out)["image_prompts"]
    assert used["weights"] == [1.0]
    assert used["adapter"]["file"] == str(adapter)
    _picture(22).save(tmp_path / "one.png")
    assert main(["rerun", str(tmp_path / "made.png")]) == 2
    assert "is not the picture of an image prompt then" in capsys.readouterr().err


def test_an_adapter_goes_along_when_a_model_is_converted(workshop: Path, tmp_path: Path):
    assert main(["convert", str(workshop / "model"), str(tmp_path / "plain")]) == 0
    own = workshop / "out/model/ip_adapter"
    shutil.copytree(own, tmp_path / "plain/ip_adapter")  # put there by hand
    assert main(["convert", str(tmp_path / "plain"), str(tmp_path / "again")]) == 0
    for file in own.iterdir():
        assert (tmp_path / "again/ip_adapter" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--ip-adapter", "a.safetensors"], "give --image-prompt FILE too"),
        (["--image-prompt", "none.png"], "There is no picture none.png"),
        (["--image-prompt", "PICTURE"], "brings no IP-Adapter"),
        (["--image-prompt", "PICTURE", "--image-encoder", "x"], "that of an --ip-adapter"),
        (["--image-prompt", "PICTURE:nan"], "weight of an image prompt"),
    ],
)
def test_options_that_cannot_be(workshop: Path, options, told: str, capsys):
    picture = str(workshop / "pictures/a red cube 1.png")
    said = [option.replace("PICTURE", picture) for option in options]
    assert main(["generate", "a cube", "--model", str(workshop / "model"), *said]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_guidance_that_does_not_go_with_a_scale_of_their_own(pipeline: ImagePipeline):
    with pytest.raises(SafelightError, match="perp_neg does not go with the own scale"):
        _made(
            pipeline,
            ImagePrompt(_picture(1)),
            image_prompt_scale=2.0,
            negative="x",
            guidance=Guidance(perp_neg=1.0),
        )
