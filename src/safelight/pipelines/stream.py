"""Pictures one after the other from a prompt, a picture and hints that change meanwhile."""

import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from safelight.config import near
from safelight.errors import SafelightError
from safelight.models.prepared import prepared
from safelight.pipelines.beginning import Batch, first_noise, seeded
from safelight.pipelines.beside import image_tensor
from safelight.pipelines.coding import check_finite, encoded, finished
from safelight.pipelines.controlling import hints_of
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.generated import to_levels
from safelight.pipelines.given import NOTHING, give
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request, Settings
from safelight.pipelines.sampling import one_line_when_out_of_memory
from safelight.pipelines.similarity import Similarity
from safelight.pipelines.stream_settings import (
    Inputs,
    StreamSettings,
    check_one_prompt,
    settle_stream,
)
from safelight.pipelines.stream_steps import (
    NO_HINTS,
    Frame,
    StreamSteps,
    prepared_autoencoder,
    prepared_control,
)
from safelight.rng import after

Picture = str | Path | Image.Image | UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class StreamPicture:
    """A picture of a stream.

    Attributes:
        levels: its pixels, RGB, as bytes.
        number: of the update that it was begun after; later ones are not all in it yet.
    """

    levels: UInt8[np.ndarray, "h w 3"]
    number: int

    @property
    def image(self) -> Image.Image:
        """The same for Pillow."""
        return Image.fromarray(self.levels)


