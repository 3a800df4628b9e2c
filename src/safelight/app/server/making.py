"""Jobs to pictures, in the worker: one after the other, or several in a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from safelight.app.server.asked import Asked, request_of
from safelight.app.server.config import Working
from safelight.app.server.estimates import weights_of
from safelight.app.server.grids import cells_of
from safelight.app.server.inside_view import view_of_inside
from safelight.app.server.models import Loaded
from safelight.app.server.records import Job, Picture
from safelight.app.server.uploads import reopened, suffix_of
from safelight.errors import SafelightError
from safelight.pipelines.beginning import NOT_LED
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.infotext_written import infotext_of
from safelight.pipelines.inside import look_inside
from safelight.pipelines.manifest import Served
from safelight.pipelines.picture_files import encode_picture
from safelight.pipelines.previews import Previewer
from safelight.pipelines.recording import record
from safelight.pipelines.request import Request, Settings

Stop = Callable[[str], "type[Exception] | None"]
"""Says of a job, by its id, whether and why its sampling is to stop: one of the classes below."""


class CancelledError(Exception):
    """The job is no longer wanted."""


class SkippedError(Exception):
    """This picture of the job is not wanted, others may be."""


class TimeUpError(Exception):
    """The job has had the time that a job may have."""


@dataclass(frozen=True)
class Step:
    """How far a picture is, and perhaps what it looks like."""

    job: str
    place: int
    step: int  # done, of `steps`
    steps: int
    preview: Image.Image | None


@dataclass(frozen=True)
class Cell:
    """One picture's own request, which makes it again alone, and what the model makes of it."""

    request: Request
    settings: Settings


@dataclass(frozen=True)
class Work:
    """A claimed job, its request read."""

    job: Job
    asked: Asked
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Row:
    """One picture of a job."""

    work: Work
    place: int

    @property
    def request(self) -> Request:
        """What is asked for."""
        return self.work.cells[self.place].request

    @property
    def settings(self) -> Settings:
        """The same with nothing left open."""
        return self.work.cells[self.place].settings


@dataclass(frozen=True)
class Hooks:
    """What making tells while it goes on, and asks: `put` gives whether the job is still wanted."""

    stop: Stop
    step: Callable[[Step], None]
    put: Callable[[str, int, Picture], bool]


def read_work(job: Job, inputs: dict[str, bytes], loaded: Loaded, working: Working) -> Work:
    """A job made ready for a model.

    Raises `SafelightError` for what the model cannot do, and pictures that are larger than may be.
    """
    asked = Asked.model_validate_json(job.spec)
    pictures = {name: reopened(content) for name, content in inputs.items()}
    cells: list[Cell] = []
    for one in cells_of(asked):
        request = _with_annotators(request_of(one, pictures), working.annotators)
        settings = loaded.pipeline.settle(request)
        _check_size(settings, working.pixels)
        for place in range(request.count):
            seed, subseed = request.seeds_at(place)
            alone = replace(request, seed=seed, subseed=subseed, count=1)
            cells.append(Cell(alone, settings))
    return Work(job, asked, tuple(cells))


def _with_annotators(request: Request, annotators: Mapping[str, Path]) -> Request:
    """The same with the weights of the networks that make its hints."""
    controls = tuple(
        one if one.hint else replace(one, annotator=weights_of(one.kind, annotators))
        for one in request.controls
    )
    return replace(request, controls=controls)


def _check_size(settings: Settings, most: int) -> None:
    if pixels_of(settings) > most:
        scale = 1.0 if settings.hires is None else settings.hires.scale
        raise SafelightError(
            f"A picture of {settings.width * scale:.0f} x {settings.height * scale:.0f} pixels is "
            f"larger than this server makes ({most} pixels); ask for a smaller one."
        )


def pixels_of(settings: Settings) -> float:
    """Of a picture, after its second pass."""
    scale = 1.0 if settings.hires is None else settings.hires.scale
    return settings.width * scale * settings.height * scale


def make_alone(row: Row, loaded: Loaded, hooks: Hooks) -> None:
    """Makes and puts one picture, the same bits as `safelight generate` makes.

    Raises `SafelightError`, and what `hooks.stop` names.
    """
    watch = _Watch([row], loaded, hooks)
    most = row.work.asked.inside
    if most and loaded.pipeline.finish.safety:
        raise SafelightError("Where pictures are checked, none is looked into; leave inside out.")
    if most:
        decoder = Previewer(loaded.pipeline.folder.autoencoder)
        seen = look_inside(loaded.pipeline, row.request, most, decoder, watch)
        _put(row, seen.picture, hooks, view_of_inside(seen).model_dump_json())
    else:
        [picture] = loaded.pipeline.each(row.request, watch)
        _put(row, picture, hooks)


def make_batch(rows: Sequence[Row], loaded: Loaded, hooks: Hooks) -> None:
    """Makes and puts pictures of equal settings and negative prompt in one batch; errors as
    `make_alone`. Of jobs that are cancelled meanwhile nothing is put.
    """
    pipeline, first = loaded.pipeline, rows[0]
    pixels = pipeline.sample(
        [row.request.prompt for row in rows],
        [row.request.seed for row in rows],
        first.settings,
        negative=first.request.negative,
        on_step=_Watch(rows, loaded, hooks),
    )
    for row, one in zip(rows, pixels, strict=True):
        finished = pipeline.finish(to_image(one))
        manifest = record(pipeline, row.request, NOT_LED, 0, row.settings, finished)
        manifest = replace(manifest, served=Served(batch=len(rows)))
        _put(row, GeneratedImage(finished.image, manifest), hooks)


class _Watch:
    """Counts a batch's steps, shows them, and ends them where no row is wanted any more."""

    def __init__(self, rows: Sequence[Row], loaded: Loaded, hooks: Hooks):
        self.rows, self.previewer, self.hooks = rows, loaded.previewer, hooks
        self.shows = not loaded.pipeline.finish.safety  # which has looked at none of these yet
        self.steps = rows[0].settings.total_steps
        self.done = 0

    def __call__(self, step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        self.done += 1
        reasons = [self.hooks.stop(row.work.job.id) for row in self.rows]
        wanted = [row for row, reason in zip(self.rows, reasons, strict=True) if reason is None]
        if not wanted and reasons[0] is not None:
            raise reasons[0]()
        shown = [i for i, row in enumerate(self.rows) if row in wanted and self._shows(row)]
        pictures = dict(zip(shown, self.previewer(denoised[shown]), strict=True)) if shown else {}
        for i, row in enumerate(self.rows):
            if row in wanted:
                told = Step(row.work.job.id, row.place, self.done, self.steps, pictures.get(i))
                self.hooks.step(told)

    def _shows(self, row: Row) -> bool:
        """Whether this is one of the steps that a job wants to see; they are evenly spread, and
        the last one is no preview any more.
        """
        most = min(row.work.asked.previews, self.steps - 1)
        before, now = ((done * (most + 1)) // self.steps for done in (self.done - 1, self.done))
        return self.shows and self.done < self.steps and now > before


def _put(row: Row, picture: GeneratedImage, hooks: Hooks, inside: str = "") -> None:
    asked, manifest = row.work.asked, picture.manifest
    suffix = suffix_of(asked.format)
    text = str(infotext_of(manifest)) if asked.infotext else None
    content = encode_picture(f"picture{suffix}", picture.image, manifest, text)
    media = f"image/{asked.format}"
    made = Picture(content, media, manifest.seed, manifest.to_json(), inside)
    wanted = hooks.put(row.work.job.id, row.place, made)
    if not wanted:
        raise CancelledError
