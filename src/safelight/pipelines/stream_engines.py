"""What a stream computes by, warmed before the stream is open."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from safelight.engine.choosing import choose_engine
from safelight.engine.names import BY_TORCH, Chosen
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


def chosen_parts(
    model: Model,
    settings: Settings,
    wanted: StreamSettings,
    controls: Sequence[ReadControl],
    inputs: Inputs,
) -> Parts:
    """The engine that is wanted, with the autoencoder and the steps of a stream that begins with
    `inputs`; those of torch where none is asked for by its name and the other does not compute
    them. Call it under `torch.inference_mode`.

    Raises `SafelightError` if what is asked for is not there, or does not.
    """

    def by(engine: Chosen) -> Parts:
        autoencoder = accelerated_autoencoder(model.folder.autoencoder, engine)
        steps = StreamSteps(
            model, model.folder.unet, settings, controls, wanted.guidance, wanted.delta, engine
        )
        steps.tell(steps.read(inputs))
        return engine, autoencoder, steps

    engine = choose_engine(wanted.engine, model.device, model.dtype)
    if engine in BY_TORCH:
        return by(engine)
    try:
        parts = by(engine)
        _warm(parts, model, settings, controls, batched=wanted.batched)
    except SafelightError as error:
        if wanted.engine != "auto":
            raise
        warnings.warn(f"torch computes this stream: {error}", stacklevel=2)
        return by("torch")
    return parts


def _warm(
    parts: Parts,
    model: Model,
    settings: Settings,
    controls: Sequence[ReadControl],
    *,
    batched: bool,
) -> None:
    """Makes a picture of nothing, so that everything is compiled."""
    _, autoencoder, steps = parts
    sides = (settings.height, settings.width)
    factor, channels = autoencoder.factor, model.folder.unet.config.out_channels
    zeros = torch.zeros(1, channels, *(side // factor for side in sides))
    hints = _black(model, settings, controls) if controls else NO_HINTS
    entry = Frame(zeros, hints, zeros, 0, steps.draw(_no_noise, zeros.shape))
    if settings.strength is not None:
        encoded(autoencoder, torch.zeros(1, 3, *sides), zeros, tiled=settings.tiled_decode)
    if batched:
        steps([entry] * steps.count)
    else:
        for step in reversed(range(steps.count)):  # the first may take more rows
            steps([entry], step)
    finished(autoencoder, zeros, tiled=settings.tiled_decode)


def _black(model: Model, settings: Settings, controls: Sequence[ReadControl]) -> Hints:
    black = Image.new("RGB", (settings.width, settings.height))
    shown = [control.of(black, hint=True) for control in controls]
    batch = Batch([""], [0], "", settings, NOTHING)
    return hints_of(model, replace(batch, led=replace(batch.led, controls=shown)))


def _no_noise(shape: Sequence[int], index: int) -> Tensor:
    return torch.zeros(tuple(shape))
