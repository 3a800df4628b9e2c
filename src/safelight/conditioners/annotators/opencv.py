"""OpenCV, imported where it is used, and pictures as it takes them."""

from types import ModuleType

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from safelight.errors import SafelightError


def opencv() -> ModuleType:
    """The module `cv2`; `SafelightError` where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise SafelightError(
            'This hint is made by OpenCV: pip install "safelight[control]".'
        ) from error
    return cv2


def levels_of(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB picture as bytes."""
    return np.asarray(image.convert("RGB"))


def picture_of(levels: np.ndarray) -> Image.Image:
    """Bytes (h, w) or (h, w, 3) as an RGB picture."""
    return Image.fromarray(levels).convert("RGB")
