"""How a stream is to be opened, as the server tells its process."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Opening:
    """A stream as a page asks for it; fields are those of `safelight.stream`.

    Attributes:
        place: where the model lies.
        control: the kind of a control that is drawn for, whose hint the drawing is.
        most_pixels: of its pictures.
    """

    place: str
    prompt: str = ""
    negative: str = ""
    seed: int = 0
    steps: int = 4
    scale: float | None = None
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    control: str | None = None
    device: str = "auto"
    most_pixels: int = 2**22
