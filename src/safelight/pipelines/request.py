"""What a user asks for, before a model's defaults fill the gaps."""

import math
from dataclasses import dataclass
from typing import get_args

from safelight.errors import SafelightError
from safelight.pipelines.choices import (
    MOST_MERGED,
    MaskFill,
    PromptSyntax,
    Quality,
    RngName,
    Upscaler,
)
from safelight.pipelines.condition_settings import Condition, ImagePrompt
from safelight.pipelines.control_settings import Control
from safelight.pipelines.given import NOTHING, Given
from safelight.pipelines.guidance_settings import PLAIN, Guidance

_MOST_SIDE = 32768  # pixels
_MOST_BLUR = 256
_SEEDS = range(-(2**63), 2**64)  # what torch.Generator.manual_seed accepts


@dataclass(frozen=True)
class Margins:
    """How many pixels a picture is to be extended by on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def check(self) -> None:
        """Raises `SafelightError` for margins that extend nothing."""
        sides = (self.left, self.top, self.right, self.bottom)
        if min(sides) < 0 or not any(sides):
            raise SafelightError(
                f"outpaint should be 0 or more pixels a side, and one above 0; got {sides}."
            )


@dataclass(frozen=True)
class Toward:
    """A second prompt, and how far what is said goes to it: 0 not at all, 1 all the way."""

    prompt: str
    part: float

    def check(self) -> None:
        """Raises `SafelightError` for a part that is none."""
        if not 0 <= self.part <= 1:
            raise SafelightError(
                f"The part of the way to a second prompt should lie between 0 and 1, got "
                f"{self.part}."
            )


@dataclass(frozen=True)
class Hires:
    """A second pass over an enlarged picture, known as hires fix in AUTOMATIC1111's web UI.

    Attributes:
        scale: how many times larger the picture becomes, above 1.
        strength: how much of it is made anew, above 0 and up to 1.
        steps: of the second pass, as if it were a whole one; None for those of the first.
        upscaler: "latent" enlarges the latents (bilinear), "lanczos" the pixels.
    """

    scale: float
    strength: float = 0.7
    steps: int | None = None
    upscaler: Upscaler = "latent"

    def check(self) -> None:
        """Raises `SafelightError` for what no second pass could do."""
        if not (math.isfinite(self.scale) and self.scale > 1):
            raise SafelightError(f"hires should be a scale above 1, got {self.scale}.")
        if not 0 < self.strength <= 1:
            raise SafelightError(
                f"hires_strength should lie above 0 and up to 1, got {self.strength}."
            )
        if self.steps is not None:
            _at_least_one("hires_steps", self.steps)
        if self.upscaler not in ("latent", "lanczos"):
            raise SafelightError(
                f"hires_upscaler should be latent or lanczos, got {self.upscaler!r}."
            )


@dataclass(frozen=True)
class Windows:
    """Through which a picture is denoised that is larger than its model was trained for."""

    size: int  # pixels, in width and in height
    overlap: int  # of neighbours, in pixels
    fade: bool = False  # whether each counts for less towards its edges


@dataclass(frozen=True)
class Request:
    """The pictures asked for; None leaves the choice to the model.

    Picture i of `count` is drawn from `seed + i`, so that it can be made again alone; with a
    `subseed_strength` from `seed` and `subseed + i`.
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
    mask_blur: int | None = None  # pixels over which what is made anew fades in
    mask_fill: MaskFill = "original"  # what is begun from under the mask
    outpaint: Margins | None = None  # to be made around the given picture
    hires: Hires | None = None  # a second, larger pass
    tiled_decode: bool | None = None  # whether the autoencoder works in tiles
    schedule: str | None = None  # where the sampler stops, of `safelight.diffusion.schedules`
    sigmas: tuple[float, ...] | None = None  # or the noise levels themselves, falling
    tiled_diffusion: bool = False  # whether the U-Net works in windows
    tile_size: int | None = None  # of these windows, in pixels
    tile_overlap: int | None = None  # of these windows, in pixels
    tile_fade: bool = False  # whether each counts for less towards its edges
    prompt_syntax: PromptSyntax = "a1111"
    clip_skip: int | None = None  # 1 ends at the text tower's usual layer, 2 at the one before
    rng: RngName = "cpu"
    subseed: int = 0
    subseed_strength: float = 0.0  # how far the noise goes from that of `seed` to its, 0 to 1
    guidance: Guidance = PLAIN  # beside its scale
    toward: Toward | None = None  # a second prompt to go to
    controls: tuple[Control, ...] = ()  # pictures that steer what is made
    conditions: tuple[Condition, ...] = ()  # that the model has learned
    image_prompts: tuple[ImagePrompt, ...] = ()  # pictures that speak beside the prompt
    image_prompt_scale: float | None = None  # of the guidance by them alone
    quality: Quality = "exact"  # what may be given up for speed
    token_merging: float = 0.0  # the part of the finest self-attention's tokens that are merged

    def check(self) -> None:
        """Raises `SafelightError` for what no model could make."""
        second = "" if self.toward is None else self.toward.prompt
        texts = {"prompt": self.prompt, "negative prompt": self.negative, "second prompt": second}
        for name, text in texts.items():
            if not _is_unicode(text):
                raise SafelightError(f"The {name} is not valid Unicode; give it in UTF-8.")
        _at_least_one("count", self.count)
        for name, number in (("steps", self.steps), ("width", self.width), ("height", self.height)):
            if number is not None:
                _at_least_one(name, number)
                if name != "steps" and number > _MOST_SIDE:
                    raise SafelightError(
                        f"{name} should be {_MOST_SIDE} pixels at most, got {number}."
                    )
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
        if self.mask_blur is not None and not 0 <= self.mask_blur <= _MOST_BLUR:
            raise SafelightError(
                f"mask_blur should lie between 0 and {_MOST_BLUR} pixels, got {self.mask_blur}."
            )
        if self.mask_fill not in get_args(MaskFill):
            raise SafelightError(
                f"mask_fill should be {', '.join(get_args(MaskFill))}, got {self.mask_fill!r}."
            )
        if self.toward is not None:
            self.toward.check()
        if self.outpaint is not None:
            self.outpaint.check()
        if self.hires is not None:
            self.hires.check()
        for control in self.controls:
            control.check()
        kinds = [condition.kind for condition in self.conditions]
        for condition in self.conditions:
            condition.check()
            if kinds.count(condition.kind) > 1:
                raise SafelightError(f"The condition {condition.kind} is given more than once.")
        for prompt in self.image_prompts:
            prompt.check()
        scale = self.image_prompt_scale
        if scale is not None and not (self.image_prompts and 0 <= scale < math.inf):
            raise SafelightError(
                "image_prompt_scale is a finite number from 0 up, of image prompts; got "
                f"{scale} and {len(self.image_prompts)} of these."
            )
        self._check_windows()
        for name, value, known in (
            ("quality", self.quality, get_args(Quality)),
            ("rng", self.rng, get_args(RngName)),
            ("prompt_syntax", self.prompt_syntax, get_args(PromptSyntax)),
        ):
            if value not in known:
                raise SafelightError(f"{name} should be {' or '.join(known)}, got {value!r}.")
        if not 0 <= self.token_merging <= MOST_MERGED:
            raise SafelightError(
                f"token_merging should lie between 0 and {MOST_MERGED}, got {self.token_merging}."
            )
        if not 0 <= self.subseed_strength <= 1:
            raise SafelightError(
                f"subseed_strength should lie between 0 and 1, got {self.subseed_strength}."
            )
        for place in (0, self.count - 1):
            for name, seed in zip(("seed", "subseed"), self.seeds_at(place), strict=True):
                if seed not in _SEEDS:
                    raise SafelightError(
                        f"{name} should lie between {_SEEDS.start} and {_SEEDS.stop - 1}, got "
                        f"{seed}."
                    )

    def seeds_at(self, place: int) -> tuple[int, int]:
        """Seed and sub-seed of a picture by its place among `count`."""
        if self.subseed_strength > 0:
            return self.seed, self.subseed + place
        return self.seed + place, self.subseed

    def _check_windows(self) -> None:
        size, overlap = self.tile_size, self.tile_overlap
        asked = size is not None or overlap is not None or self.tile_fade
        if asked and not self.tiled_diffusion:
            raise SafelightError(
                "tile_size, tile_overlap and tile_fade are those of tiled_diffusion; ask for that "
                "too."
            )
        if size is not None:
            _at_least_one("tile_size", size)
        if overlap is not None and overlap < 0:
            raise SafelightError(f"tile_overlap should be 0 or more pixels, got {overlap}.")


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
    mask_blur: int | None = None  # pixels over which what is made anew fades in, if some is kept
    mask_fill: MaskFill = "original"  # what is begun from under the mask
    hires: Hires | None = None
    tiled_decode: bool = False  # whether the autoencoder works in tiles
    schedule: str | None = None  # None for the model's own
    sigmas: tuple[float, ...] | None = None  # in place of a schedule
    windows: Windows | None = None
    prompt_syntax: PromptSyntax = "plain"
    clip_skip: int = 1
    rng: RngName = "cpu"
    subseed: int = 0
    subseed_strength: float = 0.0
    guidance: Guidance = PLAIN  # beside its scale; where that changes, `scale` is the highest
    toward: Toward | None = None
    quality: Quality = "exact"
    token_merging: float = 0.0

    @property
    def total_steps(self) -> int:
        """The sampler's steps of both passes, without those that a given picture saves."""
        first = self.steps - first_step(self.steps, self.strength)
        if self.hires is None:
            return first
        steps = self.hires.steps or self.steps
        return first + steps - first_step(steps, self.hires.strength)


def first_step(steps: int, strength: float | None) -> int:
    """The step that a picture of which so much is made anew begins with."""
    return 0 if strength is None else steps - int(steps * strength)


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
