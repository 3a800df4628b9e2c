"""The steps of a stream with all their constants prepared, for frames that stand at any of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight.diffusion.affine import affine_step
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.residual import residual_guided
from safelight.engine.names import Chosen
from safelight.engine.networks import accelerated
from safelight.models.controlnet import ControlNet
from safelight.models.prepared import prepared
from safelight.models.unet import UNet
from safelight.nn.kept import Kept
from safelight.pipelines.beginning import Batch, Model
from safelight.pipelines.controlling import Hints, steered
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.given import NOTHING
from safelight.pipelines.request import Settings, first_step
from safelight.pipelines.saying import sayings
from safelight.pipelines.stream_settings import Inputs, StreamGuidance
from safelight.pipelines.telling import conditions_of
from safelight.types import Conditioning, Noise

Latents = Float[Tensor, "b c h w"]
NO_HINTS = Hints((), (), ())


@dataclass(frozen=True)
class Frame:
    """One picture on its way, a batch of one.

    Attributes:
        x: at the level of the step that it is to take.
        hints: what steers it.
        anchor: the x0 that residual guidance leads away from; None before it is known.
        number: of what it was begun with.
        noise: that each step adds, a row for each; None where none adds any.
    """

    x: Latents
    hints: Hints
    anchor: Latents | None
    number: int
    noise: Float[Tensor, "n c h w"] | None = None


@dataclass(frozen=True)
class Words:
    """What the network is told of prompts, a row for each step, and beside guidance."""

    conds: Conditioning
    unconds: Conditioning


class StreamSteps:
    """The steps that each frame of a stream takes, `count` of them.

    Attributes:
        levels: the noise levels at which the sampler stops, from the first that is begun at.
        count: of the steps.
        initial_scale: what noise is multiplied by to be x of a frame that begins from it alone.
        final_scale: what x is multiplied by after the last step.
    """

    def __init__(
        self,
        model: Model,
        unet: UNet,
        settings: Settings,
        controls: Sequence[ReadControl],
        guidance: StreamGuidance,
        delta: float,
        engine: Chosen,
    ):
        scheduler = model.scheduler(settings)
        self._model, self._settings, self._controls = model, settings, controls
        self._start = first_step(settings.steps, settings.strength)
        every = scheduler.sigmas(settings.steps)
        self.levels = every[self._start :]
        self.count = len(self.levels) - 1
        self.initial_scale = scheduler.initial_scale(every)
        self.final_scale = scheduler.final_scale(every)
        ready = accelerated(unet, self.count, engine)
        steering = [_prepared_control(control, self.count) for control in controls]
        self._kept = [
            module
            for network in (ready, *(read.network for read in steering))
            if isinstance(network, nn.Module)
            for module in network.modules()
            if isinstance(module, Kept)
        ]
        self._denoiser = Denoiser(
            steered(ready, steering, scheduler, self.levels),
            scheduler.parameterization(),
            scheduler.schedule(),
            None if model.dtype == torch.float32 else model.dtype,
        )
        led = settings.scale > 1 and not model.kind.guided
        self._guidance: StreamGuidance = guidance if led else "none"
        self._delta = delta

        solved = (
            affine_step(
                scheduler.solver(settings.steps, slice(self._start + i, self._start + i + 1)),
                self.levels[i : i + 2],
            )
            for i in range(self.count)
        )
        steps = [(step.of_x0, step.of_x, step.of_noise) for step in solved]
        self._of_x0, self._of_x, self._of_noise = (
            _column(torch.tensor(column, device=model.device))
            for column in zip(*steps, strict=True)
        )
        self._draws = [i for i, step in enumerate(steps) if step[2] != 0]
        self._sigmas = self.levels[:-1].to(model.device, torch.float32)
        self._words = Words(Conditioning(), Conditioning())
        self._told: dict[tuple[int, int], Conditioning] = {}

    def read(self, inputs: Inputs) -> Words:
        """Reads prompts; errors as the text towers' and the prompt grammar's."""
        settings = self._settings
        beside = self._guidance in ("full", "onetime")  # else nobody asks for it
        negative = inputs.negative if beside else ""
        batch = Batch([inputs.prompt], [inputs.seed], negative, settings, NOTHING)
        said = sayings(batch.prompts, batch.negative, settings.steps, settings.prompt_syntax)
        said = said[self._start :]
        different = list(dict.fromkeys(said))
        told = dict(zip(different, conditions_of(self._model, batch, different, None), strict=True))
        return Words(
            Conditioning.cat([told[saying].conds[0] for saying in said]),
            Conditioning.cat([told[saying].uncond for saying in said]),
        )

    def tell(self, words: Words) -> None:
        """Takes other prompts, for all frames, those on their way too."""
        self._words = words
        self._told.clear()
        for module in self._kept:  # what is remembered of the old ones
            module.forget()

    def draw(self, noise: Noise, shape: Sequence[int]) -> Float[Tensor, "n c h w"] | None:
        """The noise that the steps of a frame add, `noise(shape, i + 1)` in step i; None where none
        adds any.
        """
        if not self._draws:
            return None
        drawn = [
            noise(shape, i + 1) if i in self._draws else torch.zeros(tuple(shape))
            for i in range(self.count)
        ]
        return torch.cat([draw.to(self._sigmas.device) for draw in drawn])

    def __call__(self, frames: Sequence[Frame], first: int = 0) -> list[Frame]:
        """Each frame one step further: frame i takes step `first + i`, all in one call of the
        network.
        """
        rows = slice(first, first + len(frames))
        led = self._led_away(frames, first)  # the frames that are computed without the prompt too
        x = torch.cat([frame.x for frame in frames])
        sigma = self._sigmas[rows]
        both = self._denoiser(
            torch.cat([x[: len(led)], x]),
            torch.cat([sigma[: len(led)], sigma]),
            self._conditioning(frames, first, led),
        )
        without, x0 = both[: len(led)], both[len(led) :]
        anchors = self._anchors(frames, without)
        if anchors is not None:
            x0 = residual_guided(x0, x, anchors, self._settings.scale, self._factor)
        x = self._of_x0[rows] * x0 + self._of_x[rows] * x
        added = [
            frame.noise[first + i : first + i + 1]
            for i, frame in enumerate(frames)
            if frame.noise is not None
        ]
        if added:
            x = x + self._of_noise[rows] * torch.cat(added)
        return [
            replace(frame, x=x[i : i + 1], anchor=None if anchors is None else anchors[i : i + 1])
            for i, frame in enumerate(frames)
        ]

    @property
    def _factor(self) -> float:
        return 1.0 if self._guidance == "full" else self._delta

    def _led_away(self, frames: Sequence[Frame], first: int) -> Sequence[Frame]:
        """Those of the frames, from the first on, whose x0 under the negative prompt is asked
        for.
        """
        if self._guidance == "full":
            return frames
        return frames[:1] if self._guidance == "onetime" and first == 0 else ()

    def _anchors(
        self, frames: Sequence[Frame], without: Float[Tensor, "k c h w"]
    ) -> Latents | None:
        """What each frame is led away from; the first ones by what was computed for them now."""
        if self._guidance == "none":
            return None
        kept = [frame.anchor for frame in frames[len(without) :]]
        return torch.cat([without, *(anchor for anchor in kept if anchor is not None)])

    def _conditioning(
        self, frames: Sequence[Frame], first: int, led: Sequence[Frame]
    ) -> Conditioning:
        """What the network is told of each row: those without the prompt, then those with it."""
        key = (first, len(frames))
        if key not in self._told:
            conds = _rows(self._words.conds, first, len(frames))
            if led:
                unconds = _rows(self._words.unconds, first, len(led))
                conds = Conditioning.cat([unconds, conds])
            self._told[key] = conds
        told = self._told[key]
        if not self._controls:
            return told
        seen = [*(_beside(frame.hints) for frame in led), *(frame.hints for frame in frames)]
        return replace(
            told,
            hints=tuple(map(torch.cat, zip(*(hints.pictures for hints in seen), strict=True))),
            hint_masks=tuple(map(torch.cat, zip(*(hints.masks for hints in seen), strict=True))),
        )


def _prepared_control(read: ReadControl, steps: int) -> ReadControl:
    """A control whose network is made ready for many calls."""
    if isinstance(read.network, ControlNet):
        return replace(read, network=prepared(read.network, steps))
    return read


def _column(values: Tensor) -> Float[Tensor, "n 1 1 1"]:
    return values.float().reshape(-1, 1, 1, 1)


def _rows(cond: Conditioning, first: int, count: int) -> Conditioning:
    """Some rows of a conditioning, one after the other."""
    vector, context = cond.vector, cond.context
    rows = slice(first, first + count)
    return replace(
        cond,
        context=None if context is None else context[rows],
        vector=None if vector is None else vector[rows],
    )


def _beside(hints: Hints) -> Hints:
    return replace(hints, masks=hints.masks_beside)
