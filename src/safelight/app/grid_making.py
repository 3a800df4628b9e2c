"""Grids of pictures: planned cell by cell, made, and made again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from safelight.app.job import Job, Loading
from safelight.app.making import counting_steps, loaded, warn_of_cut
from safelight.app.remaking import again, differences, prepared
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.grid_manifest import GridManifest
from safelight.pipelines.grid_picture import grid_picture
from safelight.pipelines.manifest import Manifest, pixel_digest
from safelight.pipelines.picture_files import Texts, write_with_texts


@dataclass(frozen=True)
class Grid:
    """A picture of pictures, and what made it."""

    image: Image.Image
    manifest: GridManifest

    def save(self, path: Path) -> None:
        """Writes it with its manifest; errors as `write_picture`."""
        write_with_texts(path, self.image, Texts(self.manifest.to_json()))


def make_grid(
    jobs: Sequence[Job],
    x: Sequence[str],
    y: Sequence[str],
    axes: dict[str, tuple[str, ...]],
) -> Grid:
    """The pictures of the jobs, one each, row by row, under the labels `x` and beside `y`.

    Every cell is checked with its model before the first is begun; a model is in memory once.
    """
    loadings = list(dict.fromkeys(job.loading for job in jobs))
    pipeline, steps = None, 0
    for loading in loadings:
        pipeline = None  # frees the one before
        pipeline = loaded(loading)
        told: set[tuple[str, str]] = set()
        for [request] in (job.given_requests() for job in jobs if job.loading == loading):
            settings = pipeline.settle(request)
            steps += settings.total_steps
            if (request.prompt, request.negative) not in told:
                warn_of_cut(pipeline, request, settings)
            told.add((request.prompt, request.negative))
    made: dict[int, GeneratedImage] = {}
    with counting_steps(steps) as on_step:
        for loading in reversed(loadings):  # the last is loaded
            if pipeline is None:
                pipeline = loaded(loading)
            for place in _places(jobs, loading):
                [request] = jobs[place].given_requests()
                [made[place]] = pipeline.each(request, on_step)
            pipeline = None
    return joined([made[place] for place in range(len(jobs))], x, y, axes)


def remake_grid(
    then: GridManifest, *, model: str | None, vae: str | None, any_weights: bool
) -> tuple[Grid, bool, str]:
    """The grid made again, whether its pixels are the same, and that in words; `model` and `vae`
    stand in for those of every cell, and errors are as those of `prepared`.
    """
    made: list[GeneratedImage] = []
    pipeline, former = None, None
    for cell in then.cells:
        if pipeline is None or former is None or not _same_machinery(former, cell):
            pipeline = None  # frees the one before
            pipeline = prepared(cell, model=model, vae=vae, any_weights=any_weights)
        made.append(again(pipeline, cell))
        former = cell
    grid = joined(made, then.x, then.y, then.axes)
    if grid.manifest.pixels == then.pixels:
        return grid, True, "the same pixels."
    pairs = zip(then.cells, made, strict=True)
    causes = [cause for cell, now in pairs for cause in differences(cell, now.manifest)]
    reason = f" Changed since: {'; '.join(dict.fromkeys(causes))}." if causes else ""
    return grid, False, f"the pixels are not the same.{reason}"


def _places(jobs: Sequence[Job], loading: Loading) -> Iterator[int]:
    return (place for place, job in enumerate(jobs) if job.loading == loading)


def joined(
    made: Sequence[GeneratedImage],
    x: Sequence[str],
    y: Sequence[str],
    axes: dict[str, tuple[str, ...]],
) -> Grid:
    """Pictures, row by row, under the labels `x` and beside `y`."""
    rows = [made[start : start + len(x)] for start in range(0, len(made), len(x))]
    image = grid_picture([[cell.image for cell in row] for row in rows], x, y)
    cells = tuple(cell.manifest for cell in made)
    return Grid(image, GridManifest(tuple(x), tuple(y), cells, pixel_digest(image), axes))


def _same_machinery(one: Manifest, other: Manifest) -> bool:
    """Whether two pictures were made by one pipeline."""

    def machinery(manifest: Manifest) -> list[object]:
        model = [manifest.model, manifest.vae, manifest.weights, manifest.refiner, manifest.guide]
        put_in = [manifest.adapters, manifest.embeddings]
        how = [manifest.precision, manifest.device, manifest.engine, manifest.storage]
        return [*model, *put_in, *how]

    return machinery(one) == machinery(other)
