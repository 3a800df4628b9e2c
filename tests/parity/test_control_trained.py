"""A ControlNet trained for a model of SDXL's kind, which is told sizes, opened by diffusers."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, EulerDiscreteScheduler, StableDiffusionXLPipeline
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from safelight.app.control_parts import captions_to_conditioning, steerable
from safelight.app.training import run_recipe
from safelight.checkpoints.controlnet import read_controlnet
from safelight.data.config import DataConfig, FolderConfig
from safelight.errors import SafelightError

from .conftest import relative_error
from .small import BETAS, small_tower, small_vae, small_words, small_xl_unet

SIZE = 32
RECIPE = """
kind = "control"
output = "control"
base = "model"
data = {folders = [{path = "pictures"}], size = 32}
hint = {column = "conditioning_image"}
control = {hint_channels = [4, 8]}
[optim]
lr = 3e-3
warmup = 1
[loop]
steps = 2
batch_size = 2
tensorboard = false
preview_every = 2
[preview]
columns = 2
steps = 2
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("xl")
    tokenizer = small_words(folder, ["a red cube"])
    StableDiffusionXLPipeline(
        vae=small_vae(),
        unet=small_xl_unet(),
        scheduler=EulerDiscreteScheduler(**BETAS),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=small_tower(CLIPTextModel, len(tokenizer)),
        text_encoder_2=small_tower(CLIPTextModelWithProjection, len(tokenizer)),
    ).save_pretrained(folder / "model")
    (folder / "pictures").mkdir()
    rows = ""
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (SIZE, SIZE), colour).save(folder / f"pictures/{name}.png")
        Image.new("RGB", (SIZE, SIZE), "white").save(folder / f"pictures/{name}-hint.png")
        rows += f'{{"file_name": "{name}.png", "text": "a red cube", '
        rows += f'"conditioning_image": "{name}-hint.png"}}\n'
    (folder / "pictures/metadata.jsonl").write_text(rows)
    (folder / "control.toml").write_text(RECIPE)
    return folder


def test_diffusers_opens_what_was_trained_for_sdxl(workshop: Path):
    with torch.enable_grad():
        run_recipe(workshop / "control.toml")
    theirs = ControlNetModel.from_pretrained(workshop / "control/model").eval()
    ours = read_controlnet(workshop / "control/model").eval()
    model = steerable(workshop / "model")
    data = DataConfig((FolderConfig(workshop / "pictures"),), size=SIZE)
    cond = captions_to_conditioning(model, data)(["a red cube", ""])
    torch.manual_seed(1)
    x, t, hint = torch.randn(2, 4, 16, 16), torch.tensor([600.0, 600.0]), torch.rand(2, 3, 32, 32)
    pooled = model.text_towers[1].config.projection_dim
    with torch.no_grad():
        got = ours(x, t, cond, hint)
        down, middle = theirs(
            x,
            t,
            cond.context,
            hint,
            added_cond_kwargs={
                "text_embeds": cond.vector[:, :pooled],
                "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2),
            },
            return_dict=False,
        )
    wanted = [*down, middle]
    assert max(part.abs().max() for part in wanted) > 1e-5  # it has learned something
    for part, other in zip(got, wanted, strict=True):
        assert relative_error(part, other) <= 1e-4


def test_buckets_are_refused_where_sizes_are_told(workshop: Path, tmp_path: Path):
    changed = ("data.buckets=true", "data.multiple=16", f'output="{tmp_path / "out"}"')
    with pytest.raises(SafelightError, match="leave buckets out"):
        run_recipe(workshop / "control.toml", changed)
