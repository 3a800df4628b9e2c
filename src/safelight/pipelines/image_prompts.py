"""Pictures that speak beside the prompt, by an IP-Adapter and its image encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.components import Reading
from safelight.checkpoints.conditions import IMAGE_ENCODER, IP_ADAPTER, IP_ADAPTER_FILE
from safelight.checkpoints.features import EFFICIENTNET
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import SINGLE, Folder
from safelight.checkpoints.image_encoder import ImageEncoder, check_encoder, read_image_encoder
from safelight.checkpoints.ip_adapter import read_image_adapter
from safelight.config import read_json
from safelight.errors import SafelightError
from safelight.models.image_adapter import ImageAdapter, Pictured, check_fit
from safelight.models.unet import UNet
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.find import lasting_name
from safelight.pipelines.given import give
from safelight.pipelines.hub import find_part
from safelight.pipelines.manifest import UsedImageAdapter, UsedImagePrompts, UsedPicture
from safelight.types import Conditioning


@dataclass(frozen=True)
class Seeing:
    """An IP-Adapter with the encoder that it was trained with; a picture is looked at once."""

    adapter: ImageAdapter
    encoder: ImageEncoder
    used: UsedImageAdapter
    _known: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def read(self, prompts: Sequence[ImagePrompt], scale: float | None) -> "ReadImagePrompts":
        """Pictures as this adapter sees them; `SafelightError` for one that cannot be read."""
        embeddings: list[Tensor] = []
        pictures: list[UsedPicture] = []
        for prompt in prompts:
            prompt.check()
            given = give("image", prompt.picture)
            assert given is not None
            if given.sha256 not in self._known:
                self._known[given.sha256] = self.encoder.embed([given.picture])
            embeddings.append(self._known[given.sha256])
            pictures.append(UsedPicture(given.file, given.sha256))
        weights = tuple(prompt.weight for prompt in prompts)
        used = UsedImagePrompts(self.used, tuple(pictures), weights, scale)
        return ReadImagePrompts(self, tuple(embeddings), weights, scale, used)


@dataclass(frozen=True)
class ReadImagePrompts:
    """The pictures of a request.

    Attributes:
        seeing: what sees them.
        embeddings: of each, one row or one for each picture to be made.
        weights: of each.
        scale: of the guidance by them alone; None for the prompt's.
        used: what a manifest says of them.
    """

    seeing: Seeing
    embeddings: tuple[Float[Tensor, "b ..."], ...]
    weights: tuple[float, ...]
    scale: float | None
    used: UsedImagePrompts

    def network(self, unet: UNet) -> Pictured:
        """A U-Net that attends to the pictures."""
        tokens = self._tokens(self.seeing.encoder.null(), 1).shape[1]
        return Pictured(unet, self.seeing.adapter, self.weights, tokens)

    def put_in(self, cond: Conditioning, count: int, *, told: bool) -> Conditioning:
        """A conditioning of `count` rows with the pictures, or with nothing in their place."""
        null = self.seeing.encoder.null()
        rows = self.embeddings if told else (null,) * len(self.embeddings)
        return replace(cond, pictures=tuple(self._tokens(row, count) for row in rows))

    def _tokens(self, embedding: Tensor, count: int) -> Float[Tensor, "b n d"]:
        weight = next(self.seeing.adapter.parameters())
        tokens = self.seeing.adapter(embedding.to(weight))
        return tokens.expand(count, -1, -1) if len(tokens) == 1 else tokens


def read_seeing(
    file: str | Path,
    encoder: str | Path | None,
    folder: Folder,
    reading: Reading,
    *,
    offline: bool = False,
) -> Seeing:
    """An IP-Adapter for a model.

    `encoder` is as of `read_image_encoder`; None is the folder `image_encoder` beside the file or
    beside its folder, as the authors' repository has it.

    Raises `SafelightError` if one of them is missing or broken, or they do not fit each other or
    the model.
    """
    path = find_part(file, offline=offline)
    adapter = read_image_adapter(path, reading)
    try:
        check_fit(folder.unet, adapter.config)
    except ValueError as error:
        raise SafelightError(f"{path}: {error}") from error
    source = _beside(path) if encoder is None else encoder
    plain = adapter.config.kind == "plain"
    seeing = read_image_encoder(source, tokens=not plain, reading=reading)
    check_encoder(seeing, adapter.config, str(source))
    own = path.parent.name == IP_ADAPTER and path.parent.parent == _root(folder)
    place = str(source) if str(source) == EFFICIENTNET else str(Path(source).absolute())
    used = UsedImageAdapter(
        "" if own else lasting_name(str(file)),
        sha256_of_files([path]),
        "" if own else place,
        sha256_of_files(list(seeing.files)),
    )
    return Seeing(adapter, seeing, used)


def own_seeing(folder: Folder, name: str, reading: Reading) -> Seeing:
    """The adapter that a model's folder brings; `SafelightError` if it brings none."""
    root = _root(folder)
    if root is None or not (root / IP_ADAPTER / IP_ADAPTER_FILE).is_file():
        raise SafelightError(
            f"{name} brings no IP-Adapter, which sees image prompts; give one by --ip-adapter, or "
            "in Python by see_by."
        )
    return read_seeing(root / IP_ADAPTER / IP_ADAPTER_FILE, None, folder, reading)


def joined_prompts(rows: Sequence[ReadImagePrompts]) -> ReadImagePrompts:
    """The pictures of several rows, as many in each and with the weights of the first, as those of
    one batch.
    """
    columns = zip(*(row.embeddings for row in rows), strict=True)
    return replace(rows[0], embeddings=tuple(torch.cat(column) for column in columns))


def _root(folder: Folder) -> Path | None:
    files = folder.files
    if SINGLE in files or not files.get("unet"):
        return None
    return files["unet"][0].parent.parent


def _beside(path: Path) -> str | Path:
    """The encoder of the adapter in a file: named in `config.json`, or in a folder beside it."""
    config = path.parent / "config.json"
    named = read_json(config).get(IMAGE_ENCODER) if config.is_file() else None
    if isinstance(named, str):
        return named if named == EFFICIENTNET else path.parent / named
    for place in (path.parent, path.parent.parent):
        if (place / IMAGE_ENCODER / "config.json").is_file():
            return place / IMAGE_ENCODER
    raise SafelightError(
        f"There is no image encoder beside {path}, in a folder {IMAGE_ENCODER}; give it by "
        "--image-encoder: a folder with CLIP's image tower, as transformers writes it."
    )
