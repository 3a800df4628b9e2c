"""A tiny model, pictures, and a recipe that distils the one on the others."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from safelight.app.training import run_recipe
from tiny_model import SIZE, write_tiny_model

RECIPE = """
kind = "distill"
output = "out"
base = "model"
data = {folders = [{path = "pictures"}], size = 32}
latents = "latents"
[distillation]
scale = [1.5, 4.0]
[optim]
lr = 3e-3
warmup = 1
[loop]
steps = 4
batch_size = 4
tensorboard = false
preview_every = 0
[preview]
columns = 2
steps = 2
"""
TOLD = "distillation.guidance_dim=16"
METHODS = {
    "lcm": (TOLD,),
    "lcm, not told": ("distillation.guidance_dim=0", "distillation.target_decay=0"),
    "tcd": (TOLD, 'distillation.method="tcd"', 'distillation.loss="l2"'),
    "guidance": (
        TOLD,
        'distillation.method="guidance"',
    ),
    "progressive": (TOLD, 'distillation.method="progressive"', "distillation.teacher_steps=16"),
    "lora": ("lora={rank=4, alpha=8}",),
    "lora of tcd": ("lora={rank=4}", 'distillation.method="tcd"'),
}


def write_workshop(folder: Path) -> Path:
    """Writes all three into a folder, which it gives back."""
    write_tiny_model(folder / "model")
    pictures = folder / "pictures"
    pictures.mkdir()
    rows: list[dict[str, str]] = []
    for i, colour in enumerate(["red", "blue", "red", "blue", "red", "blue"]):
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        ImageDraw.Draw(picture).ellipse((4 + i, 6, 18 + i, 24), fill=colour)
        picture.save(pictures / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"a {colour} ball"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (pictures / "metadata.jsonl").write_text(text)
    (folder / "distil.toml").write_text(RECIPE)
    return folder


def distilled(workshop: Path, out: Path, *changed: str, resume: bool = False) -> Path:
    """Trains by the recipe, changed, into `out`; the folder of what it leaves."""
    run_recipe(workshop / "distil.toml", (f'output="{out}"', *changed), resume=resume)
    return out / "model"
