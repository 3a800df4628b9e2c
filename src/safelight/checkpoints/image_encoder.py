"""What turns a picture into the embedding that an IP-Adapter takes: an image tower of CLIP's, or a
packaged feature network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.components import Reading, weights_files
from safelight.checkpoints.features import EFFICIENTNET, load_features
from safelight.checkpoints.vision import (
    FEATURES,
    Vision,
    fitting,
    read_image_tower,
    read_preparation,
)
from safelight.conditioners.image import prepared
from safelight.errors import SafelightError
from safelight.models.features import EfficientNetLite0, packaged_efficientnet
from safelight.models.image_adapter import ImageAdapterConfig
from safelight.pictures import to_pixels

_SIDE = 64
"""The side that pictures are brought to for the packaged network, whatever their size."""


@dataclass(frozen=True)
class ImageEncoder:
    """How an adapter sees pictures.

    Attributes:
        embed: RGB pictures to their embeddings, (n, e), or (n, m, e) for "plus" and "full".
        null: what stands for no picture, one row of such.
        width: e.
        files: the weights.
    """

    embed: Callable[[Sequence[Image.Image]], Float[Tensor, "n ..."]]
    null: Callable[[], Float[Tensor, "1 ..."]]
    width: int
    files: tuple[Path, ...]


def read_image_encoder(
    source: str | Path, *, tokens: bool = False, reading: Reading | None = None
) -> ImageEncoder:
    """The encoder of a folder with a `CLIPVisionModelWithProjection` as transformers writes it; or
    "efficientnet-lite0", the package's weights, by pictures brought to 64 pixels a side and vectors
    brought to a deviation of 1.

    With `tokens` it gives those of the last layer but one, which "plus" and "full" adapters take.

    Raises `SafelightError` if there is none, or it cannot give these.
    """
    reading = reading or Reading()
    if str(source) == EFFICIENTNET:
        return _packaged(reading, tokens=tokens)
    folder = Path(source)
    tower = read_image_tower(folder, reading)
    preparation = read_preparation(tower, folder, folder.parent / FEATURES)
    fitting(Vision(tower, preparation), str(folder))
    run = tower.tokens if tokens else tower

    def see(pixels: Float[Tensor, "n 3 s s"]) -> Tensor:
        with torch.inference_mode():
            return run(pixels.to(reading.device, reading.dtype)).float()

    def embed(pictures: Sequence[Image.Image]) -> Tensor:
        return see(torch.cat([prepared(picture, preparation) for picture in pictures]))

    @cache
    def null() -> Tensor:
        side = tower.config.image_size
        nothing = see(torch.zeros(1, 3, side, side))
        return nothing if tokens else torch.zeros_like(nothing)

    width = tower.config.hidden_size if tokens else tower.config.projection_dim
    return ImageEncoder(embed, null, width, weights_files(folder))


def check_encoder(encoder: ImageEncoder, config: ImageAdapterConfig, source: str) -> None:
    """Raises `SafelightError` for an encoder of another width than the adapter takes."""
    if encoder.width != config.embedding_dim:
        raise SafelightError(
            f"The IP-Adapter takes embeddings of width {config.embedding_dim}, the image encoder "
            f"{source} gives {encoder.width}; give the one that it was trained with."
        )


def _packaged(reading: Reading, *, tokens: bool) -> ImageEncoder:
    if tokens:
        raise SafelightError(
            f"{EFFICIENTNET} gives one vector of a picture; this IP-Adapter takes the tokens of a "
            "CLIP image tower. Give that as the image encoder."
        )
    network = load_features(EFFICIENTNET, reading.device)
    assert isinstance(network, EfficientNetLite0)

    def embed(pictures: Sequence[Image.Image]) -> Tensor:
        size = (_SIDE, _SIDE)
        small = [to_pixels(one.resize(size, Image.Resampling.BICUBIC)) for one in pictures]
        with torch.inference_mode():
            vectors = network.pooled(torch.stack(small).to(reading.device)).float()
        return vectors / vectors.std(dim=-1, keepdim=True)

    width = embed([Image.new("RGB", (_SIDE, _SIDE))]).shape[-1]
    return ImageEncoder(embed, lambda: torch.zeros(1, width), width, (packaged_efficientnet(),))
