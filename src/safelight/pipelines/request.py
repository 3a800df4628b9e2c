"""What a user asks for, before a model's defaults fill the gaps."""

import math
from dataclasses import dataclass

from safelight.errors import SafelightError
from safelight.pipelines.given import NOTHING, Given
from safelight.pipelines.guidance_settings import PLAIN, Guidance

_SEEDS = range(-(2**63), 2**64)  # what torch.Generator.manual_seed accepts


@dataclass(frozen=True)
class Request:
    """The pictures asked for; None leaves the choice to the model.

    Picture i of `count` is drawn from `seed + i`, so that it can be made again alone.
    """

    prompt: str
    negative: str = ""  # what guidance leads away from
    steps: int | None = None  # of the sampler
    scale: float | None = None  # of classifier-free guidance; 1 and below are none
    sampler: str | None = None  # a name from `safelight.diffusion.SAMPLERS`
    seed: int = 0
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    count: int = 1
    given: Given = NOTHING  # pictures beside the prompt
    strength: float | None = None  # how much of a given picture is made anew, 0 to 1
    image_scale: float | None = None  # of the guidance by a given picture
    noise_level: int | None = None  # of the small picture that an upscaler sees
    guidance: Guidance = PLAIN  # beside its scale

    def check(self) -> None:
        """Raises `SafelightError` for what no model could make."""
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative)):
            if not _is_unicode(text):
                raise SafelightError(f"The {name} is not valid Unicode; give it in UTF-8.")
        _at_least_one("count", self.count)
        for name, number in (("steps", self.steps), ("width", self.width), ("height", self.height)):
            if number is not None:
                _at_least_one(name, number)
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale >= 0):
            raise SafelightError(f"scale should be a finite number from 0 up, got {self.scale}.")
        if self.scale is not None and self.guidance.scales is not None:
            raise SafelightError("There is one scale and there are several; give one or the other.")
        self.guidance.check()
        if self.strength is not None and not 0 < self.strength <= 1:
            raise SafelightError(f"strength should lie above 0 and up to 1, got {self.strength}.")
        if self.image_scale is not None and not (
            math.isfinite(self.image_scale) and self.image_scale >= 0
        ):
            raise SafelightError(
                f"image_scale should be a finite number from 0 up, got {self.image_scale}."
            )
        for seed in (self.seed, self.seed + self.count - 1):
            if seed not in _SEEDS:
                raise SafelightError(
                    f"seed should lie between {_SEEDS.start} and {_SEEDS.stop - 1}, got {seed}."
                )


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled, with nothing left open."""

    steps: int
    scale: float  # of classifier-free guidance; 1 and below are none
    sampler: str
    width: int  # pixels
    height: int  # pixels
    strength: float | None = None  # how much of a given picture is made anew, if one is begun from
    image_scale: float | None = None  # of the guidance by a given picture
    noise_level: int | None = None  # of the small picture that an upscaler sees
    guidance: Guidance = PLAIN  # beside its scale; where that changes, `scale` is the highest


def check_multiple(name: str, size: int, factor: int) -> None:
    """Raises `SafelightError` naming the nearest sizes if `size` is no multiple of `factor`."""
    if size % factor:
        below = size // factor * factor
        nearest = f"{below} and {below + factor}" if below else str(factor)
        raise SafelightError(
            f"{name} should be a multiple of {factor} for this model, got {size}; "
            f"nearest: {nearest}."
        )


def _at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise SafelightError(f"{name} should be 1 or more, got {number}.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
