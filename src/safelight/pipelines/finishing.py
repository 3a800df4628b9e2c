"""What happens to a picture once it is made: a check, and a mark."""

from dataclasses import dataclass

from PIL import Image

from safelight.errors import SafelightError
from safelight.pipelines.safety import WITHHELD_FROM, checked_by, unsafe_score
from safelight.pipelines.watermark import MARK, MARKS


@dataclass(frozen=True)
class Finish:
    """How pictures are finished.

    Attributes:
        watermark: whether they get a mark of `safelight.pipelines.watermark`.
        safety: whether they are looked at, and black in the place of what is unsafe.
        mark: which mark, by its name.
    """

    watermark: bool = False
    safety: bool = False
    mark: str = MARK

    def check(self) -> None:
        """Raises `SafelightError` if the checker is not installed."""
        if self.safety:
            checked_by()

    def __call__(self, image: Image.Image) -> "Finished":
        """Finishes a picture; errors as `check`."""
        told = ""
        if self.safety:
            withheld = unsafe_score(image) >= WITHHELD_FROM
            told = f"{checked_by()}: {'withheld' if withheld else 'passed'}"
            if withheld:
                image = Image.new("RGB", image.size)
        if self.watermark:
            image = MARKS[self.mark](image)
        return Finished(image, self.mark if self.watermark else "", told)


@dataclass(frozen=True)
class Finished:
    """A picture, its mark by its name, and what looked at it and found; empty for none."""

    image: Image.Image
    watermark: str
    safety: str


AS_IT_IS = Finish()


def finish_of(watermark: str, safety: str) -> Finish:
    """How a picture was finished, as its manifest tells.

    Raises `SafelightError` for a mark that is not known here.
    """
    if watermark and watermark not in MARKS:
        raise SafelightError(
            f"The picture has the watermark {watermark!r}, this safelight knows "
            f"{' and '.join(MARKS)}; install the version that made it."
        )
    return Finish(bool(watermark), bool(safety), watermark or MARK)
