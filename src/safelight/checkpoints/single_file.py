"""A whole model in one file, as CompVis and Stability lay it out: read, and written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from safelight.checkpoints.components import (
    CLIP_VOCABULARY,
    check_tokenizer,
    filled,
    public_tokenizer,
)
from safelight.checkpoints.families import (
    REFINER,
    SD1,
    SD2,
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
from safelight.checkpoints.folder import SINGLE, Folder, check_fit, read_folder
from safelight.checkpoints.header import ENTRY, Header, read_header, write_header
from safelight.checkpoints.rules import from_ours, to_ours
from safelight.checkpoints.scheduler_files import scheduler_from_diffusers
from safelight.checkpoints.shift import without_shift
from safelight.checkpoints.tables import autoencoder, clip, compvis, shapes, unet
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder

_LAYERS_LEFT = 23  # of OpenCLIP-H's 24, in files made from diffusers' folders


def read_model(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Folder:
    """Reads a text-to-image model from a diffusers folder or from one file; errors as theirs."""
    if path.is_file():
        return read_single_file(path, dtype=dtype, device=device)
    return read_folder(path, dtype=dtype, device=device)


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
        _read_tower(parts[part.prefix], place, known) for place, part in enumerate(family.text)
    )
    for tokenizer, tower in zip(header.tokenizers, towers, strict=False):
        check_tokenizer(tokenizer, tower.config, source)
    folder = Folder(
        unet=network.to(device),
        autoencoder=_read_autoencoder(parts[VAE], known).to(device),
        text_towers=tuple(tower.to(device) for tower in towers),
        tokenizers=header.tokenizers or tuple(_tokenizer(tower, source) for tower in towers),
        scheduler=scheduler,
        pipeline_class=header.pipeline or pipeline_of(family, network.config.in_channels),
        defaults=header.defaults,
        settings=header.settings or family.settings,
        files={SINGLE: (path,)},
    )
    check_fit(path, folder)
    return folder


def write_single_file(path: Path, folder: Folder, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes a model as one safetensors file in the layout of CompVis and Stability, as diffusers'
    `from_single_file` reads it.

    A text entry in its header carries the configurations, so that any model of ours comes back.

    Raises `SafelightError` for a VQ autoencoder, of which no such layout is known.
    """
    vae = folder.autoencoder
    if isinstance(vae, VQAutoencoder):
        raise SafelightError("A model with a VQ autoencoder has no layout of one file.")
    vae = without_shift(vae)
    levels = len(vae.config.block_out_channels)
    network = from_ours(unet.UNET, folder.unet.state_dict())
    coders = from_ours(autoencoder.AUTOENCODER, vae.state_dict())
    state = _prefixed(UNET, from_ours(compvis.unet_table(folder.unet.config), network))
    state |= _prefixed(VAE, from_ours(compvis.autoencoder_table(levels), coders))
    for part, tower in zip(_family_to_write(folder).text, folder.text_towers, strict=True):
        table = compvis.OPEN_CLIP if part.open_clip else clip.CLIP_TEXT
        state |= _prefixed(part.prefix, from_ours(table, tower.state_dict()))
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
        _check_layers((*config.layers_per_block, *config.transformer_layers), state, source)
    else:
        config = shapes.unet_config_of(state, source)
        config = replace(config, sample_size=known.latent_size)
    named = to_ours(compvis.unet_table(config), state, source)
    return filled(lambda: UNet(config), named, unet.UNET, source=source, dtype=known.dtype)


def _read_autoencoder(state: State, known: _Known) -> Autoencoder:
    source = known.source
    if known.header.vae:
        config = autoencoder.autoencoder_config_from_diffusers(known.header.vae, source)
        _check_layers((config.layers_per_block,), state, source)
    else:
        config = shapes.autoencoder_config_of(state, known.family.latent_scale, source)
    named = to_ours(compvis.autoencoder_table(len(config.block_out_channels)), state, source)
    table = autoencoder.AUTOENCODER
    return filled(lambda: Autoencoder(config), named, table, source=source, dtype=known.dtype)


def _read_tower(state: State, place: int, known: _Known) -> ClipText:
    source, family = known.source, known.family
    open_clip = family.text[place].open_clip
    named = to_ours(compvis.OPEN_CLIP if open_clip else clip.CLIP_TEXT, state, source)
    if known.header.text:
        values = known.header.text[place]
        config = clip.clip_config_from_transformers(values, source)
        _check_layers((config.num_hidden_layers,), state, source)
    else:
        config = _tower_config(shapes.clip_config_of(named, source), family, open_clip=open_clip)
        named = _without_unused(named, config)
    config = replace(config, skip=int(family.xl), final_norm=not family.xl)
    table = clip.CLIP_TEXT
    return filled(lambda: ClipText(config), named, table, source=source, dtype=known.dtype)


def _tower_config(config: ClipTextConfig, family: Family, *, open_clip: bool) -> ClipTextConfig:
    """The shape of a published tower of that family, from the shape of its tensors."""
    config = replace(config, hidden_act="gelu" if open_clip else "quick_gelu")
    if family is not SD2:
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


def _check_layers(counts: tuple[int, ...], state: State, source: str) -> None:
    """Raises `SafelightError` before a header's absurd number of layers is built."""
    if sum(counts) > len(state):
        raise SafelightError(
            f"{source}: its header tells of {sum(counts):,} layers; the file has {len(state):,} "
            "tensors for them."
        )


def _tokenizer(tower: ClipText, source: str) -> ClipTokenizer:
    if tower.config.vocab_size != CLIP_VOCABULARY:
        raise SafelightError(
            f"{source} has a text tower of {tower.config.vocab_size} tokens and brings no "
            f"tokenizer; the public one has {CLIP_VOCABULARY}."
        )
    return public_tokenizer(tower.config)


def _family_to_write(folder: Folder) -> Family:
    if len(folder.text_towers) == 2:
        return XL
    if "XL" in folder.pipeline_class:
        return REFINER
    return SD2 if folder.text_towers[0].config.hidden_act == "gelu" else SD1


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}
