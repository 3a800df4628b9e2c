"""A whole model in one file, as CompVis and Stability lay it out: read, and written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from safelight.checkpoints.components import (
    CLIP_VOCABULARY,
    check_layers,
    check_tokenizer,
    filled,
    public_tokenizer,
)
from safelight.checkpoints.families import (
    BERT_TEXT,
    CLASSES,
    REFINER,
    SD1,
    SD2,
    SPREAD,
    SVD,
    UNCLIP,
    UNET,
    VAE,
    XL,
    Family,
    family_of,
    latent_size_of,
    marks_of,
    pipeline_of,
    scheduler_of,
    split,
)
from safelight.checkpoints.files import State, write_state
from safelight.checkpoints.folder import (
    BERT_DEFAULTS,
    SINGLE,
    Defaults,
    Folder,
    check_fit,
)
from safelight.checkpoints.header import ENTRY, Header, read_header, write_header
from safelight.checkpoints.rules import Rule, Table, from_ours, to_ours
from safelight.checkpoints.scheduler_files import scheduler_from_diffusers
from safelight.checkpoints.shift import without_shift
from safelight.checkpoints.svd_file import read_svd
from safelight.checkpoints.tables import autoencoder, bert, clip, compvis, shapes, unet
from safelight.checkpoints.vision import Vision
from safelight.checkpoints.vision_file import read_vision_parts, vision_state
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.any_text import AnyTextTower, AnyTokenizer
from safelight.models.autoencoder import Autoencoder
from safelight.models.bert import BertText
from safelight.models.classes import ClassConfig, ClassEmbedder, ClassReader
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder
from safelight.models.wordpiece import WordPieceTokenizer

_DEFAULTS = {
    BERT_TEXT.pipeline: BERT_DEFAULTS,
    CLASSES.pipeline: Defaults(scale=3.0),  # as in CompVis' own notebook
}
_WITHOUT_NULL = 1000  # ImageNet's classes, in CompVis' first such model, whose heads differ
_LAYERS_LEFT = 23  # of OpenCLIP-H's 24, in files made from diffusers' folders


def read_single_file(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Folder:
    """Reads a text-to-image model of Stable Diffusion's family from one `.safetensors` or `.ckpt`.

    The family is told by the names of the tensors, the shapes of the networks by the tensors. What
    leaves no trace is as the family was published: the tokenizers, the noise schedule, the scale of
    the latents. A file that safelight wrote says all of that in its header.

    Raises `SafelightError`, one line, if anything is missing, broken, or of another family.
    """
    opened = read_weights_file(path)
    source = str(path)
    family = family_of(opened.state, source)
    parts = split(opened.state, family, source)
    if family is SVD:
        return replace(read_svd(parts, source, dtype, device), files={SINGLE: (path,)})
    header = read_header(opened.metadata, source)
    if header.scheduler:
        scheduler = scheduler_from_diffusers(header.scheduler, source)
    else:
        scheduler = scheduler_of(family, opened.state, opened.metadata)
    known = _Known(family, header, source, dtype, latent_size_of(family, scheduler))
    network = _read_unet(parts[UNET], known)
    for what, count in (("towers", len(header.text)), ("tokenizers", len(header.tokenizers))):
        if header.pipeline is not None and count != len(family.text):
            raise SafelightError(
                f"{source} has {len(family.text)} text towers, its header {count} {what}."
            )
    towers = tuple(
        _read_text(parts[part.prefix], place, known) for place, part in enumerate(family.text)
    )
    for tokenizer, tower in zip(header.tokenizers, towers, strict=False):
        if isinstance(tower, ClipText):
            check_tokenizer(tokenizer, tower.config, source)
    folder = Folder(
        unet=network.to(device),
        autoencoder=_read_autoencoder(parts[VAE], known).to(device),
        text_towers=tuple(tower.to(device) for tower in towers),
        tokenizers=header.tokenizers or tuple(_tokenizer(tower, path) for tower in towers),
        scheduler=scheduler,
        pipeline_class=header.pipeline or pipeline_of(family, network.config.in_channels),
        defaults=_DEFAULTS.get(family.pipeline, header.defaults),
        settings=header.settings or family.settings,
        vision=_read_vision(parts, known, device),
        files={SINGLE: (path,)} | _beside(path, family),
    )
    check_fit(path, folder)
    return folder


def write_single_file(path: Path, folder: Folder, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes a model as one safetensors file in the layout of CompVis and Stability, as diffusers'
    `from_single_file` reads it.

    A text entry in its header carries the configurations, so that any model of ours comes back.

    Raises `SafelightError` for a VQ or tiny autoencoder, of which no such layout is known, and for
    a model that has learned conditions, for which a file has no place.
    """
    vae = folder.autoencoder
    told = [one.kind for one in folder.beside.conditions if one.kind != "inpainting"]
    if told:
        raise SafelightError(
            f"A model that is told {', '.join(told)} is written as a folder, not as one file."
        )
    if not isinstance(vae, Autoencoder):
        raise SafelightError(
            f"A model whose autoencoder is a {type(vae).__name__} has no layout of one file."
        )
    if not folder.text_towers or any(isinstance(t, BertText) for t in folder.text_towers):
        raise SafelightError(
            "A model without a text tower is written as a folder, not as one file."
        )
    vae = without_shift(vae)
    levels = len(vae.config.block_out_channels)
    network = from_ours(unet.UNET, folder.unet.state_dict())
    coders = from_ours(autoencoder.AUTOENCODER, vae.state_dict())
    state = _prefixed(UNET, from_ours(compvis.unet_table(folder.unet.config), network))
    state |= _prefixed(VAE, from_ours(compvis.autoencoder_table(levels), coders))
    for part, tower in zip(_family_to_write(folder).text, folder.text_towers, strict=True):
        table = compvis.OPEN_CLIP if part.open_clip else clip.CLIP_TEXT
        state |= _prefixed(part.prefix, from_ours(table, tower.state_dict()))
    if folder.vision is not None:
        state |= vision_state(folder.vision, UNCLIP.vision)
    state |= marks_of(folder.scheduler)
    whole = {name: tensor.detach().to("cpu", dtype) for name, tensor in state.items()}
    write_state(path, whole, {ENTRY: write_header(folder, vae.config)})


