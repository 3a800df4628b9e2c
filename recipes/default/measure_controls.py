"""What the bundled controls do, measured: `python measure_controls.py` after their trainings.

For each kind up to 200 held-out hints: pictures made under control, in the model's own mode, and
with the same prompts and seeds without, are held to the hint (edge F1, depth error, PCK), to real
pictures (Fréchet distance), and to what the prompts ask. Writes `work/controls/report.json`, the
table of the model card, and sheets of hints with what was made of them to docs/samples/.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from card import rewrite
from held_out import HERE
from judge_hints import depths, poses
from PIL import Image
from sheets import sheet
from torch import Tensor

import safelight
from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.controlnet import read_controlnet
from safelight.checkpoints.features import load_features
from safelight.data.companions import Companions
from safelight.data.config import DataConfig, FolderConfig
from safelight.data.folders import PictureFolder, scan
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.errors import SafelightError
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.edges import edge_f1
from safelight.eval.hint_judges import DepthJudge, PoseJudge, pck
from safelight.eval.judge_files import load_caption_ranker, load_hint_judge, load_scene_judge
from safelight.eval.judges import CaptionVerdicts, Judge, SceneVerdicts, rates
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.models.controlnet import Controlled, ControlNet, Steering, even_weights
from safelight.pictures import to_image
from safelight.pipelines.annotate import annotator, on_levels
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request
from safelight.pipelines.sampling import text_conditioner
from safelight.rng import SeededNoise
from safelight.train.beside import as_hint

COUNT, BATCH = 200, 50
SETS = {
    "canny": (("emoji", "emoji/held_out", 100), ("scenes", "scenes/held_out_pictures", 100)),
    "scribble": (("emoji", "emoji/held_out", 100), ("scenes", "scenes/held_out_pictures", 100)),
    "depth": (("scenes", "hints/depth/held_out", COUNT),),
    "pose": (("people", "hints/pose/held_out", COUNT),),
}


class Figures(TypedDict):
    """What was measured of one set of pictures.

    Attributes:
        hint: how well they hold to their hints.
        frechet: their distance to the real pictures that the hints are of.
        following: the part that is as the prompt asks; None where no judge tells.
        pictures: how many there are.
    """

    hint: float
    frechet: float
    following: float | None
    pictures: int


@dataclass(frozen=True)
class Asked:
    """Real pictures with the hints made of them, (n, 3, h, w) in [-1, 1] both."""

    real: PictureSet
    hints: Tensor


def asked(pictures: Path, kind: str, folder: str, count: int, size: int) -> Asked:
    """Held-out pictures of a folder, and their hints."""
    real = read_pictures(pictures / folder, size, most=count)
    config = DataConfig((FolderConfig(pictures / folder),), size=size)
    found = PictureFolder(real.items)
    if kind in ("canny", "scribble"):
        companions = Companions(found, config, annotate=on_levels(annotator(kind)))
    else:
        companions = Companions(found, config, column="conditioning_image")
    rows = [companions.of(i, (size, size), False, 0) for i in range(len(real.items))]
    levels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()
    return Asked(real, levels / 127.5 - 1)


@torch.inference_mode()
def make(
    pipeline: ImagePipeline, control: ControlNet | None, wanted: Asked, *, one_sided: bool = False
) -> Tensor:
    """A picture for each hint's prompt, at the model's own settings, in [-1, 1]; `one_sided`
    controls the prompt's half of guidance alone.
    """
    folder, settings = pipeline.folder, pipeline.settle(Request(""))
    scheduler = folder.scheduler.with_sampler(settings.sampler)
    text, vae = text_conditioner(folder, pipeline.kind), folder.autoencoder
    network = folder.unet
    if control is not None:
        network = Controlled(network, [Steering(control, even_weights(control, 1.0))])
    denoiser = Denoiser(network, scheduler.parameterization(), scheduler.schedule())
    sigmas, rows = scheduler.sigmas(settings.steps), []
    for first in range(0, len(wanted.hints), BATCH):
        prompts = wanted.real.prompts[first : first + BATCH]
        cond, uncond = text(prompts), text([""] * len(prompts))
        if control is not None:
            hint = wanted.hints[first : first + BATCH]
            cond, uncond = as_hint(cond, (hint,)), as_hint(uncond, (hint,))
            if one_sided:
                everywhere = torch.ones_like(hint[:, :1])
                cond = replace(cond, hint_masks=(everywhere,))
                uncond = replace(uncond, hint_masks=(torch.zeros_like(everywhere),))
        noise = SeededNoise(list(range(first, first + len(prompts))))
        shape = (len(prompts), folder.unet.config.out_channels, *sides(wanted, vae.factor))
        x = noise(shape, 0) * scheduler.initial_scale(sigmas)
        solve = scheduler.solver(settings.steps)
        z = solve(cfg(denoiser, cond, uncond, settings.scale), x, sigmas, noise=noise)
        rows.append(vae.decode(vae.unscale(z)).float().clamp(-1, 1))
    return torch.cat(rows)


def sides(wanted: Asked, factor: int) -> tuple[int, int]:
    """Height and width of the latents."""
    height, width = wanted.hints.shape[-2:]
    return height // factor, width // factor


def held_to_hint(kind: str, wanted: Asked, judges: Path) -> Callable[[Tensor], float]:
    """How well pictures hold to the hints: edge F1 or PCK (higher is better), or depth error."""
    if kind == "depth":
        depth, nearness = load_hint_judge(judges / "depth", DepthJudge), depths(wanted.real.items)
        return lambda made: float(depth.errors(made, nearness).mean())
    if kind == "pose":
        pose, truth = load_hint_judge(judges / "pose", PoseJudge), poses(wanted.real.items)
        return lambda made: float(pck(pose.find(made), *truth).mean())
    annotate = on_levels(annotator(kind))

    def edges(made: Tensor) -> float:
        scores = []
        for picture, hint in zip(made, wanted.hints, strict=True):
            own = annotate(np.array(to_image(picture))).max(axis=2) > 127
            scores.append(edge_f1(own, hint.amax(dim=0).numpy() > 0))
        return float(np.nanmean(scores))

    return edges


def verdicts(subject: str, pictures: Path, judges: Path) -> Judge | None:
    """The judge of what the prompts ask for, if there is one; captions among those of a folder."""
    if subject == "emoji":
        others = [item.captions[0] for item in scan(pictures).items]
        return CaptionVerdicts(load_caption_ranker(judges / "captions"), others)
    if subject == "scenes":
        return SceneVerdicts(load_scene_judge(judges / "scenes"))
    return None


def following(judge: Judge | None, made: Tensor, wanted: Asked) -> float | None:
    """The part of the pictures that is what was asked, if there is a judge of any of them."""
    if judge is None:
        return None
    rate = rates(judge(made, wanted.real.items)).get(judge.main)
    return None if rate is None else round(rate.part, 4)


def sheet_of(wanted: Asked, with_control: Tensor, without: Tensor) -> Image.Image:
    """Hints above what was made of them, above the hint laid over that, above no control."""
    over = torch.maximum(with_control * 0.5 - 0.5, wanted.hints)
    return sheet([wanted.hints, with_control, over, without])


def table(report: Mapping[str, Mapping[str, Mapping[str, Figures]]]) -> str:
    """The figures for the model card, a row for each kind of pictures of a control."""
    lines = [
        "| control | pictures | hint, on | off | real | FD, on | off | followed, on | off | real |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in (kind for kind in SETS if kind in report):
        for subject, rows in report[kind].items():
            hints = [f"{rows[row]['hint']:.3f}" for row in ("on", "off", "real")]
            distances = [f"{rows[row]['frechet']:.1f}" for row in ("on", "off")]
            follows = [rows[row]["following"] for row in ("on", "off", "real")]
            parts = ["" if part is None else f"{100 * part:.1f} %" for part in follows]
            lines.append(f"| {' | '.join((kind, subject, *hints, *distances, *parts))} |")
    return "\n".join(lines)


def main() -> None:
    """Measures every control that has been trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--controls", type=Path, default=HERE / "work" / "controls")
    parser.add_argument("--model", default="default")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "docs" / "samples")
    parser.add_argument("--count", type=int, default=COUNT, help="of hints for a kind, at most")
    parser.add_argument("--kinds", nargs="*", default=list(SETS))
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md")
    arguments = parser.parse_args()
    pipeline, judges = safelight.load(arguments.model), arguments.work / "judges"
    mode = pipeline.folder.defaults.control_mode or "balanced"
    if mode not in ("balanced", "guided"):  # whose weights are even
        raise SafelightError(f"Controls of mode {mode!r} are not measured here.")
    size = pipeline.settle(Request("")).width
    arguments.samples.mkdir(parents=True, exist_ok=True)
    pooled = load_features("efficientnet-lite0").pooled
    path = arguments.controls / "report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for kind in arguments.kinds:
        control = read_controlnet(arguments.controls / kind / "model").eval()
        report[kind] = {}
        for subject, folder, count in SETS[kind]:
            most = min(count, arguments.count)
            wanted = asked(arguments.work / "pictures", kind, folder, most, size)
            made = {
                "on": make(pipeline, control, wanted, one_sided=mode == "guided"),
                "off": make(pipeline, None, wanted),
                "real": wanted.real.pixels,
            }
            hold = held_to_hint(kind, wanted, judges)
            judge = verdicts(subject, arguments.work / "pictures" / folder, judges)
            real = pooled_features(pooled, wanted.real.pixels)
            report[kind][subject] = {
                name: {
                    "hint": round(hold(pixels), 4),
                    "frechet": round(frechet_distance(pooled_features(pooled, pixels), real), 2),
                    "following": following(judge, pixels, wanted),
                    "pictures": len(pixels),
                }
                for name, pixels in made.items()
            }
            print(kind, subject, json.dumps(report[kind][subject]), flush=True)
            name = f"control_{kind}_{subject}.png"
            sheet_of(wanted, made["on"], made["off"]).save(arguments.samples / name, optimize=True)
    write_text(path, json.dumps(report, indent=2) + "\n")
    rewrite(arguments.card, table(report), "controls")


if __name__ == "__main__":
    main()
