"""An evaluation from end to end, over any callable that makes pictures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.eval.distances import frechet_distance, kernel_distance, pooled_features
from safelight.eval.judges import Judge, rates
from safelight.eval.pictures import PictureSet
from safelight.eval.quality import psnr, ssim
from safelight.eval.report import (
    Distances,
    Fidelity,
    Following,
    Report,
    SubjectReport,
    Sweep,
    SweepPoint,
)

Pixels = Float[Tensor, "n 3 h w"]


@runtime_checkable
class Generate(Protocol):
    """Makes one picture a prompt, in [-1, 1]; a seed gives the same picture in every batch."""

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> Pixels:
        """Pictures (n, 3, h, w)."""
        ...


@dataclass(frozen=True)
class Subject:
    """One kind of picture, and what is measured of it.

    Attributes:
        name: what its pictures are.
        seen: prompts like those of the training, with real pictures.
        reference: held-out real pictures, from which distances are measured.
        others: real pictures that are not the reference's; their distance is what is reachable.
        held_out: prompts unlike those of the training, with real pictures.
        judge: says whether a picture is what was asked.
    """

    name: str
    seen: PictureSet
    reference: PictureSet
    others: PictureSet
    held_out: PictureSet | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """How pictures are made, and how much is measured; picture i has the seed `seed + i`.

    The sweeps vary the guidance scale and the number of steps over the first `sweep_prompts` of the
    seen prompts; an empty tuple leaves a sweep out.
    """

    sampler: str
    steps: int
    scale: float
    seed: int = 0
    batch_size: int = 32
    sweep_prompts: int = 150
    sweep_scales: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    sweep_steps: tuple[int, ...] = (4, 6, 8, 10, 15, 20, 30, 50)


@dataclass(frozen=True)
class FeatureNetwork:
    """What distances look through: its name, its pooled features, the side it wants (None: any)."""

    name: str
    pooled: Callable[[Tensor], Tensor]
    size: int | None = 224

    def __call__(self, pixels: Pixels) -> Float[Tensor, "n d"]:
        """The features of pictures in [-1, 1]."""
        return pooled_features(self.pooled, pixels, size=self.size)


OnPictures = Callable[[str, int], None]
"""Called with what is being measured and how many pictures were just made for it."""


def run_evaluation(
    generate: Generate,
    subjects: Sequence[Subject],
    features: FeatureNetwork,
    config: EvaluationConfig,
    *,
    model: str,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
    on_pictures: OnPictures | None = None,
) -> Report:
    """Makes pictures for every subject's prompts, and measures them.

    `model` is the model's name; `reconstruct` its autoencoder, there and back.
    """
    start = time.monotonic()
    return Report(
        model=model,
        features=features.name,
        sampler=config.sampler,
        steps=config.steps,
        scale=config.scale,
        seed=config.seed,
        subjects=tuple(
            _measure(subject, generate, features, config, reconstruct, on_pictures)
            for subject in subjects
        ),
        seconds=round(time.monotonic() - start, 1),
    )


def pictures_to_make(subjects: Sequence[Subject], config: EvaluationConfig) -> int:
    """How many pictures `run_evaluation` makes."""
    points = len(config.sweep_scales) + len(config.sweep_steps)
    return sum(
        len(subject.seen.items)
        + (len(subject.held_out.items) if subject.held_out else 0)
        + points * min(config.sweep_prompts, len(subject.seen.items))
        for subject in subjects
    )


def _measure(
    subject: Subject,
    generate: Generate,
    features: FeatureNetwork,
    config: EvaluationConfig,
    reconstruct: Callable[[Tensor], Tensor] | None,
    on_pictures: OnPictures | None,
) -> SubjectReport:
    def make(asked: PictureSet, settings: EvaluationConfig, what: str) -> Pixels:
        rows: list[Tensor] = []
        for first in range(0, len(asked.items), settings.batch_size):
            prompts = asked.prompts[first : first + settings.batch_size]
            seeds = range(settings.seed + first, settings.seed + first + len(prompts))
            sampling = (settings.steps, settings.scale, settings.sampler)
            rows.append(generate(prompts, list(seeds), *sampling).float().cpu())
            if on_pictures is not None:
                on_pictures(f"{subject.name}: {what}", len(prompts))
        return torch.cat(rows)

    reference = features(subject.reference.pixels)
    made = make(subject.seen, config, "seen prompts")
    far, far_real = features(made), features(subject.others.pixels)
    held_out = None
    if subject.held_out is not None:
        pictures = make(subject.held_out, config, "held-out prompts")
        held_out = _following(subject.judge, subject.held_out, pictures)
    few = subject.seen.take(range(min(config.sweep_prompts, len(subject.seen.items))))

    def sweep(varies: str, settings: Sequence[tuple[float, EvaluationConfig]]) -> Sweep:
        points: list[SweepPoint] = []
        for value, varied in settings:
            pixels = make(few, varied, f"{varies} {value:g}")
            rows = features(pixels)
            right = None
            if subject.judge is not None:
                right = rates(subject.judge(pixels, few.items)).get(subject.judge.main)
            points.append(
                SweepPoint(
                    value,
                    frechet_distance(rows, reference),
                    kernel_distance(rows, reference).mean,
                    right,
                )
            )
        aspect = subject.judge.main if subject.judge is not None else None
        return Sweep(varies, aspect, len(few.items), tuple(points))

    by_scale = [(scale, replace(config, scale=scale)) for scale in config.sweep_scales]
    by_steps = [(float(steps), replace(config, steps=steps)) for steps in config.sweep_steps]
    return SubjectReport(
        name=subject.name,
        distances=Distances(
            frechet=frechet_distance(far, reference),
            frechet_real=frechet_distance(far_real, reference),
            kernel=kernel_distance(far, reference).mean,
            kernel_real=kernel_distance(far_real, reference).mean,
            pictures=len(far),
            reference=len(reference),
        ),
        fidelity=None
        if reconstruct is None
        else _fidelity(subject.reference.pixels, reconstruct, config.batch_size),
        seen=_following(subject.judge, subject.seen, made),
        held_out=held_out,
        sweeps=tuple(
            sweep(varies, settings)
            for varies, settings in (("scale", by_scale), ("steps", by_steps))
            if settings
        ),
    )


def _following(judge: Judge | None, asked: PictureSet, made: Pixels) -> Following | None:
    if judge is None:
        return None
    return Following(
        prompts=len(asked.items),
        generated=rates(judge(made, asked.items)),
        real=rates(judge(asked.pixels, asked.items)),
    )


def _fidelity(pixels: Pixels, reconstruct: Callable[[Tensor], Tensor], batch_size: int) -> Fidelity:
    psnrs: list[Tensor] = []
    ssims: list[Tensor] = []
    for first in range(0, len(pixels), batch_size):
        batch = pixels[first : first + batch_size]
        output = reconstruct(batch)
        psnrs.append(psnr(output, batch))
        ssims.append(ssim(output, batch))
    return Fidelity(
        psnr=float(torch.cat(psnrs).mean()),
        ssim=float(torch.cat(ssims).mean()),
        pictures=len(pixels),
    )
