"""Margins as the command line writes them."""

from safelight.config import near
from safelight.errors import SafelightError
from safelight.pipelines.request import Margins

_SIDES = ("left", "top", "right", "bottom")


def margins_of(text: str | None) -> Margins | None:
    """Margins of "64", which is every side, or of "left=64,right=32".

    Raises `SafelightError` for another text.
    """
    if text is None:
        return None
    if text.isdecimal():
        return Margins(*[int(text)] * len(_SIDES))
    sides: dict[str, int] = {}
    for part in text.split(","):
        side, equals, pixels = (word.strip() for word in part.partition("="))
        if not equals or not pixels.isdecimal():
            raise SafelightError(
                f"--outpaint should be a number of pixels, or such as left=64,right=32; got "
                f"{text!r}."
            )
        if side not in _SIDES:
            raise SafelightError(f"--outpaint has no side {side!r}. {near(side, _SIDES)}")
        sides[side] = int(pixels)
    return Margins(**sides)
