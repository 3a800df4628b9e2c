"""A picture made again from its manifest, and how it compares."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from safelight.app.making import counting_steps
from safelight.app.remaking_controls import (
    check_controls,
    conditions_again,
    control_differences,
    controls_again,
    image_prompts_again,
    picture_again,
    see_again,
)
from safelight.checkpoints.upscaler import is_upscaler
from safelight.engine.choosing import choose_engine
from safelight.engine.names import Chosen
from safelight.errors import SafelightError
from safelight.pipelines.finishing import finish_of
from safelight.pipelines.given import PARTS, Given, GivenPicture, Part
from safelight.pipelines.hub import find_or_fetch
from safelight.pipelines.image import GeneratedImage, ImagePipeline
from safelight.pipelines.load import has_device, load
from safelight.pipelines.manifest import Manifest, UsedGuide, UsedPicture, UsedRefiner
from safelight.pipelines.precisions import precision_named
from safelight.pipelines.request import Request
from safelight.pipelines.upscale import Enlarger, load_enlarger


@dataclass(frozen=True)
class Remade:
    """The picture made again, whether its pixels are the same, and that in words."""

    picture: GeneratedImage
    same: bool
    verdict: str


def remake(
    manifest: Manifest,
    *,
    model: str | None = None,
    vae: str | None = None,
    any_weights: bool = False,
) -> Remade:
    """Makes the manifest's picture again, on its device and with its number of threads.

    Errors as `prepared`.
    """
    picture = again(prepared(manifest, model=model, vae=vae, any_weights=any_weights), manifest)
    same = picture.manifest.pixels == manifest.pixels
    if same:
        return Remade(picture, True, "the same pixels.")
    causes = differences(manifest, picture.manifest)
    reason = f" Changed since: {'; '.join(causes)}." if causes else ""
    return Remade(picture, False, f"the pixels are not the same.{reason}")


def prepared(
    manifest: Manifest,
    *,
    model: str | None = None,
    vae: str | None = None,
    any_weights: bool = False,
) -> ImagePipeline | Enlarger:
    """The pipeline that made the manifest's picture, with what was put into it.

    `model` and `vae` stand in for those that the manifest names. Raises `SafelightError` if there
    is no such model, or if its weights are others, unless `any_weights`.
    """
    device = manifest.device if has_device(manifest.device) else "cpu"
    if is_upscaler(find_or_fetch(model or manifest.model)):
        dtype = precision_named(manifest.precision)
        enlarger = load_enlarger(model or manifest.model, dtype=dtype, device=device)
        if not any_weights:
            check_weights(manifest.weights, enlarger)
        return enlarger
    pipeline = load(
        model or manifest.model,
        dtype=precision_named(manifest.precision),
        device=device,
        vae=vae or manifest.vae or None,
        refiner=None if manifest.refiner is None else manifest.refiner.model,
        refine_at=None if manifest.refiner is None else manifest.refiner.at,
        guide=None if manifest.guide is None else manifest.guide.model,
        engine=_engine_of(manifest, device),
        storage=manifest.storage,
    )
    if not any_weights:
        check_weights(manifest.weights, pipeline)
        if manifest.refiner is not None and pipeline.refiner is not None:
            check_weights(manifest.refiner.weights, pipeline.refiner.pipeline)
        if manifest.guide is not None and pipeline.guide is not None:
            check_weights(manifest.guide.weights, pipeline.guide.pipeline)
    pipeline.finish = finish_of(manifest.watermark, manifest.safety)
    pipeline.finish.check()
    for adapter in manifest.adapters:
        pipeline.adapt(adapter.file, adapter.strength)
    for embedding in manifest.embeddings:
        pipeline.embed(embedding.file, embedding.token)
    see_again(manifest, pipeline, any_weights=any_weights)
    if not any_weights:
        check_adapters(manifest, pipeline)
        check_controls(manifest, pipeline)
    return pipeline


def _engine_of(manifest: Manifest, device: str) -> Chosen:
    """The engine that computed the picture; where it is not there, torch, which is told."""
    try:
        return choose_engine(manifest.engine, device, precision_named(manifest.precision))
    except SafelightError as error:
        print(
            f"safelight: {manifest.engine} computed the picture, and cannot here, so that the last "
            f"digits may differ: {error}",
            file=sys.stderr,
        )
        return "torch"


def again(pipeline: ImagePipeline | Enlarger, manifest: Manifest) -> GeneratedImage:
    """The manifest's picture by its pipeline, with its number of threads."""
    request = request_of(manifest)
    alone = isinstance(pipeline, Enlarger)
    steps = manifest.steps if alone else pipeline.settle(request).total_steps
    threads = torch.get_num_threads()
    torch.set_num_threads(manifest.threads)
    try:
        with counting_steps(steps) as on_step:
            [picture] = pipeline.each(request, on_step)
    finally:
        torch.set_num_threads(threads)
    return picture


