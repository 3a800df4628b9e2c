"""What a user asks of a clip, before a model's defaults fill the gaps."""

import math
from dataclasses import dataclass

from safelight.errors import SafelightError
from safelight.pipelines.choices import PromptSyntax
from safelight.pipelines.given import GivenPicture

_SEEDS = range(-(2**63), 2**64)
_MOST = 100_000
_MOST_SIDE = 32768  # pixels


@dataclass(frozen=True)
class ClipRequest:
    """The clip asked for; None leaves the choice to the model."""

    image: GivenPicture | None = None  # the first frame
    last: GivenPicture | None = None  # the last frame
    prompt: str = ""
    negative: str = ""  # what guidance leads away from
    frames: int | None = None
    fps: float | None = None  # frames a second
    motion: float | None = None  # how much moves: a bucket, 0 to 255
    augmentation: float | None = None  # noise on the picture that the model sees
    loop: bool = False  # whether the first frame follows the last
    steps: int | None = None  # of the sampler
    scale: float | None = None  # of classifier-free guidance, for the last frame
    first_scale: float | None = None  # the same for the first frame
    sampler: str | None = None
    seed: int = 0
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    window: int | None = None  # frames that the model sees at a time
    overlap: int | None = None  # of neighbouring windows, in frames
    decode: int | None = None  # frames that are decoded at a time
    low_memory: bool = False  # whether the U-Net takes one side of guidance, few frames at a time
    prompt_syntax: PromptSyntax = "a1111"

    def check(self) -> None:
        """Raises `SafelightError` for what no model could make."""
        for name in ("frames", "steps", "width", "height", "window", "decode"):
            number = getattr(self, name)
            most = _MOST_SIDE if name in ("width", "height") else _MOST
            if number is not None and not 1 <= number <= most:
                raise SafelightError(f"{name} should lie between 1 and {most}, got {number}.")
        for name in ("scale", "first_scale", "motion", "augmentation"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < math.inf:
                raise SafelightError(f"{name} should be a finite number from 0 up, got {number}.")
        if self.fps is not None and not 1 <= self.fps <= 1000:
            raise SafelightError(f"fps should lie between 1 and 1000, got {self.fps}.")
        if self.overlap is not None and self.overlap < 0:
            raise SafelightError(f"overlap should be 0 frames or more, got {self.overlap}.")
        if self.seed not in _SEEDS:
            raise SafelightError(
                f"seed should lie between {_SEEDS.start} and {_SEEDS.stop - 1}, got {self.seed}."
            )
        if self.loop and self.last is not None:
            raise SafelightError("A loop ends where it begins; leave the last frame out.")
        if self.prompt_syntax not in ("a1111", "plain"):
            raise SafelightError(
                f"prompt_syntax should be a1111 or plain, got {self.prompt_syntax!r}."
            )


@dataclass(frozen=True)
class ClipSettings:
    """How a clip is sampled, with nothing left open."""

    frames: int
    fps: float  # frames a second
    motion: float
    augmentation: float
    loop: bool
    steps: int
    scale: float  # of guidance for the last frame; 1 and below are none
    first_scale: float  # likewise for the first
    sampler: str
    width: int  # pixels
    height: int  # pixels
    window: int  # frames that the model sees at a time
    overlap: int  # of neighbouring windows, in frames
    decode: int  # frames that are decoded at a time
    low_memory: bool  # whether the U-Net takes one side of guidance, few frames at a time
    prompt_syntax: PromptSyntax
    told: tuple[str, ...] = ()  # what of fps, motion and augmentation the model is told
