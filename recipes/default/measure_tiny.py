"""What the tiny autoencoder costs in quality, beside the model's own: `python measure_tiny.py`.

Pictures of the same latents by both decoders: of the students, at one and four steps, how far the
tiny decoder's are from the own one's, and what the judges say of both; and held-out pictures there
and back, of both encoders. Writes the tables in MODEL_CARD.md, and a sheet.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from card import rewrite
from held_out import HERE
from measure_students import Subject, subjects_of
from sheets import sheet
from torch import Tensor

import safelight
from safelight.checkpoints.features import load_features
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.judges import rates
from safelight.eval.pictures import read_pictures
from safelight.eval.quality import psnr
from safelight.models.any_autoencoder import AnyAutoencoder, likeliest
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

COUNT, BATCH = 80, 50
STEPS = (1, 4)
HELD_OUT = {"emoji": "emoji/held_out", "scenes": "scenes/held_out_pictures"}


def pictures_of(pipeline: ImagePipeline, prompts: Sequence[str], steps: int) -> Tensor:
    """One of each prompt, each with a seed of its own; (n, 3, h, w) in [-1, 1]."""
    settings = pipeline.settle(Request("", prompt_syntax="plain", steps=steps))
    seeds = range(len(prompts))
    parts = [
        pipeline.sample(prompts[i : i + BATCH], list(seeds[i : i + BATCH]), settings)
        for i in range(0, len(prompts), BATCH)
    ]
    return torch.cat(parts)


@torch.inference_mode()
def through(pixels: Tensor, encoder: AnyAutoencoder, decoder: AnyAutoencoder) -> Tensor:
    """Pictures by one autoencoder's encoder and another's decoder of the same latents."""
    parts = [
        decoder.decode(decoder.unscale(encoder.scale(likeliest(encoder, part))))
        for part in pixels.split(BATCH)
    ]
    return torch.cat(parts)


def made(
    own: ImagePipeline, tiny: ImagePipeline, subject: Subject, student: str
) -> tuple[list[str], list[Tensor]]:
    """The table's lines of one student and subject, and the pictures of the fewest steps by both
    decoders.
    """
    pooled = load_features("efficientnet-lite0").pooled
    real = pooled_features(pooled, subject.real.pixels)
    lines: list[str] = []
    shown: list[Tensor] = []
    for steps in STEPS:
        pair = [pictures_of(pipeline, subject.asked.prompts, steps) for pipeline in (own, tiny)]
        shown = shown or pair
        for name, pixels in zip(("own", "tiny"), pair, strict=True):
            distance = frechet_distance(pooled_features(pooled, pixels), real)
            verdicts = rates(subject.judge(pixels, subject.asked.items))
            far = "" if name == "own" else f"{psnr(pixels, pair[0]).mean():.1f} dB"
            lines.append(
                f"| {subject.name}, {student}, {steps} step{'s' if steps > 1 else ''} | {name} | "
                f"{far} | {distance:.1f} | {100 * verdicts[subject.judge.main].part:.1f} % |"
            )
            print(lines[-1], flush=True)
    return lines, shown


def reconstructed(work: Path, own: AnyAutoencoder, tiny: AnyAutoencoder, size: int) -> list[str]:
    """The table of pictures there and back."""
    lines = [
        "| held-out pictures there and back | own | own encoder, tiny decoder | tiny, both |",
        "|---|---:|---:|---:|",
    ]
    for name, folder in HELD_OUT.items():
        pixels = read_pictures(work / "pictures" / folder, size, most=2 * COUNT).pixels
        ways = ((own, own), (own, tiny), (tiny, tiny))
        back = [through(pixels, *way).clamp(-1, 1) for way in ways]
        cells = [f"{psnr(each, pixels).mean():.1f} dB" for each in back]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measures the tiny autoencoder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--students", type=Path, default=HERE / "work" / "students")
    parser.add_argument("--tiny", type=Path, default=HERE / "work" / "tiny" / "model" / "vae")
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "docs" / "samples")
    parser.add_argument("--count", type=int, default=COUNT, help="prompts of each subject")
    arguments = parser.parse_args()
    folder = arguments.students / "turbo" / "model"
    own, tiny = safelight.load(folder), safelight.load(folder, vae=arguments.tiny)
    size = own.settle(Request("")).width
    lines = [
        "| pictures | decoder | PSNR to the own one's | FD | following |",
        "|---|---|---:|---:|---:|",
    ]
    rows: list[Tensor] = []
    for subject in subjects_of(arguments.work, size, arguments.count):
        told, shown = made(own, tiny, subject, "turbo")
        lines += told
        rows += shown
    lines += [
        "",
        *reconstructed(arguments.work, own.folder.autoencoder, tiny.folder.autoencoder, size),
    ]
    arguments.samples.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(arguments.samples / "tiny.png", optimize=True)
    rewrite(arguments.card, "\n".join(lines), "tiny")


if __name__ == "__main__":
    main()
