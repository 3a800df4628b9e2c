"""Parts of training recipes that are no configuration of another layer's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safelight.data.config import DataConfig, FolderConfig
from safelight.errors import SafelightError
from safelight.models.clip import ClipTextConfig


@dataclass(frozen=True)
class TextConfig:
    """The text tower and its tokenizer; `trained` tells whether the tower learns along.

    The vocabulary is that of the folder `tokenizer`, or one of `vocab_size` byte pairs learned from
    the captions. The tower's own vocab_size, max_position_embeddings and eos_token_id follow from
    it.
    """

    tower: ClipTextConfig = field(default_factory=ClipTextConfig)
    tokenizer: Path | None = None
    vocab_size: int = 4096
    length: int = 32
    trained: bool = True


@dataclass(frozen=True)
class PreviewConfig:
    """The sample grid: one column for each prompt (none: captions of the data), some guidance."""

    prompts: tuple[str, ...] = ()
    columns: int = 8
    steps: int = 20
    scale: float = 4.0
    seed: int = 0

    def __post_init__(self):
        for name in ("columns", "steps"):
            if getattr(self, name) < 1:
                raise SafelightError(
                    f"preview.{name} should be at least 1, got {getattr(self, name)}."
                )


@dataclass(frozen=True)
class HintConfig:
    """The picture by which a ControlNet steers: what `annotator` makes of each picture, or the file
    that the picture's row in the metadata names in `column`.

    `options` are of the annotator's kind, such as `{low = 50}` of canny; `weights` the file or
    folder of the network that it stands on, or its name on the Hugging Face hub.
    """

    annotator: str | None = None
    column: str | None = None
    options: Mapping[str, bool | int | float] = field(default_factory=dict[str, bool | int | float])
    weights: str | None = None

    def __post_init__(self):
        if (self.annotator is None) == (self.column is None):
            raise SafelightError(
                "[hint] should name an annotator (such as canny) or a column of the metadata "
                "(such as conditioning_image), and not both."
            )
        if self.annotator is None and (self.options or self.weights is not None):
            raise SafelightError(
                "hint.options and hint.weights are of an annotator; name one (such as canny) in "
                "the place of the column, or leave them out."
            )


@dataclass(frozen=True)
class StillsConfig:
    """Pictures that a video model learns from between its clips, in `share` of the steps."""

    folders: tuple[FolderConfig, ...]
    share: float = 0.25
    batch_size: int | None = None  # as many as of clips, unless said otherwise

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise SafelightError(f"stills.share should be between 0 and 1, got {self.share}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise SafelightError(f"stills.batch_size should be at least 1, got {self.batch_size}.")


@dataclass(frozen=True)
class TinyShape:
    """The shape of a tiny autoencoder, its levels as in `models.tiny.TinyConfig`; what it leaves
    open is as the one that it stands in for.
    """

    encoder_width: int = 64
    decoder_width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)


def check_encoded_once(data: DataConfig, kind: str) -> None:
    """Raises `SafelightError` for ways to cut pictures that would have them encoded anew."""
    if data.crop != "center" or data.zoom != 1:
        raise SafelightError(
            f"data.crop and data.zoom do not go with kind = {kind!r}, whose pictures are encoded "
            "once, cut at the centre; leave them out."
        )
