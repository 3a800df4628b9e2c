"""How a stream works, and what it is given while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from PIL import Image

from safelight.conditioners.prompt_grammar import parse
from safelight.diffusion.affine import MEMORYLESS
from safelight.engine.names import Engine
from safelight.errors import SafelightError
from safelight.pipelines.control_settings import Control
from safelight.pipelines.given import Given, GivenPicture
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.prompt_tags import without_tags
from safelight.pipelines.request import Request, Settings

StreamGuidance = Literal["none", "full", "self", "onetime"]
"""Classifier-free guidance of a stream: none; the network called twice, as in single pictures;
residual guidance away from the picture begun from (self-negative); or away from what the negative
prompt makes of the first step (onetime-negative).
"""


_UNSEEN = Image.new("RGB", (1, 1))  # in the place of a control's picture, until it is given


def unseen_control(kind: str, *, hint: bool = False, weight: float = 1.0) -> Control:
    """A control of a stream whose picture is given later; with `hint` that is a hint already."""
    return Control(kind, _UNSEEN, hint=hint, weight=weight)


@dataclass(frozen=True)
class StreamSettings:
    """How a stream works, for as long as it is open; None leaves the choice to the model.

    Attributes:
        steps: of the sampler.
        scale: of guidance, or that a latent consistency model is told.
        sampler: one without memory: `MEMORYLESS` of `safelight.diffusion.affine`.
        width, height: of the pictures, in pixels.
        strength: how much of the given picture is made anew; None to begin from noise alone.
        guidance: see `StreamGuidance`.
        delta: what residual guidance multiplies the remembered noise by, 0 to 1.
        controls: pictures that steer, whose pictures change.
        batched: whether each call of the network takes as many frames a step as there are steps.
        similarity: of a new picture to the one before, from which up it may be passed over, as
            `Similarity`; None to pass over none.
        plain_prompt: whether brackets mean nothing in prompts.
        engine: what computes the networks, see `engine.choosing.choose_engine`.
    """

    steps: int = 4
    scale: float | None = None
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    guidance: StreamGuidance = "none"
    delta: float = 1.0
    controls: tuple[Control, ...] = ()
    batched: bool = False
    similarity: float | None = None
    plain_prompt: bool = False
    engine: Engine = "auto"

    def __post_init__(self):
        """Raises `SafelightError` for what no stream could do."""
        if self.guidance not in get_args(StreamGuidance):
            raise SafelightError(
                f"guidance of a stream should be one of {', '.join(get_args(StreamGuidance))}; got "
                f"{self.guidance!r}."
            )
        if not 0 <= self.delta <= 1:
            raise SafelightError(f"delta should lie between 0 and 1, got {self.delta}.")
        if self.similarity is not None and not 0 <= self.similarity < 1:
            raise SafelightError(f"similarity should lie from 0 to below 1, got {self.similarity}.")
        if self.similarity is not None and not self.looks:
            raise SafelightError(
                "similarity compares pictures, and this stream takes none: give a strength, or a "
                "control whose hint is made of them, or leave similarity out."
            )
        kinds = [control.kind for control in self.controls]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise SafelightError(f"The control {kind} is given more than once.")

    @property
    def looks(self) -> bool:
        """Whether pictures are begun from, or hints are made of them."""
        made = any(not control.hint for control in self.controls)
        return self.strength is not None or made


@dataclass(frozen=True)
class Inputs:
    """What a stream is given at a time.

    Attributes:
        prompt, negative: as of single pictures.
        seed: of the noise.
        picture: what it begins from, and what hints are made of.
        hints: hints that are made already, by the kind of their control.
    """

    prompt: str = ""
    negative: str = ""
    seed: int = 0
    picture: Image.Image | None = None
    hints: Mapping[str, Image.Image] = field(default_factory=dict[str, Image.Image])

    def lacks(self, wanted: StreamSettings) -> str | None:
        """What a stream cannot begin without, in words; None where nothing is missing."""
        if wanted.strength is not None and self.picture is None:
            return "picture"
        for control in wanted.controls:
            shown = control.kind in self.hints or (self.picture is not None and not control.hint)
            if control.picture is _UNSEEN and not shown:
                return f"{'hint' if control.hint else 'picture'} for the control {control.kind}"
        return None

    def differs_by_picture(self, other: "Inputs") -> bool:
        """Whether nothing is different but, at most, the picture."""
        said = (self.prompt, self.negative, self.seed)
        return said == (other.prompt, other.negative, other.seed) and all(
            self.hints.get(kind) is other.hints.get(kind) for kind in {*self.hints, *other.hints}
        )

    def same(self, other: "Inputs") -> bool:
        """Whether nothing is different; pictures are the same if they are one object."""
        return self.differs_by_picture(other) and self.picture is other.picture

    def without(self, refused: "Inputs", before: "Inputs", *, words: bool) -> "Inputs":
        """With the prompts of `before`, or else its picture and hints, for those of `refused` where
        these still stand.
        """
        if words:
            return replace(
                self,
                prompt=before.prompt if self.prompt == refused.prompt else self.prompt,
                negative=before.negative if self.negative == refused.negative else self.negative,
            )
        return replace(
            self,
            picture=before.picture if self.picture is refused.picture else self.picture,
            hints=before.hints if self.hints is refused.hints else self.hints,
        )

    def check(self) -> None:
        """Raises `SafelightError` for a prompt or seed that no stream takes."""
        Request(self.prompt, self.negative, seed=self.seed).check()
        if without_tags(self.prompt)[1]:
            raise SafelightError(
                "A stream takes adapters as it is opened; leave <lora:...> out of its prompt, and "
                "load the model with them."
            )


def settle_stream(pipeline: ImagePipeline, wanted: StreamSettings, inputs: Inputs) -> Settings:
    """The settings of every picture of a stream, with nothing left open.

    Raises `SafelightError` for a model that makes no streams, and for what it cannot do.
    """
    _check_model(pipeline)
    guided = pipeline.kind.guided
    scale = wanted.scale
    if wanted.guidance == "none" and not guided:
        if scale is not None and scale > 1:
            raise SafelightError(
                f"A scale of {scale} does nothing without guidance; choose self, onetime or full."
            )
        scale = 1.0
    if wanted.guidance != "none" and guided:
        raise SafelightError(f"{pipeline.name} is told the scale itself; leave guidance at none.")
    defaults = pipeline.folder.defaults
    own = defaults.sampler or pipeline.folder.scheduler.sampler
    request = Request(
        inputs.prompt,
        inputs.negative,
        wanted.steps,
        scale,
        wanted.sampler or (own if own in MEMORYLESS else "euler"),
        inputs.seed,
        wanted.width,
        wanted.height,
        prompt_syntax="plain" if wanted.plain_prompt else "a1111",
    )
    settings = pipeline.settle(request)
    if wanted.strength is not None:  # which a request has of a picture alone
        blank = Image.new("RGB", (settings.width, settings.height))
        given = Given(GivenPicture(blank, None, ""))
        settings = pipeline.settle(replace(request, given=given, strength=wanted.strength))
    if wanted.guidance in ("self", "onetime") and settings.scale <= 1:
        raise SafelightError(
            f"Guidance {wanted.guidance} does nothing at a scale of {settings.scale}; give one "
            "above 1, or leave guidance at none."
        )
    if settings.sampler not in MEMORYLESS:
        raise SafelightError(
            f"A stream takes a sampler without memory: {', '.join(MEMORYLESS)}; got "
            f"{settings.sampler}."
        )
    return settings


def check_one_prompt(inputs: Inputs, settings: Settings) -> None:
    """Raises `SafelightError` for prompts that AND joins."""
    if settings.prompt_syntax == "a1111" and len(parse(inputs.prompt)) > 1:
        raise SafelightError("AND does not go with a stream; ask for one thing.")


def _check_model(pipeline: ImagePipeline) -> None:
    kind = pipeline.kind
    if kind.beside != "nothing" or kind.sees != "nothing" or kind.numbers == "aesthetics":
        raise SafelightError(
            f"{pipeline.name} makes pictures of more than a prompt and a picture to begin from; a "
            "stream takes models of these alone."
        )
    if pipeline.refiner is not None or pipeline.guide is not None:
        raise SafelightError("A stream goes without a refiner and a guide; load the model alone.")
