"""The judges of hints: networks that read depth and poses off the scenes.

`python judge_hints.py`, after `judge_scenes.py` has drawn its pictures, trains on these and on
`work/pictures/scenes/judge_people/`, and writes `work/judges/{depth,pose}/`. It then says how near
the truth they are on real pictures that they have not seen.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from held_out import HERE
from hints import nearness, read_points
from torch import Tensor, nn

from safelight.data.folders import PictureItem
from safelight.data.order import BatchOrder
from safelight.eval.augment import disturb, move, random_shifts, recolour
from safelight.eval.fit import fit
from safelight.eval.hint_judges import DepthJudge, HintJudgeConfig, PoseJudge, pck
from safelight.eval.judge_files import save_hint_judge
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.eval.scene_training import OPTIM, RECOLOURED
from safelight.rng import generator_for

SIZE, BATCH, STEPS = 64, 16, 1500


def depths(items: tuple[PictureItem, ...]) -> Tensor:
    """The pictures' inverse depth, (n, h, w), 0 to 1."""
    rows = [torch.from_numpy(nearness(item.folder, item.extras)).float() for item in items]
    return torch.nn.functional.interpolate(torch.stack(rows)[:, None], (SIZE, SIZE), mode="area")[
        :, 0
    ]


def poses(items: tuple[PictureItem, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Key points (n, 18, 2), which are in sight, and the longer side of each person's box."""
    read = [read_points(item.folder, item.extras) for item in items]
    points = torch.tensor(np.stack([spots for spots, _ in read])).float()
    seen = torch.tensor(np.stack([sight for _, sight in read]))
    boxes = torch.tensor([item.extras["person"]["box"] for item in items]).float() / 128
    return points, seen, (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)


def disturbed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures a little worse, some of them recoloured."""
    chosen = torch.rand(len(pixels), generator=generator) < RECOLOURED
    pixels = disturb(recolour(pixels, chosen, generator), generator)
    return pixels.contiguous(memory_format=torch.channels_last)


def telling(what: str, steps: int) -> Callable[[int, float], None]:
    """Says how a training goes."""
    start = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        if (step + 1) % 250 == 0:
            seconds = time.monotonic() - start
            print(f"judge of {what}: step {step + 1} of {steps}, {loss:.4f}, {seconds:.0f} s")

    return on_step


Shifts = Callable[[int, torch.Generator], Tensor]
Moved = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A judge's loss of pictures, by the places of these and the maps by which they were moved."""


def learn(
    what: str, judge: nn.Module, real: PictureSet, steps: int, loss: Moved, shifts: Shifts
) -> None:
    """Trains a judge on pictures that are moved and disturbed."""
    order = BatchOrder([len(real.items)], BATCH, 0)

    def loss_at(step: int) -> Tensor:
        generator = generator_for(0, step)
        members = torch.tensor([member for member, _ in order.at(step)[1]])
        maps = shifts(BATCH, generator)
        pixels = disturbed(move(real.pixels[members], maps), generator)
        return loss(pixels, members, maps)

    fit(judge, loss_at, OPTIM, steps=steps, on_step=telling(what, steps))


def train_depth(real: PictureSet, steps: int) -> DepthJudge:
    """Trains a judge of depth."""
    torch.manual_seed(0)
    judge, truth = DepthJudge(HintJudgeConfig()), depths(real.items)

    def loss(pixels: Tensor, members: Tensor, maps: Tensor) -> Tensor:
        return judge.loss(pixels, move(truth[members, None], maps)[:, 0])

    learn("depth", judge, real, steps, loss, partial(random_shifts, shift=0.0, zoom=0.0, flip=True))
    return judge


def train_pose(real: PictureSet, steps: int) -> PoseJudge:
    """Trains a judge of poses."""
    torch.manual_seed(0)
    points, seen, _ = poses(real.items)
    judge = PoseJudge(HintJudgeConfig(points=points.shape[1]))

    def loss(pixels: Tensor, members: Tensor, maps: Tensor) -> Tensor:
        scale, shift = maps[:, None, (0, 1), (0, 1)], maps[:, None, :, 2]
        moved = ((2 * points[members] - 1 - shift) / scale + 1) / 2
        inside = ((moved > 0) & (moved < 1)).all(dim=2)
        return judge.loss(pixels, moved, seen[members] & inside)

    learn(
        "poses", judge, real, steps, loss, partial(random_shifts, shift=0.06, zoom=0.1, flip=False)
    )
    return judge


def main() -> None:
    """Trains, tests and writes both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    scenes, judges = arguments.work / "pictures/scenes", arguments.work / "judges"

    depth = train_depth(read_pictures(scenes / "judge", SIZE), arguments.steps)
    save_hint_judge(depth, judges / "depth")
    real = read_pictures(scenes / "held_out_pictures", SIZE)
    error = float(depth.errors(real.pixels, depths(real.items)).mean())

    pose = train_pose(read_pictures(scenes / "judge_people", SIZE), arguments.steps)
    save_hint_judge(pose, judges / "pose")
    real = read_pictures(scenes / "held_out_people", SIZE)
    points, seen, reach = poses(real.items)
    right = float(pck(pose.find(real.pixels), points, seen, reach).mean())

    parts = {"depth error": round(error, 4), "PCK@0.1": round(right, 4)}
    (judges / "pose" / "real.json").write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    print(f"judges of hints, on real pictures: {json.dumps(parts)}")


if __name__ == "__main__":
    main()
