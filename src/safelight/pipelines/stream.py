"""Pictures one after the other from a prompt, a picture and hints that change meanwhile."""

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.config import near
from safelight.errors import SafelightError
from safelight.nn.substitute import substituted
from safelight.pipelines.beginning import Batch, Model, first_noise, seeded
from safelight.pipelines.beside import image_tensor
from safelight.pipelines.coding import check_finite, encoded, encoding_draws, finished
from safelight.pipelines.controlling import hints_of
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.generated import to_levels
from safelight.pipelines.given import NOTHING
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request, Settings
from safelight.pipelines.sampling import one_line_when_out_of_memory
from safelight.pipelines.similarity import Similarity
from safelight.pipelines.stream_engines import chosen_parts
from safelight.pipelines.stream_pictures import Picture, StreamPicture, rgb
from safelight.pipelines.stream_settings import (
    Inputs,
    StreamSettings,
    check_one_prompt,
    settle_stream,
)
from safelight.pipelines.stream_steps import NO_HINTS, Frame
from safelight.rng import after


class Stream:
    """A model kept warm, which makes pictures of what it was given last; `safelight.stream` opens
    one.

    `update` may be called from any thread, at any time: it puts what is new into a place that holds
    the newest alone, so that nothing queues up; what comes faster than pictures are made is passed
    over. Pictures are made in the thread that asks for them, by `next` or by iterating. With the
    same noise, steps and sampler they are those of `ImagePipeline.generate` up to rounding.

    Attributes:
        settings: of every picture.
        engine: what computes the networks.
        number: of the newest update.
        passed_over: how many updates no picture was begun with.
    """

    def __init__(self, pipeline: ImagePipeline, wanted: StreamSettings, inputs: Inputs):
        inputs.check()
        self._pipeline, self._wanted = pipeline, wanted
        self.settings: Settings = settle_stream(pipeline, wanted, inputs)
        check_one_prompt(inputs, self.settings)
        self._controls = pipeline.read(Request("", controls=wanted.controls)).controls
        with pipeline.with_adapters(), torch.inference_mode():
            self._model = _as_it_is(pipeline.model)
            self.engine, self._autoencoder, self._steps = chosen_parts(
                self._model, self.settings, wanted, self._controls, inputs
            )
        self._told = (inputs.prompt, inputs.negative)
        self._similar = None if wanted.similarity is None else Similarity(wanted.similarity)
        self._changed = threading.Condition()  # of the next four
        self._newest = inputs
        self.number: int = 0
        self._closed = False
        self._made: StreamPicture | None = None
        self._turn = threading.Lock()  # of what follows
        self.passed_over = 0
        self._inputs: Inputs | None = None  # what the newest picture was begun with
        self._looked: Inputs | None = None  # the newest that were begun with, or refused
        self._seen: int = 0  # the number of their update
        self._refusal: SafelightError | None = None  # of the first ones
        self._drawn: _Drawn | None = None
        self._entry: Frame | None = None
        self._failed: Frame | None = None  # the entry that no picture came of
        self._frames: list[Frame] = []  # on their way, frame i at step i

    def update(
        self,
        *,
        prompt: str | None = None,
        negative: str | None = None,
        picture: Picture | None = None,
        hint: Picture | Mapping[str, Picture] | None = None,
        seed: int | None = None,
    ) -> int:
        """Takes what is new; what is None stays as it was. Gives the update's number.

        Args:
            prompt, negative: as of single pictures; of all frames on their way, too.
            picture: a file, a picture or its bytes (h, w, 3): what is begun from where the stream
                has a strength, and what its controls make their hints of; hints given before
                then stay of controls alone whose hints are made already.
            hint: in the place of such a hint one that is made already, such as a sketch of lines:
                of the only control, or of each by its kind.
            seed: of the noise.

        Raises:
            SafelightError: one of these cannot be read, or is for none of the controls.
        """
        shown = None if picture is None else rgb(picture)
        hints = {} if hint is None else self._hints(hint)
        with self._changed:
            newest = self._newest
            kept = newest.hints if shown is None else self._lasting(newest.hints)
            new = Inputs(
                newest.prompt if prompt is None else prompt,
                newest.negative if negative is None else negative,
                newest.seed if seed is None else seed,
                newest.picture if shown is None else shown,
                {**kept, **hints} if hints else kept,
            )
            if prompt is not None or negative is not None or seed is not None:
                new.check()
                check_one_prompt(new, self.settings)
            self._newest = new
            self.number += 1
            self._changed.notify_all()
            return self.number

    @property
    def newest(self) -> Inputs:
        """What it was given last."""
        with self._changed:
            return self._newest

    @property
    def takes_hints(self) -> bool:
        """Whether its controls are steered by hints that are made already."""
        return any(control.hint for control in self._wanted.controls)

    @property
    def takes_pictures(self) -> bool:
        """Whether a picture or a hint changes anything."""
        return self._wanted.strength is not None or bool(self._wanted.controls)

    def next(self) -> StreamPicture:
        """The picture of what was given last, made now; where nothing is new, the last one again.

        With `batched` it is that of as many updates before as there are steps, but for the first.

        Raises:
            SafelightError: the stream is closed, what it needs was not given yet, or the model
                gives what is no number.
        """
        with self._turn, torch.inference_mode():
            while True:
                if self._closed:
                    raise SafelightError("The stream is closed; open another.")
                self._look()
                if self._entry is None:
                    raise self._missing()
                if self._made is not None and self._made.number == self._entry.number:
                    return self._made
                made = self._further(self._entry)
                if made is not None:
                    with self._changed:
                        self._made = made
                        self._changed.notify_all()
                    return made

    def __iter__(self) -> Iterator[StreamPicture]:
        """New pictures as they are made, here or by another thread, until the stream is closed;
        waits while nothing is new. Raises as `next`; who iterates once more then waits for what is
        new after that.
        """
        last = self._made
        while True:
            self._await(last)
            try:
                picture = self.next()
            except SafelightError:
                if self._closed:
                    return
                raise
            if picture is not last:
                last = picture
                yield picture

    def _await(self, last: StreamPicture | None) -> None:
        """Waits for the end, or for another picture or what one may come of."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._made is not last or self._has_work()
            )

    def close(self) -> None:
        """Ends the stream; who iterates comes to an end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has_work(self) -> bool:
        """Whether a picture may come of what was given; nothing that failed is tried again."""
        if self._newest is not self._looked:
            return self._newest.lacks(self._wanted) is None
        entry, made = self._entry, self._made
        pending = entry is not None and (made is None or made.number != entry.number)
        return pending and entry is not self._failed

    def _missing(self) -> SafelightError:
        """Why there is nothing to make a picture of."""
        lacking = self._newest.lacks(self._wanted)
        if lacking is None and self._refusal is not None:
            return SafelightError(str(self._refusal))
        return SafelightError(f"The stream has no {lacking} yet; update it first.")

    def _look(self) -> None:
        """Takes over what is new, unless it is much like what was there: all of it or, where some
        of it is refused, nothing, so that the stream goes on with what it had.
        """
        with self._changed:
            new, number = self._newest, self.number
        if new is self._looked or new.lacks(self._wanted):
            return
        said = (new.prompt, new.negative)
        with self._taken_back(new, number, words=True):
            words = None if said == self._told else self._steps.read(new)
        with self._taken_back(new, number, words=False):
            pixels = self._pixels(new)
            passed = self._is_passed_over(new, pixels)
            entry = None if passed else self._begin(new, pixels, number)
        if entry is not None:
            if words is not None:
                self._steps.tell(words)
                self._told = said
            if self._similar is not None and pixels is not None:
                self._similar.begun(pixels)
            self._inputs, self._entry = new, entry
        self._looked = new
        self.passed_over += max(0, number - self._seen - (not passed))
        self._seen = number

    def _is_passed_over(self, new: Inputs, pixels: Tensor | None) -> bool:
        if self._similar is None or pixels is None or self._inputs is None:
            return False
        return new.differs_by_picture(self._inputs) and self._similar.passes_over(pixels)

    @contextmanager
    def _taken_back(self, new: Inputs, number: int, *, words: bool) -> Generator[None]:
        """Takes back what the newest inputs brought that is refused: prompts, if `words`, else the
        picture and hints. The first ones stay, and are not looked at again.
        """
        try:
            with one_line_when_out_of_memory(self.settings):
                yield
        except SafelightError as error:
            with self._changed:
                before, newest = self._inputs, self._newest
                if before is None:
                    self._refusal, self._looked, self._seen = error, new, number
                    raise
                back = newest.without(new, before, words=words)
                if back.same(before) or back.same(new):  # nothing good is left, or none to blame
                    self._newest = self._looked = before
                    self.passed_over += number - self._seen
                    self._seen = number
                else:
                    self._newest = back
            raise

    def _begin(self, inputs: Inputs, pixels: Float[Tensor, "1 3 h w"] | None, number: int) -> Frame:
        """A frame at the first step; draws come in the order of single pictures."""
        model, settings = self._model, self.settings
        controls = [self._shown(control, inputs) for control in self._controls]
        batch = Batch([inputs.prompt], [inputs.seed], inputs.negative, settings, NOTHING)
        batch = replace(batch, led=replace(batch.led, controls=controls))
        hints = hints_of(model, batch) if controls else NO_HINTS
        drawn = self._draw(batch)
        if settings.strength is None or pixels is None:
            x = drawn.first * self._steps.initial_scale
            return Frame(x, hints, torch.zeros_like(x), number, drawn.steps)
        tiled = settings.tiled_decode
        x0 = encoded(self._autoencoder, pixels.to(model.device), drawn.encoding, tiled=tiled)
        x = x0 + self._steps.levels[0].item() * drawn.first
        return Frame(x, hints, x0, number, drawn.steps)

    def _draw(self, batch: Batch) -> "_Drawn":
        """The noise of a seed, drawn once."""
        [seed] = batch.seeds
        if self._drawn is None or self._drawn.seed != seed:
            settings, folder = self.settings, self._pipeline.folder
            height, width = (
                side // folder.autoencoder.factor for side in (settings.height, settings.width)
            )
            shape = (1, folder.unet.config.out_channels, height, width)
            noise = seeded(batch, self._pipeline.device)
            begun = settings.strength is not None  # from a picture, which may be encoded by a draw
            encoding, coding = noise(shape, 0), encoding_draws(folder.autoencoder) if begun else 0
            first = first_noise(batch, noise(shape, coding))
            steps = self._steps.draw(after(noise, coding + 1), shape)
            self._drawn = _Drawn(seed, encoding, first, steps)
        return self._drawn

    def _further(self, entry: Frame) -> StreamPicture | None:
        """The picture that is done by moving the frames on, if one is."""
        try:
            with one_line_when_out_of_memory(self.settings):
                done = self._advance(entry)
                return None if done is None else self._finished(done)
        except SafelightError:
            self._failed = entry
            raise

    def _advance(self, entry: Frame) -> Frame | None:
        """The frame that has taken its last step, if one has."""
        steps = self._steps
        if not self._wanted.batched:
            frames = [entry]
            for step in range(steps.count):
                frames = steps(frames, step)
            return frames[0]
        self._frames = steps([entry, *self._frames])
        return self._frames.pop() if len(self._frames) == steps.count else None

    def _finished(self, frame: Frame) -> StreamPicture:
        z = frame.x * self._steps.final_scale
        check_finite(z, self._pipeline.name, self._pipeline.dtype)
        pixels = finished(self._autoencoder, z, tiled=self.settings.tiled_decode)
        levels = to_levels(pixels[0])
        levels.setflags(write=False)  # the same ones may be given again
        return StreamPicture(levels, frame.number)

    def _pixels(self, inputs: Inputs) -> Float[Tensor, "1 3 h w"] | None:
        if inputs.picture is None:
            return None
        return image_tensor(inputs.picture, self.settings.width, self.settings.height)

    def _shown(self, control: ReadControl, inputs: Inputs) -> ReadControl:
        kind = control.control.kind
        if kind in inputs.hints:
            return control.of(inputs.hints[kind], hint=True)
        if inputs.picture is not None and not control.control.hint:
            return control.of(inputs.picture)
        return control

    def _lasting(self, hints: Mapping[str, Image.Image]) -> Mapping[str, Image.Image]:
        """The hints that a new picture leaves: of controls that make none of it."""
        lasting = {control.kind for control in self._wanted.controls if control.hint}
        if lasting.issuperset(hints):
            return hints
        return {kind: hint for kind, hint in hints.items() if kind in lasting}

    def _hints(self, given: Picture | Mapping[str, Picture]) -> dict[str, Image.Image]:
        kinds = [control.kind for control in self._wanted.controls]
        if not isinstance(given, Mapping):
            if len(kinds) != 1:
                raise SafelightError(
                    f"A hint is of one control; the stream has {', '.join(kinds) or 'none'}."
                )
            given = {kinds[0]: given}
        for kind in given:
            if kind not in kinds:
                raise SafelightError(f"The stream has no control {kind!r}. {near(kind, kinds)}")
        return {kind: rgb(picture) for kind, picture in given.items()}


@dataclass(frozen=True)
class _Drawn:
    """The noise of a seed: what a picture is encoded by, what x begins with, what steps add."""

    seed: int
    encoding: Float[Tensor, "1 c h w"]
    first: Float[Tensor, "1 c h w"]
    steps: Float[Tensor, "n c h w"] | None


def _as_it_is(model: Model) -> Model:
    """A model whose text towers stay as they are now, whatever adapters come and go."""
    towers = tuple(substituted(tower, {}) for tower in model.text.towers)
    return replace(model, text=replace(model.text, towers=towers))
