"""A coarse copy of a picture: the hint of ControlNet tile."""

from dataclasses import dataclass

from PIL import Image

from safelight.errors import SafelightError


@dataclass(frozen=True)
class Tile:
    """The picture shrunk `rate` times, 1 to 64, by means of areas and enlarged to its size again:
    what a network sees that is to bring details back.

    At 1, the default of AUTOMATIC1111's `tile_resample`, it is the picture itself, which is right
    for a picture that lacks details already; a training wants more, such as 8.

    Raises `SafelightError` for another rate.
    """

    rate: float = 1.0

    def __post_init__(self):
        if not 1 <= self.rate <= 64:
            raise SafelightError(f"rate should lie between 1 and 64, got {self.rate}.")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The hint of an RGB picture, as large as it."""
        if self.rate == 1:
            return image.copy()
        width, height = (max(1, round(side / self.rate)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BICUBIC)
