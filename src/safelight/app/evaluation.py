"""Measures a model as an evaluation file says: which pictures, which judges, which settings."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from safelight.app.evaluation_file import (
    EvaluationFile,
    SubjectConfig,
    check_packages,
    read_evaluation,
)
from safelight.app.evaluation_progress import counting_pictures
from safelight.app.outputs import check_new_folder
from safelight.checkpoints.features import EFFICIENTNET, load_features
from safelight.errors import SafelightError
from safelight.eval.caption_ranker import AMONG
from safelight.eval.distances import LEAST_PICTURES
from safelight.eval.evaluation import (
    EvaluationConfig,
    FeatureNetwork,
    Generate,
    Subject,
    pictures_to_make,
    run_evaluation,
)
from safelight.eval.judge_files import load_caption_ranker, load_scene_judge
from safelight.eval.judges import CaptionVerdicts, Judge, SceneVerdicts
from safelight.eval.kept import KeptPictures
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.eval.quality import WINDOW
from safelight.eval.report import write_report
from safelight.eval.scene_truth import read_truth
from safelight.models.features import EfficientNetLite0
from safelight.models.inception import InceptionFid
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.provenance import configuration_hashes, library_versions
from safelight.pipelines.request import Request, Settings

MADE = "made"
"""The folder of an evaluation's output that keeps the pictures made for it."""


def evaluate(
    path: Path, model: str, output: Path, inception_weights: Path | None = None
) -> tuple[Path, ...]:
    """Measures a model and writes `report.json`, `report.md` and plots; gives their paths.

    Distances look through EfficientNet-Lite0, or through FID's InceptionV3 where its weights are
    given. The pictures made are kept in the output's folder `made`, so that an evaluation that was
    stopped goes on, and one of an unchanged model makes none.

    Raises `SafelightError`, before the first picture is made, for a mistake in the file, a package
    that is not installed, an output that cannot be written, or pictures, judges or weights that
    cannot be read.
    """
    wanted = read_evaluation(path)
    check_packages(wanted)
    check_new_folder(output)
    pipeline = load(model, engine="torch")  # whose digits are no matter of what is kept
    settings = _settle(pipeline, wanted)
    features = _features(inception_weights)
    subjects = [_subject(c, settings.width, path.parent.absolute()) for c in wanted.subjects]
    config = EvaluationConfig(
        settings.sampler,
        settings.steps,
        settings.scale,
        wanted.seed,
        wanted.batch_size,
        wanted.sweep_prompts,
        wanted.sweep_scales,
        wanted.sweep_steps,
    )
    made_by = {
        "weights": pipeline.weights,
        "configuration": configuration_hashes(pipeline.folder),
        "versions": library_versions(),
        "size": [settings.width, settings.height],
    }
    kept = KeptPictures(_generate(pipeline, settings), output / MADE, made_by)
    with counting_pictures(pictures_to_make(subjects, config)) as on_pictures:
        report = run_evaluation(
            kept,
            subjects,
            features,
            config,
            model=model,
            reconstruct=pipeline.reconstruct,
            on_pictures=on_pictures,
        )
    report = replace(report, weights=pipeline.weights, size=settings.width)
    written = write_report(report, output)
    kept.forget_others()
    return written


def _settle(pipeline: ImagePipeline, wanted: EvaluationFile) -> Settings:
    """How pictures are made where nothing is varied; raises for what cannot be varied, too."""
    size = pipeline.settle(Request("")).width if wanted.size is None else wanted.size
    if size < WINDOW:
        raise SafelightError(f"size should be {WINDOW} pixels or more, got {size}.")
    request = Request(
        "",
        "",
        wanted.steps,
        wanted.scale,
        wanted.sampler,
        wanted.seed,
        width=size,
        height=size,
        prompt_syntax="plain",
    )
    for scale in wanted.sweep_scales:
        pipeline.settle(replace(request, scale=scale))
    for steps in wanted.sweep_steps:
        pipeline.settle(replace(request, steps=steps))
    return pipeline.settle(request)


def _generate(pipeline: ImagePipeline, settings: Settings) -> Generate:
    def generate(
        prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> Tensor:
        varied = replace(settings, steps=steps, scale=float(scale), sampler=sampler)
        return pipeline.sample(prompts, seeds, varied)

    return generate


def _subject(config: SubjectConfig, size: int, folder: Path) -> Subject:
    def read(path: Path, most: int, least: int = LEAST_PICTURES) -> PictureSet:
        return _read(config, folder / path, size, most, least)

    seen = read(config.seen, config.most)
    held_out = None
    if config.held_out is not None:
        held_out = read(config.held_out, config.most_held_out, 1)
    sets = [seen] if held_out is None else [seen, held_out]
    return Subject(
        config.name,
        seen,
        reference=read(config.reference, config.most),
        others=read(config.others, config.most),
        held_out=held_out,
        judge=None if config.judge is None else _judge(config, folder / config.judge, sets),
    )


def _read(config: SubjectConfig, folder: Path, size: int, most: int, least: int) -> PictureSet:
    """The pictures of a folder that count; says on standard error which could not be read."""
    pictures = read_pictures(
        folder,
        size,
        keep=lambda item: not config.solids or bool(item.extras.get("objects")),
        most=most,
    )
    if pictures.skipped:
        first = pictures.skipped[0]
        print(
            f"safelight: {folder}: {len(pictures.skipped):,} files skipped, the first "
            f"{first.path}: {first.reason}.",
            file=sys.stderr,
        )
    if len(pictures.items) < least:
        kind = (
            " with objects in its metadata, which solids = true asks for" if config.solids else ""
        )
        raise SafelightError(
            f"{config.name}: needs {least} pictures or more{kind}; {folder} has "
            f"{len(pictures.items)}."
        )
    return pictures


def _judge(config: SubjectConfig, folder: Path, sets: Sequence[PictureSet]) -> Judge:
    if config.judge_kind == "scenes":
        for pictures in sets:
            for item in pictures.items:
                read_truth(item.captions[0], item.extras)  # now, not when all pictures are made
        return SceneVerdicts(load_scene_judge(folder))
    captions = [prompt for pictures in sets for prompt in pictures.prompts]
    different = len(set(captions))
    if different < AMONG:
        raise SafelightError(
            f"{config.name}: a picture's caption is ranked among {AMONG}, and the chosen pictures "
            f"have {different} different ones; give more pictures, or raise most and most_held_out."
        )
    return CaptionVerdicts(load_caption_ranker(folder), captions)


def _features(inception_weights: Path | None) -> FeatureNetwork:
    network = load_features(inception_weights or EFFICIENTNET)
    if isinstance(network, EfficientNetLite0):
        return FeatureNetwork("EfficientNet-Lite0", torch.no_grad()(network.pooled))
    if isinstance(network, InceptionFid):
        return FeatureNetwork("InceptionV3 (FID)", torch.no_grad()(network.pooled), None)
    raise SafelightError(f"{inception_weights} holds a VGG16; expected the InceptionV3 of FID.")
