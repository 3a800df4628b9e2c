"""What a stream computes by, warmed before the stream is open."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from safelight.engine.choosing import Chosen, choose_engine
from safelight.engine.networks import accelerated_autoencoder
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.pipelines.beginning import Batch, Model
from safelight.pipelines.coding import encoded, finished
from safelight.pipelines.controlling import Hints, hints_of
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.given import NOTHING
from safelight.pipelines.request import Settings
from safelight.pipelines.stream_settings import Inputs, StreamSettings
from safelight.pipelines.stream_steps import NO_HINTS, Frame, StreamSteps

Parts = tuple[Chosen, AnyAutoencoder, StreamSteps]


@dataclass(frozen=True)
class Engines:
    """The networks of a stream by one engine or another; call under `torch.inference_mode`."""

    model: Model
    settings: Settings
    wanted: StreamSettings
    controls: Sequence[ReadControl]
    inputs: Inputs  # that the stream begins with

    def chosen(self) -> Parts:
        """The engine that is wanted, with the autoencoder and the steps; those of torch where none
        is asked for by its name and the other does not compute them.

        Raises `SafelightError` if what is asked for is not there, or does not.
        """
        engine = choose_engine(self.wanted.engine, self.model.device, self.model.dtype)
        if engine == "torch":
            return self._by(engine)
        try:
            parts = self._by(engine)
            self._warm(parts)
        except SafelightError as error:
            if self.wanted.engine != "auto":
                raise
            warnings.warn(f"torch computes this stream: {error}", stacklevel=2)
            return self._by("torch")
        return parts

    def _by(self, engine: Chosen) -> Parts:
        folder, wanted = self.model.folder, self.wanted
        autoencoder = accelerated_autoencoder(folder.autoencoder, engine)
        steps = StreamSteps(
            self.model,
            folder.unet,
            self.settings,
            self.controls,
            wanted.guidance,
            wanted.delta,
            engine,
        )
        steps.tell(steps.read(self.inputs))
        return engine, autoencoder, steps

    def _warm(self, parts: Parts) -> None:
        """Makes a picture of nothing, so that everything is compiled."""
        _, autoencoder, steps = parts
        settings, channels = self.settings, self.model.folder.unet.config.out_channels
        sides = (settings.height, settings.width)
        zeros = torch.zeros(1, channels, *(side // autoencoder.factor for side in sides))
        noise = steps.draw(_no_noise, zeros.shape)
        entry = Frame(zeros, self._no_hints() if self.controls else NO_HINTS, zeros, 0, noise)
        if settings.strength is not None:
            encoded(autoencoder, torch.zeros(1, 3, *sides), zeros, tiled=settings.tiled_decode)
        if self.wanted.batched:
            steps([entry] * steps.count)
        else:
            for step in reversed(range(steps.count)):  # the first may take more rows
                steps([entry], step)
        finished(autoencoder, zeros, tiled=settings.tiled_decode)

    def _no_hints(self) -> Hints:
        black = Image.new("RGB", (self.settings.width, self.settings.height))
        controls = [control.of(black, hint=True) for control in self.controls]
        batch = Batch([""], [0], "", self.settings, NOTHING)
        return hints_of(self.model, replace(batch, led=replace(batch.led, controls=controls)))


def _no_noise(shape: Sequence[int], index: int) -> Tensor:
    return torch.zeros(tuple(shape))
