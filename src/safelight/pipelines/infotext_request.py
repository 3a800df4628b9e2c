"""What an infotext asks for, in our words, and what of it cannot be honoured."""

import math
import re
from dataclasses import dataclass

from safelight.diffusion.samplers import sampler_name, schedule_in
from safelight.diffusion.schedules import schedule_name
from safelight.errors import SafelightError
from safelight.pipelines.choices import MOST_MERGED, RngName, Upscaler
from safelight.pipelines.infotext import Infotext
from safelight.pipelines.infotext_controls import UNIT, note_of
from safelight.pipelines.infotext_written import PROGRAM
from safelight.pipelines.request import Hires, Request
from safelight.pipelines.webui_names import (
    AUTOMATIC,
    BY_TIMES,
    OTHERWISE,
    SCHEDULES,
    UPSCALERS,
)

_ELSEWHERE = ("Model", "Model hash", "VAE", "VAE hash", "Refiner", "Refiner switch at")
"""What is of files, not the request's."""

_SILENT = frozenset(
    {"Version", "User", "Lora hashes", "Hashes", "Template", "Negative Template", "Created Date"}
    | {"Civitai resources", "Civitai metadata"}
)
"""Parameters that say nothing of the picture, or what another parameter says too."""

_SIZE = re.compile(r"(\d+)x(\d+)")
_HIRES_STRENGTH = 0.7  # the web UI's own


@dataclass(frozen=True)
class Asked:
    """A request, and a line for each thing of the infotext that it does not honour."""

    request: Request
    notes: tuple[str, ...]


def asked_in(infotext: Infotext) -> Asked:
    """The picture that an infotext describes.

    Raises `SafelightError` for a parameter whose value is not what the web UI writes.
    """
    told = _Told(dict(infotext.parameters))
    ours = infotext.parameters.get("Version", "").startswith(PROGRAM)
    for name in (*_ELSEWHERE, *_SILENT):
        told.take(name)
    width, height = told.size("Size") or (None, None)
    steps, scale, seed = told.whole("Steps"), told.number("CFG scale"), told.whole("Seed")
    sampler = _sampler(told)
    subseed, subseed_strength = told.whole("Variation seed"), told.number("Variation seed strength")
    request = Request(
        infotext.prompt,
        infotext.negative,
        steps=steps,
        scale=scale,
        sampler=sampler,
        seed=0 if seed is None else seed,
        width=width,
        height=height,
        image_scale=told.number("Image CFG scale"),
        hires=_hires(told, width, steps),
        schedule=_schedule(told, sampler, ours=ours),
        clip_skip=told.whole("Clip skip"),
        rng=_rng(told),
        token_merging=min(told.number("Token merging ratio") or 0.0, MOST_MERGED),
        subseed=subseed or 0,
        subseed_strength=subseed_strength or 0.0,
    )
    _mask(told)
    told.rest()
    request.check()
    return Asked(request, tuple(told.notes))


class _Told:
    """The parameters not yet understood, and what is to be said of those that were."""

    def __init__(self, parameters: dict[str, str]):
        self.parameters = parameters
        self.notes: list[str] = []

    def take(self, name: str) -> str | None:
        """A parameter's value, None where it is missing or empty."""
        return self.parameters.pop(name, None) or None

    def whole(self, name: str) -> int | None:
        """A parameter that is a whole number."""
        value = self.take(name)
        try:
            return None if value is None else int(value)
        except ValueError:
            raise _mismatch(name, "a whole number", value) from None

    def number(self, name: str) -> float | None:
        """A parameter that is a finite number."""
        value = self.take(name)
        try:
            number = None if value is None else float(value)
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise _mismatch(name, "a number", value)
        return number

    def size(self, name: str) -> tuple[int, int] | None:
        """A parameter that is a width and a height, "512x768"."""
        value = self.take(name)
        match = None if value is None else _SIZE.fullmatch(value)
        if value is not None and match is None:
            raise _mismatch(name, "such as 512x768", value)
        return None if match is None else (int(match[1]), int(match[2]))

    def rest(self) -> None:
        """Says of each parameter that is left that it is not honoured."""
        for name, value in self.parameters.items():
            unit = name.startswith(UNIT)
            self.notes.append(note_of(name, value) if unit else f"{name}: {value} is not honoured.")
        self.parameters.clear()


def _sampler(told: _Told) -> str | None:
    name = told.take("Sampler")
    if name is None:
        return None
    try:
        ours = sampler_name(name)
    except SafelightError:
        told.notes.append(f"The sampler {name!r} is not known here; the model's own is taken.")
        return None
    if ours in OTHERWISE:
        told.notes.append(f"The sampler {name!r} makes another picture here: {OTHERWISE[ours]}.")
    return name


def _schedule(told: _Told, sampler: str | None, *, ours: bool) -> str | None:
    """The schedule's name; None where the sampler's own name has it, or, if the infotext is of
    `ours`, for the model's own.
    """
    named = told.take("Schedule type")
    if sampler is None or schedule_in(sampler) is not None or (ours and named is None):
        return None
    name = sampler_name(sampler)
    if name in BY_TIMES and not ours:
        return AUTOMATIC[name]
    if named in (None, "Automatic"):
        return "normal" if named is None else AUTOMATIC.get(name, "normal")
    for known, label in SCHEDULES.items():
        if label == named:
            return known
    try:
        return schedule_name(named or "")
    except SafelightError:
        told.notes.append(f"The schedule {named!r} is not known here; the model's own is taken.")
        return None


def _rng(told: _Told) -> RngName:
    source = told.take("RNG") or "GPU"
    if source not in ("CPU", "GPU", "NV"):
        told.notes.append(f"The noise was drawn by {source!r}, which is not known; here as by GPU.")
    return "cpu" if source == "CPU" else "a1111-gpu"


def _hires(told: _Told, width: int | None, steps: int | None) -> Hires | None:
    """The second pass, of which the web UI says how many steps it really takes."""
    scale, larger = told.number("Hires upscale"), told.size("Hires resize")
    wanted, name = told.whole("Hires steps"), told.take("Hires upscaler")
    strength = told.number("Denoising strength")
    if scale is None and larger is not None and width:
        scale = larger[0] / width
        told.notes.append("The second pass keeps the picture's proportions: no Hires resize.")
    if scale is None or scale <= 1:
        if strength is not None:
            told.notes.append(
                "The picture was begun from another one, which its file does not hold; it is made "
                "from the prompt alone."
            )
        return None
    strength = _HIRES_STRENGTH if strength is None else min(strength, 1.0)
    if strength <= 0:
        raise _mismatch("Denoising strength", "above 0", str(strength))
    taken = wanted or steps
    whole = None if taken is None else math.ceil(taken / strength)
    return Hires(scale, strength, whole, _upscaler(told, name))


def _mask(told: _Told) -> None:
    blur = told.whole("Mask blur")
    if blur is not None:
        told.notes.append(
            f"The picture was made behind a mask (Mask blur: {blur}), which its file does not hold;"
            f" with image and mask, safelight generate takes --mask-blur {blur}."
        )


def _upscaler(told: _Told, name: str | None) -> Upscaler:
    for ours, theirs in UPSCALERS.items():
        if name in (theirs, None):
            return ours
    ours = "latent" if name is not None and name.startswith("Latent") else "lanczos"
    told.notes.append(f"The upscaler {name!r} is not known here; {ours} is taken.")
    return ours


def _mismatch(name: str, expected: str, value: str | None) -> SafelightError:
    return SafelightError(f"The infotext's {name} should be {expected}, got {value!r}.")
