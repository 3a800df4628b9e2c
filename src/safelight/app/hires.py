"""The second pass as the command line asks for it."""

from dataclasses import replace

from safelight.errors import SafelightError
from safelight.pipelines.choices import Upscaler
from safelight.pipelines.request import Hires


def chosen_hires(
    scale: float | None, strength: float | None, steps: int | None, upscaler: Upscaler | None
) -> Hires | None:
    """The second pass, if a scale is given; `SafelightError` for its options without one."""
    if scale is None:
        if (strength, steps, upscaler) != (None, None, None):
            raise SafelightError("--hires-strength and its kin go with --hires SCALE; give that.")
        return None
    hires = Hires(scale, steps=steps)
    if strength is not None:
        hires = replace(hires, strength=strength)
    return hires if upscaler is None else replace(hires, upscaler=upscaler)
