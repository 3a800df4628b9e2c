"""What made a picture, kept so that the same picture can be made again."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import cast

from PIL import Image

from safelight.config import Value, from_dict, to_dict
from safelight.engine.names import Chosen, Storage
from safelight.errors import SafelightError
from safelight.pipelines.choices import MaskFill, PromptSyntax, Quality, RngName
from safelight.pipelines.control_settings import ControlMode, ControlResize
from safelight.pipelines.given import Given
from safelight.pipelines.guidance_settings import PLAIN, Guidance
from safelight.pipelines.request import Hires, Margins, Toward, Windows
from safelight.types import Box

_FORMAT = 1
_MOST_THREADS = 4096
_ONCE_SERVED = ("watermark", "safety")  # keys of `Served` that were never filled


@dataclass(frozen=True)
class UsedAdapter:
    """A LoRA or its kin that took part in a picture."""

    file: str  # its absolute path
    sha256: str
    strength: float


@dataclass(frozen=True)
class UsedEmbedding:
    """A textual inversion that prompts could name."""

    file: str  # its absolute path
    sha256: str
    token: str


@dataclass(frozen=True)
class UsedPicture:
    """A picture that was given beside the prompt."""

    file: str | None  # its absolute path; None for one made in memory
    sha256: str  # of its size and pixels


@dataclass(frozen=True)
class UsedControl:
    """A picture that steered what was made; fields that are not here are those of `Control`."""

    kind: str
    network: str  # where it lay; empty for one that the model brings
    sha256: str  # of the network's weights and configuration
    picture: UsedPicture
    made: str  # SHA-256 of the hint's pixels, at the size of the first pass
    hint: bool = False
    annotator: str = ""
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: ControlMode = "balanced"
    weights: tuple[float, ...] | None = None
    mask: UsedPicture | None = None
    resize: ControlResize = "stretch"


@dataclass(frozen=True)
class UsedCondition:
    """What a picture was made under beside its prompt: a picture, a class's name, or boxes."""

    kind: str
    picture: UsedPicture | None = None
    name: str = ""
    boxes: tuple[Box, ...] = ()
    scale: float | None = None  # of its own guidance


@dataclass(frozen=True)
class UsedImageAdapter:
    """An IP-Adapter and its image encoder; both places are empty for those that a model brings."""

    file: str
    sha256: str
    encoder: str
    encoder_sha256: str


@dataclass(frozen=True)
class UsedImagePrompts:
    """Pictures that spoke beside the prompt."""

    adapter: UsedImageAdapter
    pictures: tuple[UsedPicture, ...]
    weights: tuple[float, ...]
    scale: float | None = None  # of the guidance by them alone


@dataclass(frozen=True)
class UsedRefiner:
    """A second model that did the last part of the steps."""

    model: str  # as `Manifest.model`
    at: float  # the part of the noise schedule that was done before it
    weights: dict[str, str]
    configuration: dict[str, str]


@dataclass(frozen=True)
class UsedGuide:
    """A weaker model that guidance led away from."""

    model: str  # as `Manifest.model`
    weights: dict[str, str]
    configuration: dict[str, str]


@dataclass(frozen=True)
class Served:
    """What a server did beside making a picture."""

    batch: int = 1  # pictures that shared each call of the network, which changes the last digits


