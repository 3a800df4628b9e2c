"""How good the video model is, on clips that it has never seen: `python measure_video.py`.

Writes `report.json` beside the training, the tables into MODEL_CARD.md between its marks, and
sheets of frames to docs/samples/. Made of each held-out clip: a clip of its first frame and
caption, one of its caption alone, frames that the model of pictures makes one by one, and its first
frame repeated. Each is told the clip's own frames a second and motion bucket.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from card import around, rewrite
from held_out import HERE
from PIL import Image
from torch import Tensor
from video_clips import Wanted, made, one_by_one, wanted

import safelight
from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.features import load_features
from safelight.data.motion import speed_of
from safelight.errors import SafelightError
from safelight.eval.distances import frechet_distance
from safelight.eval.moving import (
    clip_features,
    first_frame_psnr,
    rank_correlation,
    speed,
    warp_error,
)
from safelight.pictures import to_image

MARKS = "video"  # of the tables in the card
COUNT = 90
FRAMES, STRIDE = 8, 3
SETS = {"emoji": "emoji/held_out", "scenes": "scenes/held_out", "pairs": "scenes/held_out_pairs"}
TRAINED = {"emoji": "emoji/train", "scenes": "scenes/train", "pairs": "scenes/train"}
TITLES = {
    "emoji": "held-out emoji",
    "scenes": "scenes that move, unseen",
    "pairs": "scenes of held-out colour and shape",
}
BUCKETS = (16, 64, 112, 160, 208)
MOVED = 12
"""First frames of a set that are made to move at every bucket."""

Numbers = dict[str, float]


def measured(
    clips: Tensor, asked: Sequence[Wanted], features: Tensor, pooled: Callable[[Tensor], Tensor]
) -> Numbers:
    """The figures of clips made for held-out ones, whose features are given."""
    speeds = [speed(clip, wish.fps) for clip, wish in zip(clips, asked, strict=True)]
    own = clip_features(pooled, clips)
    half = own.shape[1] // 2
    firsts = torch.stack([wish.real[0] for wish in asked])
    return {
        "flicker": round(1000 * float(np.nanmean([warp_error(clip) for clip in clips])), 3),
        "first": round(float(first_frame_psnr(clips, firsts).clamp(max=99).mean()), 2),
        "frechet": round(frechet_distance(own, features), 2),
        "frechet_change": round(frechet_distance(own[:, half:], features[:, half:]), 3),
        "speed": round(sum(speeds) / len(speeds), 4),
        "follows": round(rank_correlation([w.motion for w in asked], speeds), 3),
    }


def moved(
    make: Callable[[Sequence[Wanted], float], Tensor],
    asked: Sequence[Wanted],
    buckets: Sequence[int],
) -> tuple[Numbers, Tensor]:
    """How the motion that is measured follows the bucket that is asked for, the first frame and the
    noise being the same; and the first one's clips.
    """
    chosen, shown = asked[:MOVED], []
    speeds: list[list[float]] = []
    for bucket in buckets:
        clips = make(chosen, float(bucket))
        speeds.append([speed(clip, w.fps) for clip, w in zip(clips, chosen, strict=True)])
        shown.append(clips[0])
    figures = {
        f"speed at {bucket}": round(sum(row) / len(row), 4)
        for bucket, row in zip(buckets, speeds, strict=True)
    }
    each = [rank_correlation(list(buckets), [row[i] for row in speeds]) for i in range(len(chosen))]
    figures["rank correlation, clip by clip"] = round(sum(each) / len(each), 3)
    return figures, torch.stack(shown)


def sheet(rows: Sequence[Tensor], columns: int) -> Image.Image:
    """Clips (f, 3, h, w) as rows of their frames, `columns` of them beside each other."""
    lines = [torch.cat(list(clip), dim=2) for clip in rows]
    lines += [torch.ones_like(lines[0])] * (-len(lines) % columns)
    gap = torch.ones(3, lines[0].shape[1], 8)
    beside = [
        torch.cat([part for line in lines[i : i + columns] for part in (line, gap)][:-1], dim=2)
        for i in range(0, len(lines), columns)
    ]
    return to_image(torch.cat(beside, dim=1))


def by_bucket(asked: Sequence[Wanted], buckets: Sequence[int]) -> Numbers:
    """The mean speed of the real clips that are nearest to each bucket, measured as of those that
    are made: at the same frames a second. A bucket that none is near is left out.
    """
    near: dict[int, list[float]] = {}
    for wish in asked:
        bucket = min(buckets, key=lambda bucket: abs(bucket - wish.motion))
        near.setdefault(bucket, []).append(speed(wish.real, wish.fps))
    return {
        f"speed at {bucket}": round(sum(near[bucket]) / len(near[bucket]), 4)
        for bucket in buckets
        if bucket in near
    }


def table(
    report: Mapping[str, Mapping[str, Numbers]],
    motion: Mapping[str, Numbers],
    real: Mapping[str, Numbers],
) -> str:
    """The figures as tables for the docs."""
    text = [
        "| clips | made of | flicker, 10⁻³ | first frame, dB | Fréchet clip distance | "
        "of change alone | motion, heights a second |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for subject, kinds in report.items():
        for kind, row in kinds.items():
            first = "" if kind in ("caption", "one by one", "other real clips") else row["first"]
            text.append(
                f"| {TITLES[subject]} | {kind} | {row['flicker']:.2f} | {first} | "
                f"{row['frechet']:.1f} | {row['frechet_change']:.2f} | {row['speed']:.3f} |"
            )
    buckets = list(next(iter(motion.values())))[:-1]
    text += [
        "",
        "| motion bucket | "
        + " | ".join(name.removeprefix("speed at ") for name in buckets)
        + " | rank correlation |",
        "|---|" + "---:|" * (len(buckets) + 1),
        "| stands for, heights a second, of every frame of a file | "
        + " | ".join(f"{speed_of(float(name.split()[-1])):.3f}" for name in buckets)
        + " | |",
    ]
    for subject, row in motion.items():
        *speeds, correlation = row.values()
        cells = " | ".join(f"{value:.3f}" for value in speeds)
        text.append(f"| {TITLES[subject]}, made | {cells} | {correlation:.2f} |")
        cells = " | ".join(f"{real[subject][k]:.3f}" if k in real[subject] else "" for k in buckets)
        text.append(f"| {TITLES[subject]}, real clips nearest to that bucket | {cells} | |")
    text += [
        "",
        "A bucket is of the flow between all frames of a file. Clips that are made, and the real "
        f"ones beside them, are measured from one in {STRIDE} frames to the next, where the flow "
        "finds less of the way.",
    ]
    return "\n".join(text)


def main() -> int:
    """Measures the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--video", type=Path, default=HERE / "work" / "video_alike")
    parser.add_argument("--model", default="default", help="the model of pictures")
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "docs" / "samples")
    parser.add_argument("--count", type=int, default=COUNT, help="clips of each set, at most")
    parser.add_argument("--steps", type=int, help="of the sampler")
    parser.add_argument("--buckets", type=int, default=len(BUCKETS), help="how many of them")
    arguments = parser.parse_args()
    try:
        around(arguments.card, MARKS)  # before hours of sampling
        measure(arguments)
    except SafelightError as error:
        print(f"measure_video: {error}", file=sys.stderr)
        return 2
    return 0


