"""Trainings of video models by recipe, on a tiny model."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from safelight.app.recipe import VideoRecipe, read_recipe
from safelight.app.training import run_recipe
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.errors import SafelightError
from safelight.models.video import VideoUNet, new_parameters
from safelight.types import Conditioning
from tiny_model import SIZE, seeing_folder, tiny_folder

pytest.importorskip("cv2")

RECIPE = """
kind = "video"
output = "video"
base = "model"
data = {folders = [{path = "clips"}], size = 32}
[clips]
frames = 4
strides = [1, 2]
[video]
narrow = 2
number_dim = 8
first = 0.5
last = 0.5
[optim]
lr = 3e-3
warmup = 1
[loop]
steps = 4
batch_size = 3
tensorboard = false
preview_every = 4
[preview]
columns = 2
steps = 2
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, clips and stills, and a recipe."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("video")
    write_folder(folder / "model", tiny_folder())
    for name in ("clips", "stills"):
        (folder / name).mkdir()
    rows = []
    for i in range(4):
        frames = []
        for k in range(9):
            frame = Image.new("RGB", (SIZE, SIZE), "white")
            x = 2 + (i + 1) * k / 2
            ImageDraw.Draw(frame).ellipse((x, 8, x + 12, 20), fill="red")
            frames.append(frame)
        path = folder / "clips" / f"{i}.webp"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        frames[0].save(folder / "stills" / f"a red cube {i}.png")
        rows.append({"file_name": f"{i}.webp", "text": "a red cube"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "clips" / "metadata.jsonl").write_text(text)
    (folder / "video.toml").write_text(RECIPE)
    return folder


def trained(workshop: Path, output: Path, *overrides: str, resume: bool = False) -> VideoUNet:
    run_recipe(workshop / "video.toml", (f'output="{output}"', *overrides), resume=resume)
    unet = read_unet(output / "model" / "unet")
    assert isinstance(unet, VideoUNet)
    return unet


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_layers_of_pictures_stay_and_what_is_new_learns(workshop: Path, tmp_path: Path):
    before = hashes(workshop / "model")
    unet = trained(workshop, tmp_path / "whole", "optim.weight_decay=0.5")
    assert hashes(workshop / "model") == before
    new, state = set(new_parameters(unet)), unet.state_dict()
    base = read_unet(workshop / "model/unet")
    for name, tensor in base.state_dict().items():
        if name == "conv_in.weight":
            assert torch.equal(state[name][:, :4], tensor)
            assert float(state[name][:, 4:].abs().max()) > 0
        else:
            there = name if name in state else _in_video(name, state)
            assert there not in new
            assert torch.equal(state[there], tensor), name
    x, t, context = torch.randn(2, 4, 8, 8), torch.full((2,), 500.0), torch.randn(2, 5, 32)
    cond = Conditioning(context, vector=torch.zeros(2, 16), concat=torch.zeros(2, 5, 8, 8))
    with torch.no_grad():
        still = unet(x, t, cond)
        moving = unet(x, t, replace(cond, num_frames=2))
    assert not torch.allclose(still, moving, atol=1e-4)
    with Image.open(tmp_path / "whole/previews/step_0000004.png") as preview:
        assert preview.size == (4 * SIZE, 2 * 3 * SIZE)  # real, of a first frame, of the caption
    folder = read_folder(tmp_path / "whole/model")
    assert folder.pipeline_class == "SafelightVideoPipeline"
    assert (folder.defaults.fps, folder.defaults.width) == (10.0, SIZE)
    assert 0 < (folder.defaults.motion or 0) < 255


def _in_video(name: str, state: dict[str, torch.Tensor]) -> str:
    """The name under which a weight of a picture's U-Net lies in a video U-Net."""
    parts = name.split(".")
    place = parts.index("resnets") + 2
    longer = ".".join([*parts[:place], "spatial_res_block", *parts[place:]])
    assert longer in state
    return longer


@pytest.mark.parametrize(
    "changed",
    [
        (),
        (
            'video.layers="all"',
            "optim.fresh_lr=4.0",
            'stills={folders=[{path="STILLS"}],share=0.5}',
            "optim.accumulate=2",
        ),
        ('video.given="repeated"', "video.last=0.15", 'video.numbers=["motion"]'),
        (
            "video.noise_correlation=1.0",
            "video.moving_correlation=0.8",
            "video.number_dropout=0.5",
            "optim.accumulate=2",
        ),
    ],
    ids=["frozen", "all with stills", "repeated", "chained"],
)
def test_it_is_resumed_to_the_bit(workshop: Path, tmp_path: Path, changed: tuple[str, ...]):
    changed = tuple(text.replace("STILLS", str(workshop / "stills")) for text in changed)
    whole = trained(workshop, tmp_path / "whole", *changed).state_dict()
    trained(workshop, tmp_path / "halves", *changed, "loop.steps=2")
    halves = trained(workshop, tmp_path / "halves", *changed, resume=True).state_dict()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    log = [json.loads(x) for x in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert ("loss_stills" in log[-1]) == bool(changed and "all" in changed[0])
    if changed and "all" in changed[0]:
        base = read_unet(workshop / "model/unet").state_dict()
        assert not torch.equal(whole["conv_in.weight"][:, :4], base["conv_in.weight"])


def test_a_video_model_is_gone_on_from(workshop: Path, tmp_path: Path):
    trained(workshop, tmp_path / "first", "loop.steps=1")
    base = f'base="{tmp_path / "first/model"}"'
    chained = ("video.noise_correlation=0.5", "video.moving_correlation=0.2")
    other = (*chained, "video.number_dropout=0.1")
    unet = trained(workshop, tmp_path / "second", base, "clips.frames=3", "loop.steps=1", *other)
    assert (unet.temporal.narrow, unet.temporal.num_frames) == (2, 3)
    kept = unet.temporal
    assert (kept.noise_correlation, kept.moving_correlation, kept.null_numbers) == (0.5, 0.2, True)
    assert read_folder(tmp_path / "second/model").unet.temporal == unet.temporal
    again = f'base="{tmp_path / "second/model"}"'
    around = ('video.given="around"', "clips.frames=3", "loop.steps=1")
    unet = trained(workshop, tmp_path / "around", again, *around)
    assert unet.temporal.given == "around"
    assert unet.config.in_channels == 4 + 2 * 5
    assert hashes(tmp_path / "around/previews")
    with pytest.raises(SafelightError, match="given = 'around'"):
        trained(workshop, tmp_path / "third", f'base="{tmp_path / "around/model"}"')
    with pytest.raises(SafelightError, match=r"narrow = 2.*has the same in"):
        trained(workshop, tmp_path / "third", base, "video.narrow=1")
    with pytest.raises(SafelightError, match="number_dim = 8; a training"):
        trained(workshop, tmp_path / "third", base, "video.number_dim=16")


def test_what_it_stands_on_may_not_change(workshop: Path, tmp_path: Path):
    trained(workshop, tmp_path / "out", "loop.steps=1")
    write_folder(tmp_path / "other", tiny_folder(1))
    with pytest.raises(SafelightError, match=r"trained on something else: .*pictures was"):
        trained(workshop, tmp_path / "out", f'base="{tmp_path / "other"}"', resume=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("video.narrow=0", "video.narrow should be at least 1"),
        ("video.first=1.5", "video.first should be between 0 and 1"),
        ('video.numbers=["fps", "fps"]', "names one twice"),
        ('video.numbers=["fps", "augmentation"]', "noise on the pixels of a known frame"),
        ('video.numbers=["speed"]', r"video\.numbers"),
        ("video.noise_correlation=1.5", "video.noise_correlation should be from 0 to 1"),
        ("video.moving_correlation=-0.1", "video.moving_correlation should be from 0 to 1"),
        (
            'video={moving_correlation=0.5, numbers=["fps"]}',
            'video.moving_correlation is that of .* does not name "motion"',
        ),
        ("video.number_dropout=-0.1", "video.number_dropout should be between 0 and 1"),
        ("video={numbers=[], number_dropout=0.1}", "video.number_dropout would change nothing"),
        ('video.given="placd"', r"video\.given"),
        ('video.given="none"', "video.first would change nothing"),
        ('video.given="repeated"', "video.last would change nothing"),
        ("clips.frames=30", "fewer than 30 frames"),
        ('stills={folders=[{path="stills"}]}', "would change nothing"),
        ('preview.prompts=["a"]', "preview.prompts do not go"),
        ('data.crop="random"', "data.crop and data.zoom do not go"),
        ("optim.fresh_lr=2.0", "fresh_lr = 2.0 would change nothing"),
        ('data.folders=[{path="stills"}]', "No readable clips"),
    ],
)
def test_a_recipe_that_cannot_work_ends_in_one_line(
    workshop, tmp_path, monkeypatch, changed, message
):
    monkeypatch.chdir(workshop)
    with pytest.raises(SafelightError, match=message):
        run_recipe(workshop / "video.toml", (f'output="{tmp_path / "out"}"', changed))
    assert not (tmp_path / "out/recipe.toml").exists()


def test_defaults_of_nothing_that_moves_are_kept(workshop: Path, tmp_path: Path):
    trained(workshop, tmp_path / "out", "loop.steps=1", "defaults={motion=0.0}")
    assert read_folder(tmp_path / "out/model").defaults.motion == 0


def test_a_base_that_is_told_a_picture_is_refused(workshop: Path, tmp_path: Path):
    write_folder(tmp_path / "seeing", seeing_folder())
    with pytest.raises(SafelightError, match="one text tower, and sees no picture"):
        trained(workshop, tmp_path / "out", f'base="{tmp_path / "seeing"}"')


@pytest.mark.parametrize(
    "name", ["video", "video_longer", "video_slowed", "video_around", "video_alike"]
)
def test_the_recipes_of_the_default_model_read(name: str):
    recipe = read_recipe(Path(__file__).parents[2] / f"recipes/default/{name}.toml")
    assert isinstance(recipe, VideoRecipe)
    assert recipe.clips.frames >= 8