@dataclass(frozen=True)
class _Known:
    """What is known of a file before its parts are read, and the precision that is asked for."""

    family: Family
    header: Header
    source: str
    dtype: torch.dtype
    latent_size: int  # where no header tells it


def _read_unet(state: State, known: _Known) -> UNet:
    source = known.source
    if known.header.unet:
        config = unet.unet_config_from_diffusers(known.header.unet, source)
    else:
        config = shapes.unet_config_of(state, source)
        config = replace(config, sample_size=known.latent_size)
        if known.family is CLASSES:  # one head, as CompVis trained it
            config = replace(config, attention_heads=(1,) * len(config.attention_heads))
    check_layers((*config.layers_per_block, *config.transformer_layers), state, source)
    named = to_ours(compvis.unet_table(config), state, source)
    return filled(lambda: UNet(config), named, unet.UNET, source=source, dtype=known.dtype)


def _read_autoencoder(state: State, known: _Known) -> Autoencoder | VQAutoencoder:
    source = known.source
    if known.family is CLASSES:
        vq = shapes.vq_config_of(state, known.family.latent_scale, source)
        named = to_ours(compvis.autoencoder_table(len(vq.block_out_channels)), state, source)
        table = autoencoder.VQ
        return filled(lambda: VQAutoencoder(vq), named, table, source=source, dtype=known.dtype)
    if known.header.vae:
        config = autoencoder.autoencoder_config_from_diffusers(known.header.vae, source)
        check_layers((config.layers_per_block,), state, source)
    else:
        config = shapes.autoencoder_config_of(state, known.family.latent_scale, source)
    named = to_ours(compvis.autoencoder_table(len(config.block_out_channels)), state, source)
    table = autoencoder.AUTOENCODER
    return filled(lambda: Autoencoder(config), named, table, source=source, dtype=known.dtype)


def _read_vision(
    parts: Mapping[str, State], known: _Known, device: torch.device | str
) -> Vision | None:
    family = known.family
    if not family.vision:
        return None
    return read_vision_parts(
        parts[family.vision],
        parts[SPREAD],
        known.header.vision,
        source=known.source,
        dtype=known.dtype,
        device=device,
    )


def _read_tower(state: State, place: int, known: _Known) -> ClipText:
    source, family = known.source, known.family
    open_clip = family.text[place].open_clip
    named = to_ours(compvis.OPEN_CLIP if open_clip else clip.CLIP_TEXT, state, source)
    if known.header.text:
        values = known.header.text[place]
        config = clip.clip_config_from_transformers(values, source)
        check_layers((config.num_hidden_layers,), state, source)
    else:
        config = _tower_config(shapes.clip_config_of(named, source), family, open_clip=open_clip)
        named = _without_unused(named, config)
    config = replace(config, skip=int(family.xl), final_norm=not family.xl)
    table = clip.CLIP_TEXT
    return filled(lambda: ClipText(config), named, table, source=source, dtype=known.dtype)


