"""The parts of a model folder one by one: each a subfolder with `config.json` and weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.detect import describe_folder
from safelight.checkpoints.files import find_weights, read_weights, write_weights
from safelight.checkpoints.rules import Table, from_ours, load_into
from safelight.checkpoints.tables.any_unet import UNETS, unet_plan, unet_values
from safelight.checkpoints.tables.autoencoder import (
    AUTOENCODER,
    TEMPORAL,
    VQ,
    autoencoder_config_from_diffusers,
    autoencoder_config_to_diffusers,
    temporal_config_from_diffusers,
    temporal_config_to_diffusers,
    vq_config_from_diffusers,
    vq_config_to_diffusers,
)
from safelight.checkpoints.tables.bert import (
    BERT_TEXT,
    bert_config_from_transformers,
    bert_config_to_transformers,
)
from safelight.checkpoints.tables.clip import (
    CLIP_TEXT,
    clip_config_from_transformers,
    clip_config_to_transformers,
)
from safelight.checkpoints.tables.tiny import (
    TINY,
    tiny_config_from_diffusers,
    tiny_config_to_diffusers,
)
from safelight.config import Value, read_json
from safelight.errors import SafelightError, first_line
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.autoencoder import Autoencoder
from safelight.models.bert import BertText, BertTextConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.tiny import TinyAutoencoder
from safelight.models.tokenizer import EOS, ClipTokenizer
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder
from safelight.models.wordpiece import WordPieceTokenizer

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"
MAX_SHARD_BYTES = 10 * 1000**3
CLIP_VOCABULARY = 49408  # tokens of the public vocabulary
_TENSORS_OF_A_LAYER = 4  # at the least; a tiny autoencoder's block has six

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Reading:
    """In which precision, where, and from which variant of the files weights are read."""

    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    variant: str | None = None


@dataclass(frozen=True)
class Writing:
    """In which precision, as which variant, and in shards of what size weights are written."""

    dtype: torch.dtype = torch.float32
    variant: str | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES


def read_unet(folder: Path, reading: Reading = Reading()) -> UNet:
    """The U-Net in `folder`; `SafelightError` if there is none, or of a family not known."""
    plan = unet_plan(part_config(folder, *UNETS), str(folder / "config.json"))
    return read_part(folder, DIFFUSERS_STEM, plan.build, plan.table, reading, plan.layers)


def read_autoencoder(folder: Path, reading: Reading = Reading()) -> AnyAutoencoder:
    """The autoencoder of any kind in `folder`, or in its `vae` if that is a whole model."""
    if (folder / "model_index.json").is_file():
        folder = folder / ("vae" if (folder / "vae").is_dir() else "vqvae")
    values = part_config(folder, "AutoencoderKL", "VQModel", "AutoencoderTiny", TEMPORAL)
    source = str(folder / "config.json")
    if values.get("_class_name") == "VQModel":
        vq = vq_config_from_diffusers(values, source)
        return read_part(
            folder, DIFFUSERS_STEM, lambda: VQAutoencoder(vq), VQ, reading, (vq.layers_per_block,)
        )
    if values.get("_class_name") == "AutoencoderTiny":
        tiny = tiny_config_from_diffusers(values, source)
        return read_part(
            folder,
            DIFFUSERS_STEM,
            lambda: TinyAutoencoder(tiny),
            TINY,
            reading,
            (*tiny.encoder_blocks, *tiny.decoder_blocks),
        )
    temporal = values.get("_class_name") == TEMPORAL
    read = temporal_config_from_diffusers if temporal else autoencoder_config_from_diffusers
    kind, kl = TemporalAutoencoder if temporal else Autoencoder, read(values, source)
    return read_part(
        folder, DIFFUSERS_STEM, lambda: kind(kl), AUTOENCODER, reading, (kl.layers_per_block,)
    )


def read_text_tower(
    folder: Path, reading: Reading = Reading(), *, skip: int = 0, final_norm: bool = True
) -> ClipText:
    """The text tower in `folder`; `skip` and `final_norm` as in `ClipTextConfig`."""
    source = str(folder / "config.json")
    values = part_config(folder)
    config = clip_config_from_transformers(values, source, skip=skip, final_norm=final_norm)
    return read_part(
        folder,
        TRANSFORMERS_STEM,
        lambda: ClipText(config),
        CLIP_TEXT,
        reading,
        (config.num_hidden_layers,),
    )


def read_bert(folder: Path, reading: Reading = Reading()) -> BertText:
    """The text tower of CompVis' first text-to-image model in `folder`."""
    values = part_config(folder)
    config = bert_config_from_transformers(values, str(folder / "config.json"))
    return read_part(
        folder,
        TRANSFORMERS_STEM,
        lambda: BertText(config),
        BERT_TEXT,
        reading,
        (config.num_hidden_layers,),
    )


