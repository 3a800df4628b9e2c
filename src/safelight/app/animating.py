"""Clips made, shown as they progress; and made again from their manifests."""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safelight.app.adapters import chosen_adapters
from safelight.app.outputs import check_file, slug
from safelight.app.remaking_controls import picture_again
from safelight.engine.names import Storage
from safelight.errors import SafelightError
from safelight.pipelines.clip_files import clip_suffix
from safelight.pipelines.clip_manifest import ClipManifest
from safelight.pipelines.clip_request import ClipRequest
from safelight.pipelines.given import GivenPicture
from safelight.pipelines.load import has_device
from safelight.pipelines.load_video import load_video
from safelight.pipelines.manifest import UsedPicture
from safelight.pipelines.precisions import precision_named
from safelight.pipelines.video import GeneratedClip, OnFrames, VideoPipeline


def clip_target(output: Path | None, image: Path | None, prompt: str) -> Path:
    """Where a clip goes; `SafelightError` if it cannot be written there."""
    if output is None:
        stem = slug(prompt) if image is None else image.stem
        output = Path(f"{stem}{'.mp4' if find_spec('av') else '.webp'}")
    if clip_suffix(output):
        check_file(output)
    elif not output.absolute().parent.is_dir():
        raise SafelightError(
            f"The folder {output.absolute().parent} does not exist; make it first."
        )
    return output


def animated(
    request: ClipRequest,
    *,
    model: str,
    motion_module: str | None,
    lora: Sequence[str],
    precision: str,
    device: str,
    offload: bool,
    storage: Storage | None,
    offline: bool,
) -> GeneratedClip:
    """The clip of a request by the model of a name; errors as `load_video` and `animate`."""
    pipeline = load_video(
        model,
        motion_module=motion_module,
        adapters=chosen_adapters(lora, offline=offline),
        dtype=precision_named(precision),
        device=device,
        offload=offload,
        storage=storage,
        offline=offline,
    )
    return _made(pipeline, request)


@dataclass(frozen=True)
class RemadeClip:
    """A clip made again, whether its pixels are the same, and that in words."""

    clip: GeneratedClip
    same: bool
    verdict: str


def remake_clip(
    manifest: ClipManifest, *, model: str | None = None, any_weights: bool = False
) -> RemadeClip:
    """Makes the manifest's clip again, on its device and with its number of threads.

    `model` stands in for the one that the manifest names. Raises `SafelightError` if there is no
    such model, or if weights or pictures are others, the first unless `any_weights`.
    """
    used = manifest.motion_module
    pipeline = load_video(
        model or manifest.model,
        motion_module=None if used is None else used.file,
        adapters={adapter.file: adapter.strength for adapter in manifest.adapters},
        dtype=precision_named(manifest.precision),
        device=manifest.device if has_device(manifest.device) else "cpu",
        storage=manifest.storage,
    )
    if not any_weights:
        _check_weights(manifest, pipeline)
    threads = torch.get_num_threads()
    torch.set_num_threads(manifest.threads)
    try:
        clip = _made(pipeline, request_again(manifest))
    finally:
        torch.set_num_threads(threads)
    if clip.manifest.pixels == manifest.pixels:
        return RemadeClip(clip, True, "the same pixels.")
    causes = _differences(manifest, clip.manifest)
    reason = f" Changed since: {'; '.join(causes)}." if causes else ""
    return RemadeClip(clip, False, f"the pixels are not the same.{reason}")


def request_again(manifest: ClipManifest) -> ClipRequest:
    """What to ask for to get the manifest's clip; `SafelightError` if its pictures are gone."""
    settings = manifest.settings
    return ClipRequest(
        _again(manifest.image, "picture of the first frame"),
        _again(manifest.last, "picture of the last frame"),
        manifest.prompt,
        manifest.negative,
        settings.frames,
        settings.fps,
        settings.motion if "motion" in settings.told else None,
        settings.augmentation if "augmentation" in settings.told else None,
        settings.loop,
        settings.steps,
        settings.scale,
        settings.first_scale,
        settings.sampler,
        manifest.seed,
        settings.width,
        settings.height,
        settings.window,
        settings.overlap,
        settings.decode,
        settings.low_memory,
        settings.prompt_syntax,
    )


def _made(pipeline: VideoPipeline, request: ClipRequest) -> GeneratedClip:
    settings = pipeline.settle(request)
    with _counting_frames(settings.frames, settings.steps) as on_frames:
        return pipeline.make(request, on_frames)


@contextmanager
def _counting_frames(frames: int, steps: int) -> Generator[OnFrames]:
    """Gives a callback that advances a bar, which only a terminal shows."""
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task(f"step 0 of {steps}")

        def on_frames(done: int, total: int) -> None:
            each = total // (steps + 1)  # a loop may take a frame more
            step, decoded = min(done // each, steps), max(done - steps * each, 0)
            told = f"frame {decoded} of {frames}" if step == steps else f"step {step} of {steps}"
            progress.update(bar, completed=done, total=total, description=told)

        yield on_frames


def _again(used: UsedPicture | None, what: str) -> GivenPicture | None:
    return None if used is None else picture_again("image", used, what)


def _check_weights(then: ClipManifest, pipeline: VideoPipeline) -> None:
    changed = [
        *_changes("", then.weights, pipeline.weights),
        *_changes("", _motion(then), _motion_now(pipeline)),
        *_changes(
            "",
            {adapter.file: adapter.sha256 for adapter in then.adapters},
            {adapter.file: adapter.sha256 for adapter in pipeline.adapters},
        ),
    ]
    if changed:
        raise SafelightError(
            f"The weights of {pipeline.name!r} are not those that made the clip: "
            f"{', '.join(changed)}. Give the right ones by --model, or --other-weights to go on."
        )


def _motion(manifest: ClipManifest) -> dict[str, str]:
    used = manifest.motion_module
    return {} if used is None else {"the motion module": used.sha256}


def _motion_now(pipeline: VideoPipeline) -> dict[str, str]:
    return {} if pipeline.motion is None else {"the motion module": pipeline.motion.sha256}


def _differences(then: ClipManifest, now: ClipManifest) -> list[str]:
    """What may have changed the pixels, each as "torch 2.12 -> 2.13"."""
    return [
        *_changes("weights of ", then.weights, now.weights),
        *_changes("", then.configuration, now.configuration),
        *_changes("", then.versions, now.versions),
        *_changes("", {"device": then.device}, {"device": now.device}),
        *_changes("", {"machine": then.machine}, {"machine": now.machine}),
    ]


def _changes(what: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{what}{name} {then.get(name, 'none')[:12]} -> {now.get(name, 'none')[:12]}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
