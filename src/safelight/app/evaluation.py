"""Measures a model as an evaluation file says: which pictures, which judges, which settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from safelight.checkpoints.features import EFFICIENTNET, load_features
from safelight.config import from_dict, read_toml
from safelight.errors import SafelightError
from safelight.eval.evaluation import (
    EvaluationConfig,
    FeatureNetwork,
    Generate,
    Subject,
    run_evaluation,
)
from safelight.eval.judge_files import load_caption_ranker, load_scene_judge
from safelight.eval.judges import CaptionVerdicts, Judge, SceneVerdicts
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.eval.report import write_report
from safelight.models.features import EfficientNetLite0
from safelight.models.inception import InceptionFid
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.request import Request


@dataclass(frozen=True)
class SubjectConfig:
    """One kind of picture: folders of real pictures, of which at most `most` are used.

    The model is asked for the first captions of `seen` and `held_out`. Distances are measured from
    `reference`; `others`, real pictures too, show what distance is reachable. `judge` is a folder
    that says whether what was asked is there, "scenes" or "captions" says of which kind. With
    `solids` only pictures with objects in their row count.
    """

    name: str
    seen: Path
    reference: Path
    others: Path
    held_out: Path | None = None
    judge: Path | None = None
    judge_kind: Literal["scenes", "captions"] = "captions"
    solids: bool = False
    most: int = 200
    most_held_out: int = 200


@dataclass(frozen=True)
class EvaluationFile:
    """An evaluation: what is measured, at which size in pixels; None is the model's own choice."""

    subjects: tuple[SubjectConfig, ...]
    size: int = 64
    sampler: str | None = None
    steps: int | None = None
    scale: float | None = None
    seed: int = 0
    batch_size: int = 32
    sweep_prompts: int = 100
    sweep_scales: tuple[float, ...] = (1, 2, 3, 4, 5, 6, 8, 10)
    sweep_steps: tuple[int, ...] = (4, 6, 8, 10, 15, 20, 30, 50)


def evaluate(
    path: Path, model: str, output: Path, inception_weights: Path | None = None
) -> tuple[Path, ...]:
    """Measures a model and writes `report.json`, `report.md` and plots; gives their paths.

    Distances look through EfficientNet-Lite0, or through FID's InceptionV3 where its weights are
    given. Raises `SafelightError` for a mistake in the file, or pictures, judges or weights that
    cannot be read.
    """
    if not path.is_file():
        raise SafelightError(f"No evaluation file {path}; expected a TOML file.")
    wanted = from_dict(EvaluationFile, read_toml(path), str(path))
    folder = path.parent.absolute()
    subjects = [_subject(subject, wanted.size, folder) for subject in wanted.subjects]
    pipeline = load(model)
    settings = pipeline.settle(
        Request("", steps=wanted.steps, scale=wanted.scale, sampler=wanted.sampler)
    )
    report = run_evaluation(
        _generate(pipeline, wanted.size),
        subjects,
        _features(inception_weights),
        EvaluationConfig(
            settings.sampler,
            settings.steps,
            settings.scale,
            wanted.seed,
            wanted.batch_size,
            wanted.sweep_prompts,
            wanted.sweep_scales,
            wanted.sweep_steps,
        ),
        model=model,
        reconstruct=pipeline.reconstruct,
    )
    return write_report(replace(report, weights=pipeline.weights), output)


def _generate(pipeline: ImagePipeline, size: int) -> Generate:
    def generate(
        prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> Tensor:
        request = Request(
            "", steps=steps, scale=float(scale), sampler=sampler, width=size, height=size
        )
        return pipeline.sample(prompts, seeds, pipeline.settle(request))

    return generate


def _subject(config: SubjectConfig, size: int, folder: Path) -> Subject:
    def read(path: Path, most: int) -> PictureSet:
        return read_pictures(
            folder / path,
            size,
            keep=lambda item: not config.solids or bool(item.extras.get("objects")),
            most=most,
        )

    seen = read(config.seen, config.most)
    held_out = None if config.held_out is None else read(config.held_out, config.most_held_out)
    captions = [*seen.prompts, *(held_out.prompts if held_out else ())]
    return Subject(
        config.name,
        seen,
        reference=read(config.reference, config.most),
        others=read(config.others, config.most),
        held_out=held_out,
        judge=None if config.judge is None else _judge(config, folder / config.judge, captions),
    )


def _judge(config: SubjectConfig, folder: Path, captions: Sequence[str]) -> Judge:
    if config.judge_kind == "scenes":
        return SceneVerdicts(load_scene_judge(folder))
    return CaptionVerdicts(load_caption_ranker(folder), captions)


def _features(inception_weights: Path | None) -> FeatureNetwork:
    network = load_features(inception_weights or EFFICIENTNET)
    if isinstance(network, EfficientNetLite0):
        return FeatureNetwork("EfficientNet-Lite0", torch.no_grad()(network.pooled))
    if isinstance(network, InceptionFid):
        return FeatureNetwork("InceptionV3 (FID)", torch.no_grad()(network.pooled), None)
    raise SafelightError(f"{inception_weights} holds a VGG16; expected the InceptionV3 of FID.")