class Stream:
    """A model kept warm, which makes pictures of what it was given last; `safelight.stream` opens
    one.

    `update` may be called from any thread, at any time: it puts what is new into a place that holds
    the newest alone, so that nothing queues up; what comes faster than pictures are made is passed
    over. Pictures are made in the thread that asks for them, by `next` or by iterating. With the
    same noise, steps and sampler they are those of `ImagePipeline.generate` up to rounding.

    Attributes:
        settings: of every picture.
        number: of the newest update.
        passed_over: how many updates no picture was begun with.
    """

    def __init__(self, pipeline: ImagePipeline, wanted: StreamSettings, inputs: Inputs):
        inputs.check()
        self._pipeline, self._wanted = pipeline, wanted
        self.settings: Settings = settle_stream(pipeline, wanted, inputs)
        check_one_prompt(inputs, self.settings)
        with pipeline.with_adapters():
            own = pipeline.folder.unet
            unet = prepared(copy.deepcopy(own) if pipeline.adapters else own)
        self._autoencoder = prepared_autoencoder(pipeline.folder.autoencoder)
        read = pipeline.read(Request("", controls=wanted.controls)).controls
        self._controls = [prepared_control(one) for one in read]
        self._steps = StreamSteps(
            pipeline.model, unet, self.settings, self._controls, wanted.guidance, wanted.delta
        )
        self._tell(inputs)
        self._similar = None if wanted.similarity is None else Similarity(wanted.similarity)
        self._changed = threading.Condition()  # of the next three
        self._newest = inputs
        self.number: int = 0
        self._closed = False
        self._turn = threading.Lock()  # of what follows
        self.passed_over = 0
        self._inputs: Inputs | None = None
        self._seen: int = -1  # the number of the newest update that was looked at
        self._drawn: _Drawn | None = None
        self._entry: Frame | None = None
        self._frames: list[Frame] = []  # on their way, frame i at step i
        self._made: StreamPicture | None = None

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
                has a strength, and what its controls make their hints of.
            hint: in the place of such a hint one that is made already, such as a sketch of lines:
                of the only control, or of each by its kind.
            seed: of the noise.

        Raises:
            SafelightError: one of these cannot be read, or is for none of the controls.
        """
        shown = None if picture is None else _rgb(picture)
        hints = {} if hint is None else self._hints(hint)
        with self._changed:
            newest = self._newest
            new = Inputs(
                newest.prompt if prompt is None else prompt,
                newest.negative if negative is None else negative,
                newest.seed if seed is None else seed,
                newest.picture if shown is None else shown,
                {**newest.hints, **hints},
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
                    lacking = self._newest.lacks(self._wanted)
                    raise SafelightError(f"The stream has no {lacking} yet; update it first.")
                if self._made is not None and self._made.number == self._entry.number:
                    return self._made
                with one_line_when_out_of_memory(self.settings):
                    done = self._advance(self._entry)
                    if done is not None:
                        self._made = self._finished(done)
                        return self._made

    def __iter__(self) -> Iterator[StreamPicture]:
        """New pictures as they are made, until the stream is closed; waits while nothing is new."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_work())
                if self._closed:
                    return
            before = self._made
            picture = self.next()
            if picture is not before:
                yield picture

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
        if self.number > self._seen:
            return self._newest.lacks(self._wanted) is None
        return self._entry is not None and (
            self._made is None or self._made.number != self._entry.number
        )

    def _look(self) -> None:
        """Takes over what is new, unless it is much like what was there."""
        with self._changed:
            new, number = self._newest, self.number
        if number == self._seen or new.lacks(self._wanted):
            return
        passed = number - self._seen - 1
        self._seen = number
        old = self._inputs
        try:
            pixels = self._pixels(new)
            pictured = old is not None and replace(old, picture=new.picture) == new
            if self._similar is not None and pixels is not None:
                like = self._similar.passes_over(pixels)
                if like and pictured:
                    self.passed_over += passed + 1
                    return
            if (new.prompt, new.negative) != self._told:
                self._tell(new)
            self._entry = self._begin(new, pixels, number)
        except SafelightError:
            with self._changed:
                if self.number == number and old is not None:
                    self._newest = old  # what does work
            raise
        self._inputs = new
        self.passed_over += passed

    def _tell(self, inputs: Inputs) -> None:
        with self._pipeline.with_adapters(), torch.inference_mode():
            self._steps.tell(inputs)
        self._told = (inputs.prompt, inputs.negative)

    def _begin(self, inputs: Inputs, pixels: Float[Tensor, "1 3 h w"] | None, number: int) -> Frame:
        """A frame at the first step; draws come in the order of single pictures."""
        model, settings = self._pipeline.model, self.settings
        controls = [self._shown(control, inputs) for control in self._controls]
        batch = Batch([inputs.prompt], [inputs.seed], inputs.negative, settings, NOTHING)
        batch = replace(batch, led=replace(batch.led, controls=controls))
        hints = hints_of(model, batch) if controls else NO_HINTS
        drawn = self._draw(batch)
        if settings.strength is None or pixels is None:
            x = drawn.first * self._steps.initial_scale
            return Frame(x, hints, torch.zeros_like(x), number)
        tiled = settings.tiled_decode
        x0 = encoded(self._autoencoder, pixels.to(model.device), drawn.encoding, tiled=tiled)
        return Frame(x0 + self._steps.levels[0].item() * drawn.first, hints, x0, number)

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
            begun = settings.strength is not None  # from a picture, which is encoded by a draw
            encoding = noise(shape, 0)
            first = first_noise(batch, noise(shape, 1) if begun else encoding)
            self._steps.draw(after(noise, 2) if begun else noise, shape)
            self._drawn = _Drawn(seed, encoding, first)
        return self._drawn

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
        return StreamPicture(to_levels(pixels[0]), frame.number)

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
        return {kind: _rgb(picture) for kind, picture in given.items()}


@dataclass(frozen=True)
class _Drawn:
    """The noise of a seed: what a picture is encoded by, and what x begins with."""

    seed: int
    encoding: Float[Tensor, "1 c h w"]
    first: Float[Tensor, "1 c h w"]


def _rgb(picture: Picture) -> Image.Image:
    """A picture in RGB that nothing else changes."""
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture.copy())
    if isinstance(picture, Image.Image) and picture.mode == "RGB":
        return picture.copy()
    given = give("image", picture)
    assert given is not None
    return given.picture