def read_wordpiece(folder: Path, tower: BertTextConfig) -> WordPieceTokenizer:
    """BERT's tokenizer in `folder`, from `tokenizer.json`, else `vocab.txt`, as long as the tower.

    Raises `SafelightError` for files that are no word-piece tokenizer's, or not one for `tower`.
    """
    said = folder / "tokenizer_config.json"
    lowercase = (read_json(said) if said.is_file() else {}).get("do_lower_case") is not False
    length = tower.max_position_embeddings
    if (folder / "tokenizer.json").is_file():
        read, file = WordPieceTokenizer.from_tokenizer_json, folder / "tokenizer.json"
    else:
        read, file = WordPieceTokenizer.from_vocabulary, _required(folder, "vocab.txt")
    tokenizer = read(file, length=length, lowercase=lowercase)
    check_tokenizer(tokenizer, tower, str(folder))
    return tokenizer


def read_tokenizer(folder: Path, tower: ClipTextConfig | None = None) -> ClipTokenizer:
    """The tokenizer in `folder`: `tokenizer.json`, else `vocab.json` with `merges.txt`; where none
    of these is there, and `tower` has a row for each token of CLIP's, the public vocabulary.

    Raises `SafelightError` for files that are not a tokenizer's, or not one for `tower`.
    """
    files = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt")
    there = any((folder / name).is_file() for name in files)
    if not there and tower is not None and tower.vocab_size == CLIP_VOCABULARY:
        return public_tokenizer(tower)
    tokenizer = _read_tokenizer(folder)
    if tower is not None:
        check_tokenizer(tokenizer, tower, str(folder))
    return tokenizer


def public_tokenizer(tower: ClipTextConfig) -> ClipTokenizer:
    """The public vocabulary as a tower of `CLIP_VOCABULARY` rows reads it."""
    # OpenCLIP's towers, which have the exact gelu, were trained with id 0 as padding
    pad = "!" if tower.hidden_act == "gelu" else EOS
    return ClipTokenizer.bundled(length=tower.max_position_embeddings, pad=pad)


def check_tokenizer(
    tokenizer: ClipTokenizer | WordPieceTokenizer,
    tower: ClipTextConfig | BertTextConfig,
    source: str,
) -> None:
    """Raises `SafelightError` for a tokenizer with more tokens, or longer, than its tower."""
    if tokenizer.last_id >= tower.vocab_size:
        raise SafelightError(
            f"{source} has token ids up to {tokenizer.last_id}, but its text tower's vocab_size is "
            f"{tower.vocab_size}; expected the tokenizer that the tower was trained with."
        )
    if tokenizer.length > tower.max_position_embeddings:
        raise SafelightError(
            f"{source} has model_max_length = {tokenizer.length}, but its text tower's "
            f"max_position_embeddings is {tower.max_position_embeddings}; expected no more than "
            "that."
        )


def _read_tokenizer(folder: Path) -> ClipTokenizer:
    values = read_json(_required(folder, "tokenizer_config.json"))
    length = values.get("model_max_length", 77)
    if not isinstance(length, int) or not 1 < length <= 65536:
        raise SafelightError(f"{folder}/tokenizer_config.json: no length for model_max_length.")
    pad = _pad_token(folder, values)
    if (folder / "tokenizer.json").is_file():
        return ClipTokenizer.from_tokenizer_json(folder / "tokenizer.json", length=length, pad=pad)
    vocabulary, merges = _required(folder, "vocab.json"), _required(folder, "merges.txt")
    return ClipTokenizer.from_files(vocabulary, merges, length=length, pad=pad)


def write_unet(folder: Path, unet: UNet, writing: Writing = Writing()) -> None:
    """Writes a U-Net as the class of diffusers' that it is, such as `UNet2DConditionModel`, or as
    our own where diffusers has none.
    """
    write_part(folder, DIFFUSERS_STEM, unet, *unet_values(unet), writing)


