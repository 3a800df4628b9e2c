"""What a page and a stream tell each other, however it travels."""

import json
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
from PIL import Image

from safelight.app.live_sources import Feed
from safelight.errors import SafelightError
from safelight.pipelines.stream import Stream


@dataclass(frozen=True)
class Begun:
    """What a page is told of a stream that it opens.

    Attributes:
        width, height: of its pictures.
        draws: whether the page is to draw for it.
        hint: whether what is drawn are white lines on black.
        prompt, negative, seed: as it stands; the seed as text, for a number of JavaScript may not
            hold it.
    """

    width: int
    height: int
    draws: bool
    hint: bool
    prompt: str
    negative: str
    seed: str

    @staticmethod
    def of(stream: Stream, *, draws: bool) -> "Begun":
        """How a stream stands."""
        inputs = stream.newest
        return Begun(
            stream.settings.width,
            stream.settings.height,
            draws,
            stream.takes_hints,
            inputs.prompt,
            inputs.negative,
            str(inputs.seed),
        )

    def as_dict(self) -> dict[str, int | bool | str]:
        """The same for JSON."""
        return asdict(self)


def say(stream: Stream, body: bytes) -> None:
    """Takes what a page says: `{"prompt": ..., "negative": ..., "seed": ...}`, all of them texts.

    Raises `SafelightError` for a seed that is none, `ValueError` or `KeyError` for another body.
    """
    said = _texts(body)
    stream.update(prompt=said["prompt"], negative=said["negative"], seed=_seed(said["seed"]))


def draw(feed: Feed, body: bytes, width: int) -> None:
    """Takes what a page draws: RGBA, row after row of `width` pixels, all opaque.

    Raises `ValueError` for a body that is no whole rows.
    """
    levels = np.frombuffer(body, np.uint8).reshape(-1, width, 4)
    feed(Image.fromarray(np.ascontiguousarray(levels[:, :, :3])))


def _texts(body: bytes) -> dict[str, str]:
    """An object of texts in JSON; `ValueError` for anything else."""
    told: object = json.loads(body)
    texts = cast(dict[str, object], told) if isinstance(told, dict) else {"": told}
    found: dict[str, str] = {}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name!r} is no text.")
        text.encode()  # half a character is a ValueError
        found[name] = text
    return found


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise SafelightError("A seed is a whole number, such as 7.") from error