@dataclass(frozen=True)
class Manifest:
    """Everything that makes one picture again: the request, the model and the machinery.

    `seed` is this picture's own (the first seed plus `place`, or with a `subseed_strength` that of
    all), so the picture comes again alone.
    The last digits of float32 arithmetic depend on the number of threads and on the processor;
    both are recorded, the first is restored by `safelight rerun`.
    """

    prompt: str
    negative: str
    seed: int
    steps: int
    scale: float
    sampler: str
    width: int  # pixels
    height: int  # pixels
    model: str  # the name that --model was given, or the absolute path of the folder
    weights: dict[str, str]  # component of the model to the SHA-256 of its weights
    precision: str  # "float32", "bfloat16" or "float16"
    device: str  # "cpu", "cuda", ...
    machine: str  # processor and its vector extension, or the name of the GPU
    threads: int  # of the CPU
    pixels: str = ""  # SHA-256 of the RGB bytes, rows from the top
    place: int = 0  # in the batch asked for
    count: int = 1  # of the batch asked for
    versions: dict[str, str] = field(default_factory=dict[str, str])
    configuration: dict[str, str] = field(default_factory=dict[str, str])  # file to its SHA-256
    adapters: tuple[UsedAdapter, ...] = ()
    embeddings: tuple[UsedEmbedding, ...] = ()
    given: dict[str, UsedPicture] = field(default_factory=dict[str, UsedPicture])
    strength: float | None = None  # None where no picture was begun from
    image_scale: float | None = None
    noise_level: int | None = None
    mask_blur: int | None = None
    mask_fill: MaskFill = "original"
    outpaint: Margins | None = None
    hires: Hires | None = None
    schedule: str | None = None  # None for the model's own
    sigmas: tuple[float, ...] | None = None
    refiner: UsedRefiner | None = None
    prompt_syntax: PromptSyntax = "plain"  # as it was before there was any
    clip_skip: int = 1
    rng: RngName = "cpu"
    subseed: int = 0  # this picture's own
    subseed_strength: float = 0.0
    guidance: Guidance = PLAIN
    guide: UsedGuide | None = None
    vae: str = ""  # the autoencoder, where it is not the model's own: absolute path, bundled name
    toward: Toward | None = None
    tiled_decode: bool = False  # whether the autoencoder worked in tiles
    windows: Windows | None = None  # of the U-Net
    controls: tuple[UsedControl, ...] = ()
    conditions: tuple[UsedCondition, ...] = ()
    image_prompts: UsedImagePrompts | None = None
    watermark: str = ""  # the mark in the pixels that is not seen, by its name
    safety: str = ""  # what looked at the picture, and whether it was withheld
    engine: Chosen = "torch"  # what computed the U-Net
    storage: Storage | None = None  # in how many bytes weights were held; None: as precision says
    quality: Quality = "exact"
    token_merging: float = 0.0
    served: Served | None = None  # where a server made it
    format: int = _FORMAT

    def to_json(self) -> str:
        """The manifest as JSON, one key a line."""
        return json.dumps(to_dict(self), indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(text: str, source: str) -> "Manifest":
        """Reads `to_json`'s text; `source` names the file in errors.

        Raises `SafelightError` if the text is not a manifest of a format known here.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SafelightError(f"{source} holds a damaged manifest: {error}") from error
        if not isinstance(values, dict):
            raise SafelightError(f"{source} holds a damaged manifest: not a JSON object.")
        values = cast(dict[str, Value], values)
        if values.get("format") != _FORMAT:
            raise SafelightError(
                f"{source} holds a manifest of format {values.get('format')!r}, this safelight "
                f"reads format {_FORMAT}; install the version that wrote it."
            )
        served = values.get("served")
        if isinstance(served, dict):
            values["served"] = {key: served[key] for key in served if key not in _ONCE_SERVED}
        try:
            manifest = from_dict(Manifest, values)
        except SafelightError as error:
            raise SafelightError(f"{source} holds a damaged manifest: {error}") from error
        if not 1 <= manifest.threads <= _MOST_THREADS:
            raise SafelightError(
                f"{source} holds a damaged manifest: threads should lie between 1 and "
                f"{_MOST_THREADS}, got {manifest.threads}."
            )
        return manifest


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of a picture's RGB bytes, rows from the top, in hexadecimal."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def used_pictures(given: Given) -> dict[str, UsedPicture]:
    """What a manifest says of the pictures that were given."""
    return {
        part: UsedPicture(picture.file, picture.sha256) for part, picture in given.parts.items()
    }