def measure(arguments: argparse.Namespace) -> None:
    """Makes all clips, and writes what is measured of them."""
    samples = arguments.samples
    samples.mkdir(parents=True, exist_ok=True)
    video = safelight.load_video(arguments.video / "model")
    pictures = safelight.load(arguments.model)
    size, steps = video.folder.defaults.width or 64, arguments.steps
    pooled = load_features("efficientnet-lite0").pooled
    report: dict[str, dict[str, Numbers]] = {}
    motion: dict[str, Numbers] = {}
    real_speeds: dict[str, Numbers] = {}
    for subject, folder in SETS.items():
        clips = arguments.work / "clips"
        asked = wanted(clips / folder, arguments.count, FRAMES, STRIDE, size)
        others = wanted(clips / TRAINED[subject], len(asked), FRAMES, STRIDE, size)
        real = torch.stack([w.real for w in asked])
        sets = {
            "first frame and caption": made(video, asked, given=True, steps=steps),
            "caption": made(video, asked, given=False, steps=steps),
            "one by one": one_by_one(pictures, asked, steps),
            "first frame, repeated": real[:, :1].expand(-1, FRAMES, -1, -1, -1),
            "real, through the autoencoder": torch.stack(
                [pictures.reconstruct(clip).clamp(-1, 1) for clip in real]
            ),
            "other real clips": torch.stack([w.real for w in others]),
        }
        features = clip_features(pooled, real)
        report[subject] = {
            kind: measured(clips, asked[: len(clips)], features, pooled)
            for kind, clips in sets.items()
        }
        motion[subject], shown = moved(
            lambda chosen, bucket: made(video, chosen, given=True, motion=bucket, steps=steps),
            asked,
            BUCKETS[: arguments.buckets],
        )
        real_speeds[subject] = by_bucket(asked, BUCKETS[: arguments.buckets])
        print(subject, json.dumps(report[subject]), json.dumps(motion[subject]), flush=True)
        shown_clips = min(6, len(asked) // 2 * 2)
        places = torch.linspace(0, len(asked) - 1, shown_clips).round().long().tolist()
        kinds = [real, *list(sets.values())[:3]]
        pairs = [places[i : i + 2] for i in range(0, len(places), 2)]
        rows = [clips[i] for pair in pairs for clips in kinds for i in pair]
        sheet(rows, 2).save(samples / f"video_{subject}.png", optimize=True)
        sheet(list(shown), 1).save(samples / f"video_{subject}_motion.png", optimize=True)
    moved_alike = {"motion": motion, "motion_of_real": real_speeds}
    whole = {"clips": report, **moved_alike, "count": arguments.count}
    write_text(arguments.video / "report.json", json.dumps(whole, indent=2) + "\n")
    rewrite(arguments.card, table(report, motion, real_speeds), MARKS)


if __name__ == "__main__":
    sys.exit(main())
