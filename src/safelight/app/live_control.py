"""The controls of a stream as a user asks for them on the command line."""

from collections.abc import Sequence

from safelight.errors import SafelightError
from safelight.pipelines.control_settings import Control
from safelight.pipelines.stream_settings import unseen_control


def chosen_controls(texts: Sequence[str], *, hint: bool) -> list[Control]:
    """Controls of `KIND` or `KIND:WEIGHT`, whose pictures are given later; `SafelightError` for a
    weight that is no number.
    """
    return [_control(text, hint=hint) for text in texts]


def _control(text: str, *, hint: bool) -> Control:
    kind, colon, number = text.partition(":")
    try:
        weight = float(number) if colon else 1.0
    except ValueError as error:
        raise SafelightError(
            f"--control of a stream is a kind and its weight, such as canny:0.8; got {text!r}."
        ) from error
    return unseen_control(kind.strip(), hint=hint, weight=weight)
