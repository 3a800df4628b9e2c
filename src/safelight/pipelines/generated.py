"""A picture that was made, and its pixels as 8-bit colours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from safelight.pipelines.infotext_written import infotext_of
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.picture_files import write_picture


@dataclass(frozen=True)
class GeneratedImage:
    """A picture and what made it."""

    image: Image.Image
    manifest: Manifest

    def save(self, path: str | Path, *, infotext: bool = False) -> None:
        """Writes the picture with its manifest: `.png` and `.webp` exactly, `.jpg` with loss; with
        an `infotext` beside it for AUTOMATIC1111's web UI and what reads its pictures.

        Raises `SafelightError` for another suffix, or if the file cannot be written.
        """
        text = str(infotext_of(self.manifest)) if infotext else None
        write_picture(Path(path), self.image, self.manifest, text)


def to_image(pixels: Float[Tensor, "3 h w"]) -> Image.Image:
    """Pixels in [-1, 1] as an 8-bit picture, rounded to the nearest level, as diffusers does."""
    return Image.fromarray(to_levels(pixels))


def to_levels(pixels: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The same as bytes."""
    levels = ((pixels.float().cpu() / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).contiguous()
    # torch's rounding wakes threads that then stand in the way of another engine's.
    return np.rint(levels.numpy()).astype(np.uint8)