def write_autoencoder(
    folder: Path, autoencoder: AnyAutoencoder, writing: Writing = Writing()
) -> None:
    """Writes an autoencoder as the class of diffusers' that it is, such as `AutoencoderKL`."""
    if isinstance(autoencoder, VQAutoencoder):
        values, table = vq_config_to_diffusers(autoencoder.config), VQ
    elif isinstance(autoencoder, TinyAutoencoder):
        values, table = tiny_config_to_diffusers(autoencoder.config), TINY
    elif isinstance(autoencoder, TemporalAutoencoder):
        values, table = temporal_config_to_diffusers(autoencoder.config), AUTOENCODER
    else:
        values, table = autoencoder_config_to_diffusers(autoencoder.config), AUTOENCODER
    write_part(folder, DIFFUSERS_STEM, autoencoder, values, table, writing)


def write_text_tower(
    folder: Path, tower: ClipText | BertText, writing: Writing = Writing()
) -> None:
    """Writes a text tower as transformers' `CLIPTextModel`, with projection if it has one, or as
    diffusers' `LDMBertModel`.
    """
    name = str(writing.dtype).removeprefix("torch.")
    if isinstance(tower, BertText):
        values, table = bert_config_to_transformers(tower.config), BERT_TEXT
    else:
        values, table = clip_config_to_transformers(tower.config), CLIP_TEXT
    values |= {"dtype": name, "torch_dtype": name}
    write_part(folder, TRANSFORMERS_STEM, tower, values, table, writing)


def weights_files(folder: Path, variant: str | None = None) -> tuple[Path, ...]:
    """The files that hold the weights of a component's folder."""
    stem = DIFFUSERS_STEM if part_config(folder).get("_class_name") else TRANSFORMERS_STEM
    return find_weights(folder, stem, variant)


def check_layers(counts: Sequence[int], state: Mapping[str, Tensor], source: str) -> None:
    """Raises `SafelightError` before an absurd number of layers is built."""
    if _TENSORS_OF_A_LAYER * sum(counts) > len(state):
        raise SafelightError(
            f"{source} tells of {sum(counts):,} layers, for which its {len(state):,} tensors are "
            "too few."
        )


def read_part(
    folder: Path,
    stem: str,
    build: Callable[[], M],
    table: Table,
    reading: Reading,
    layers: Sequence[int],
) -> M:
    """The network in a folder, whose configuration tells of so many layers in all; errors as
    `load_into`.
    """
    state = read_weights(folder, stem, reading.variant, reading.device)
    check_layers(layers, state, str(folder))
    return filled(build, state, table, source=str(folder), dtype=reading.dtype)


def filled(
    build: Callable[[], M],
    state: Mapping[str, Tensor],
    table: Table,
    *,
    source: str,
    dtype: torch.dtype = torch.float32,
) -> M:
    """A network with exactly a file's tensors, in evaluation mode; errors as `load_into`."""
    try:
        with torch.device("meta"), _Unfilled():
            module = build()
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise SafelightError(
            f"{source}: its configuration cannot be built: {first_line(error)}"
        ) from error
    what = f"the {type(module).__name__} of its configuration"
    load_into(module, state, table, what=what, source=source, dtype=dtype)
    return module.eval()


class _Unfilled(TorchFunctionMode):
    """Leaves out the initial values of weights that are read straight after.

    On the meta device they have no values, yet drawing them imports torch's compiler: seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return kwargs["tensor"]
        return func(*args, **kwargs)


def write_part(
    folder: Path,
    stem: str,
    module: nn.Module,
    values: Mapping[str, Value],
    table: Table,
    writing: Writing,
) -> None:
    """Writes a network with its configuration as a component's folder."""
    state = {
        name: tensor.detach().to("cpu", writing.dtype)
        for name, tensor in from_ours(table, module.state_dict()).items()
    }
    write_weights(folder, stem, state, writing.variant, writing.max_shard_bytes)
    write_text(folder / "config.json", json.dumps(values, indent=2) + "\n")


def part_config(folder: Path, *classes: str) -> dict[str, Value]:
    """The configuration of a component; `SafelightError` if it is of none of the classes."""
    values = read_json(_required(folder, "config.json"))
    if classes and values.get("_class_name") not in classes:
        raise SafelightError(
            f"{folder} is {describe_folder(folder)}; expected {' or '.join(classes)}."
        )
    return values


def _required(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise SafelightError(f"Expected {path}; {folder} is {describe_folder(folder)}.")
    return path


def _pad_token(folder: Path, values: Mapping[str, Value]) -> str:
    """The padding token, a string or a table with `content`, in either of two files."""
    special = folder / "special_tokens_map.json"
    sources = (values, read_json(special) if special.is_file() else {})
    for token in (source.get("pad_token") for source in sources):
        content = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(content, str):
            return content
    return EOS
