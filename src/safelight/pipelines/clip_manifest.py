"""What made a clip, kept so that the same clip can be made again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from PIL import Image

from safelight.config import Value, from_dict, to_dict
from safelight.engine.names import Storage
from safelight.errors import SafelightError
from safelight.pipelines.clip_request import ClipSettings
from safelight.pipelines.manifest import UsedAdapter, UsedPicture

_FORMAT = 1
_MOST_THREADS = 4096


@dataclass(frozen=True)
class UsedMotion:
    """The motion module of AnimateDiff that took part."""

    file: str  # where it lay, or its name on the hub
    sha256: str


@dataclass(frozen=True)
class ClipManifest:
    """Everything that makes one clip again: the request, the model and the machinery.

    As for a picture (`Manifest`), the last digits depend on the number of threads and on the
    processor.
    """

    prompt: str
    negative: str
    seed: int
    settings: ClipSettings
    model: str  # the name that --model was given, or the absolute path of the folder
    weights: dict[str, str]  # component of the model to the SHA-256 of its weights
    precision: str  # "float32", "bfloat16" or "float16"
    device: str
    machine: str
    threads: int  # of the CPU
    pixels: str  # SHA-256 of the RGB bytes of all frames, one after the other
    image: UsedPicture | None = None
    last: UsedPicture | None = None
    motion_module: UsedMotion | None = None
    adapters: tuple[UsedAdapter, ...] = ()
    versions: dict[str, str] = field(default_factory=dict[str, str])
    configuration: dict[str, str] = field(default_factory=dict[str, str])
    storage: Storage | None = None  # in how many bytes weights were held; None: as precision says
    clip: int = _FORMAT

    def to_json(self) -> str:
        """The manifest as JSON, one key a line."""
        return json.dumps(to_dict(self), indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(text: str, source: str) -> "ClipManifest | None":
        """Reads `to_json`'s text; None for that of a picture or a grid, or no JSON at all.

        Raises `SafelightError` if it is a clip's and damaged, or of a format not known here;
        `source` names the file.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return None
        if not isinstance(values, dict) or "clip" not in values:
            return None
        values = cast(dict[str, Value], values)
        if values["clip"] != _FORMAT:
            raise SafelightError(
                f"{source} holds the manifest of a clip of format {values['clip']!r}, this "
                f"safelight reads format {_FORMAT}; install the version that wrote it."
            )
        try:
            manifest = from_dict(ClipManifest, values)
        except SafelightError as error:
            raise SafelightError(f"{source} holds a damaged manifest: {error}") from error
        if not 1 <= manifest.threads <= _MOST_THREADS:
            raise SafelightError(
                f"{source} holds a damaged manifest: threads should lie between 1 and "
                f"{_MOST_THREADS}, got {manifest.threads}."
            )
        return manifest


def frames_digest(frames: Sequence[Image.Image]) -> str:
    """SHA-256 of the RGB bytes of all frames, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.convert("RGB").tobytes())
    return digest.hexdigest()