def _read_text(state: State, place: int, known: _Known) -> AnyTextTower:
    if known.family is BERT_TEXT:
        return _read_bert(state, known)
    if known.family is CLASSES:
        return _read_classes(state, known)
    return _read_tower(state, place, known)


def _read_classes(state: State, known: _Known) -> ClassEmbedder:
    table = state["embedding.weight"]
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[0] == _WITHOUT_NULL:
        raise SafelightError(
            f"{known.source} has a table of classes of shape {tuple(table.shape)}; expected a row "
            "for each class and a last one for the null, as in cin256-v2."
        )
    config = ClassConfig(*table.shape)
    same = Table((Rule("{key}", "{key}"),))
    return filled(
        lambda: ClassEmbedder(config), state, same, source=known.source, dtype=known.dtype
    )


def _read_bert(state: State, known: _Known) -> BertText:
    config = bert.bert_config_of(state, known.source)
    named = to_ours(bert.x_transformers_table(config.num_hidden_layers), state, known.source)
    table = bert.BERT_TEXT
    return filled(lambda: BertText(config), named, table, source=known.source, dtype=known.dtype)


def _tower_config(config: ClipTextConfig, family: Family, *, open_clip: bool) -> ClipTextConfig:
    """The shape of a published tower of that family, from the shape of its tensors."""
    config = replace(config, hidden_act="gelu" if open_clip else "quick_gelu")
    if not family.penultimate:
        return config
    # Stable Diffusion 2.x reads the last but one state, so that diffusers leaves the last layer out
    # altogether; a file that some tool made from diffusers' folder has 23 layers left
    layers = config.num_hidden_layers
    kept = layers if layers == _LAYERS_LEFT else layers - 1
    return replace(config, num_hidden_layers=kept, projection_dim=None)


def _without_unused(named: Mapping[str, torch.Tensor], config: ClipTextConfig) -> State:
    """Leaves out the layers above the tower's last, and a projection that it has not."""
    left_out = [f"encoder.layers.{config.num_hidden_layers}."]
    left_out += [] if config.projection_dim else ["text_projection."]
    return {key: tensor for key, tensor in named.items() if not key.startswith(tuple(left_out))}


def _words(path: Path) -> Path:
    """BERT's vocabulary, which no file of weights brings: it has to lie beside it."""
    return path.absolute().with_name("vocab.txt")


def _names(path: Path) -> Path:
    """The names of the classes, which may lie beside a file of weights."""
    return path.absolute().with_name("classes.txt")


def _beside(path: Path, family: Family) -> dict[str, tuple[Path, ...]]:
    """The files beside a single file on which its pictures depend."""
    if family is BERT_TEXT:
        return {"tokenizer": (_words(path),)}
    return {"classes": (_names(path),)} if family is CLASSES and _names(path).is_file() else {}


def _tokenizer(tower: AnyTextTower, path: Path) -> AnyTokenizer:
    source = str(path)
    if isinstance(tower, ClassEmbedder):
        names, classes = _names(path), tower.config.vocab_size - 1
        return ClassReader.from_file(names, classes) if names.is_file() else ClassReader(classes)
    if isinstance(tower, BertText):
        words, length = _words(path), tower.config.max_position_embeddings
        if not words.is_file():
            raise SafelightError(
                f"{source} brings no vocabulary; put BERT's (bert-base-uncased) there as {words}."
            )
        tokenizer = WordPieceTokenizer.from_vocabulary(words, length=length)
        check_tokenizer(tokenizer, tower.config, str(words))
        return tokenizer
    if tower.config.vocab_size != CLIP_VOCABULARY:
        raise SafelightError(
            f"{source} has a text tower of {tower.config.vocab_size} tokens and brings no "
            f"tokenizer; the public one has {CLIP_VOCABULARY}."
        )
    return public_tokenizer(tower.config)


def _family_to_write(folder: Folder) -> Family:
    if folder.vision is not None:
        return UNCLIP
    if len(folder.text_towers) == 2:
        return XL
    if "XL" in folder.pipeline_class:
        return REFINER
    config = folder.text_towers[0].config
    return SD2 if isinstance(config, ClipTextConfig) and config.hidden_act == "gelu" else SD1


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}
