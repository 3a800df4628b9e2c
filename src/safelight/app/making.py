"""Pictures made one after the other, shown as they progress and written as each is done."""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from safelight.app.adapters import chosen_adapters, chosen_embeddings
from safelight.app.job import Loading
from safelight.engine.names import BY_TORCH
from safelight.pipelines.finishing import Finish
from safelight.pipelines.hub import find_part
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.picture_files import write_preview
from safelight.pipelines.precisions import precision_named
from safelight.pipelines.previews import Previewer, quick_previewer
from safelight.pipelines.request import Request, Settings
from safelight.types import OnStep


def loaded(loading: Loading) -> ImagePipeline:
    """The pipeline that is asked for; errors as `load`, and for files that are not there."""
    pipeline = load(
        loading.model,
        dtype=precision_named(loading.precision),
        device=loading.device,
        adapters=chosen_adapters(loading.lora, offline=loading.offline),
        embeddings=chosen_embeddings(loading.embedding, offline=loading.offline),
        vae=loading.vae,
        refiner=loading.refiner,
        refine_at=loading.refine_at,
        guide=loading.guide,
        engine=loading.engine,
        storage=loading.storage,
        offload=loading.offload,
        offline=loading.offline,
    )
    if loading.ip_adapter is not None:
        pipeline.see_by(loading.ip_adapter, loading.image_encoder, offline=loading.offline)
    pipeline.finish = Finish(loading.watermark, loading.safety)
    pipeline.finish.check()
    return pipeline


def make_pictures(
    pipeline: ImagePipeline,
    requests: Sequence[Request],
    paths: Sequence[Sequence[Path]],
    preview: OnStep | None = None,
    *,
    infotext: bool = False,
) -> None:
    """Writes picture i of request r to `paths[r][i]` and prints each path once it is there.

    All requests are checked before the first picture is begun. `preview` is called after each step;
    with `infotext`, pictures carry one beside their manifests.
    """
    settled = [pipeline.settle(request) for request in requests]
    for request, settings in zip(requests, settled, strict=True):
        warn_of_cut(pipeline, request, settings)
    steps = sum(r.count * s.total_steps for r, s in zip(requests, settled, strict=True))
    with counting_steps(steps) as count:
        on_step = count if preview is None else _each(count, preview)
        for request, targets in zip(requests, paths, strict=True):
            pictures = pipeline.each(request, on_step)
            for path, picture in zip(targets, pictures, strict=True):
                picture.save(path, infotext=infotext)
                print(path, flush=True)
    if pipeline.engine not in BY_TORCH:
        print(f"safelight: the networks were computed by {pipeline.engine}.", file=sys.stderr)


@contextmanager
def counting_steps(total: int) -> Generator[OnStep]:
    """Gives a callback that advances a bar of `total` steps, which only a terminal shows."""
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("", total=total)

        def on_step(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            progress.advance(bar)

        yield on_step


def previewed(pipeline: ImagePipeline, file: Path, vae: str | None) -> OnStep:
    """A callback that writes the picture to come into `file` after each step, decoded by the
    autoencoder at `vae`, else as `quick_previewer` does it.

    Raises `SafelightError` if that is no autoencoder for the pipeline's U-Net.
    """
    if vae is None:
        previewer = quick_previewer(pipeline.folder.autoencoder)
    else:
        previewer = Previewer(pipeline.autoencoder_at(find_part(vae)))
    return previewer.showing(partial(write_preview, file))


def _each(*callbacks: OnStep) -> OnStep:
    def on_step(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        for callback in callbacks:
            callback(step, sigma, x, denoised)

    return on_step


def warn_of_cut(pipeline: ImagePipeline, request: Request, settings: Settings) -> None:
    """Says on standard error which end of a too long prompt the model does not see."""
    texts = {"prompt": request.prompt, "negative prompt": request.negative}
    if request.toward is not None:
        texts["second prompt"] = request.toward.prompt
    for name, text in texts.items():
        rest = pipeline.unread(text, settings.prompt_syntax)
        if rest:
            print(
                f"safelight: the {name} is too long for this model, which does not see {rest!r}.",
                file=sys.stderr,
            )