def check_weights(then: Mapping[str, str], pipeline: ImagePipeline | Enlarger) -> None:
    """Raises `SafelightError` naming the components whose weights did not make the picture."""
    ours = pipeline.weights
    changed = [
        f"{name} ({_short(then.get(name))} then, {_short(ours.get(name))} now)"
        for name in sorted(then.keys() | ours.keys())
        if then.get(name) != ours.get(name)
    ]
    if changed:
        raise SafelightError(
            f"The weights of {pipeline.name!r} are not those that made the picture: "
            f"{', '.join(changed)}. Give the right ones by --model, or --other-weights to go on."
        )


def check_adapters(manifest: Manifest, pipeline: ImagePipeline) -> None:
    """Raises `SafelightError` naming the adapter's or embedding's file that did not make the
    picture.
    """
    pairs = [
        *(("adapter", *pair) for pair in zip(manifest.adapters, pipeline.adapters, strict=True)),
        *(
            ("embedding", *pair)
            for pair in zip(manifest.embeddings, pipeline.embeddings, strict=True)
        ),
    ]
    for what, then, now in pairs:
        if then.sha256 != now.sha256:
            raise SafelightError(
                f"{then.file} is not the {what} that made the picture ({_short(then.sha256)} "
                f"then, {_short(now.sha256)} now). Put the right one there, or give "
                "--other-weights to go on."
            )


def request_of(manifest: Manifest) -> Request:
    """What to ask for to get the manifest's picture."""
    windows = manifest.windows
    return Request(
        manifest.prompt,
        manifest.negative,
        manifest.steps,
        manifest.scale if manifest.guidance.scales is None else None,
        manifest.sampler,
        manifest.seed,
        manifest.width,
        manifest.height,
        given=Given(*(_given_again(part, manifest.given.get(part)) for part in PARTS)),
        strength=manifest.strength,
        image_scale=manifest.image_scale,
        noise_level=manifest.noise_level,
        mask_blur=manifest.mask_blur,
        mask_fill=manifest.mask_fill,
        outpaint=manifest.outpaint,
        hires=manifest.hires,
        tiled_decode=manifest.tiled_decode,
        schedule=manifest.schedule,
        sigmas=manifest.sigmas,
        tiled_diffusion=windows is not None,
        tile_size=None if windows is None else windows.size,
        tile_overlap=None if windows is None else windows.overlap,
        tile_fade=windows is not None and windows.fade,
        prompt_syntax=manifest.prompt_syntax,
        clip_skip=manifest.clip_skip,
        rng=manifest.rng,
        subseed=manifest.subseed,
        subseed_strength=manifest.subseed_strength,
        guidance=manifest.guidance,
        toward=manifest.toward,
        controls=controls_again(manifest),
        conditions=conditions_again(manifest),
        image_prompts=image_prompts_again(manifest),
        quality=manifest.quality,
        token_merging=manifest.token_merging,
        image_prompt_scale=None if manifest.image_prompts is None else manifest.image_prompts.scale,
    )


def _given_again(part: Part, used: UsedPicture | None) -> GivenPicture | None:
    """The picture that was given then; `SafelightError` if it is gone or another."""
    return None if used is None else picture_again(part, used, f"{part} that was given")


_Used = Manifest | UsedRefiner | UsedGuide
"""What weights and configurations are told of."""


def differences(then: Manifest, now: Manifest) -> list[str]:
    """What may have changed the pixels, each as "torch 2.12 -> 2.13", of what `then` tells."""
    models: list[tuple[str, _Used, _Used]] = [("", then, now)]
    if then.refiner is not None and now.refiner is not None:
        models.append(("the refiner's ", then.refiner, now.refiner))
    if then.guide is not None and now.guide is not None:
        models.append(("the guide's ", then.guide, now.guide))
    pairs = {
        **{
            f"{whose}weights of {name}": (
                _short(old.weights.get(name)),
                _short(new.weights.get(name)),
            )
            for whose, old, new in models
            for name in sorted(old.weights.keys() | new.weights.keys())
        },
        **{
            f"{whose}{name}": (_short(old.configuration[name]), _short(new.configuration.get(name)))
            for whose, old, new in models
            for name in sorted(old.configuration)
        },
        **{
            name: (then.versions[name], now.versions.get(name, "none"))
            for name in sorted(then.versions)
        },
        "engine": (then.engine, now.engine),
        "device": (then.device, now.device),
        "machine": (then.machine, now.machine),
    }
    told = [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]
    return told + _server_differences(then) + control_differences(then, now)


def _server_differences(then: Manifest) -> list[str]:
    """What a server did to a picture that is not done again."""
    served = then.served
    if served is None:
        return []
    return [f"{served.batch} pictures shared a batch -> 1"] if served.batch > 1 else []


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
