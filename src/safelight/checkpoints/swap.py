"""Another autoencoder in a model's place: from a folder, or from a file that holds it alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.components import (
    Reading,
    check_layers,
    filled,
    read_autoencoder,
    weights_files,
)
from safelight.checkpoints.detect import describe_folder, describe_state
from safelight.checkpoints.families import VAE
from safelight.checkpoints.files import State
from safelight.checkpoints.folder import INDEX, Folder, autoencoder_name
from safelight.checkpoints.header import read_header
from safelight.checkpoints.rules import from_ours, to_ours
from safelight.checkpoints.tables import compvis, shapes
from safelight.checkpoints.tables.autoencoder import (
    AUTOENCODER,
    VQ,
    autoencoder_config_from_diffusers,
)
from safelight.checkpoints.tables.tiny import TINY, taesd_table, tiny_config_of
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder

_HALVES = ("encoder.", "decoder.")
_MARKS = {"0.weight": "encoder.", "1.weight": "decoder."}
"""The first convolution of each half of TAESD, in a file of its own."""
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def with_autoencoder(
    folder: Folder,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Folder:
    """A model with the autoencoder at `path` for its own, and the other parts as they are.

    `path` is an autoencoder's folder or a whole model's in diffusers' layout; a file of an
    autoencoder alone in the names of CompVis, of diffusers or of TAESD, told by its tensors; or a
    folder that holds TAESD's two halves and nothing else. A file that does not say the scale of its
    latents has that of the model's own.

    Raises `SafelightError`, one line, if it is none of these, or its latents are not those that the
    U-Net makes.
    """
    if path.is_file():
        autoencoder = _read_file(path, folder.autoencoder, dtype).to(device)
        files = (path,)
    elif (path / INDEX).is_file() or (path / "config.json").is_file():
        component = path
        if (path / INDEX).is_file():
            component = path / ("vae" if (path / "vae").is_dir() else "vqvae")
        autoencoder = read_autoencoder(component, Reading(dtype, device))
        files = weights_files(component)
    elif path.is_dir():
        files = _halves(path)
        state = {key: part for file in files for key, part in _half(file).items()}
        autoencoder = _tiny(state, str(path), dtype).to(device)
    else:
        raise SafelightError(f"There is no autoencoder at {path}; it is {describe_folder(path)}.")
    ours, wanted = latent_channels(autoencoder), folder.unet.config.out_channels
    if ours != wanted:
        raise SafelightError(
            f"{path} has latents of {ours} channels, the model's U-Net makes {wanted}; give an "
            "autoencoder of the model's own family."
        )
    return replace(
        folder,
        autoencoder=autoencoder,
        files={**folder.files, autoencoder_name(folder.pipeline_class): files},
        swapped=path.absolute(),
    )


def _read_file(path: Path, own: AnyAutoencoder, dtype: torch.dtype) -> AnyAutoencoder:
    opened = read_weights_file(path)
    source = str(path)
    state = opened.state
    if any(key.startswith(VAE) for key in state):  # alone, or as part of a whole model
        state = {k.removeprefix(VAE): tensor for k, tensor in state.items() if k.startswith(VAE)}
    if any(key.startswith(("encoder.down.", "decoder.up.")) for key in state):
        said = read_header(opened.metadata, source).vae
        if said:  # a whole model that safelight wrote
            config = autoencoder_config_from_diffusers(said, source)
            check_layers((config.layers_per_block,), state, source)
            return _kl(state, config, source, dtype)
        return _compvis(state, _scale(own, source), source, dtype)
    if any(key.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for key in state):
        return _compvis(_in_compvis(state, source), _scale(own, source), source, dtype)
    if any(key.startswith(("encoder.layers.", "decoder.layers.")) for key in state):
        return _tiny(state, source, dtype)
    return _tiny(_from_taesd(state, source), source, dtype)


def _scale(own: AnyAutoencoder, source: str) -> tuple[float, float]:
    """The scale and shift of the latents that the model's own autoencoder gives."""
    if isinstance(own, TinyAutoencoder):
        raise SafelightError(
            f"{source} does not say the scale of its latents, and the model's own autoencoder is a "
            "tiny one, which has none; give the autoencoder's folder, whose config.json says it."
        )
    return own.config.scaling_factor, own.config.shift_factor if isinstance(own, Autoencoder) else 0


def _compvis(
    state: State, scale: tuple[float, float], source: str, dtype: torch.dtype
) -> Autoencoder | VQAutoencoder:
    """A KL or VQ autoencoder whose tensors have CompVis' names."""
    if "quantize.embedding.weight" in state:
        vq = shapes.vq_config_of(state, scale[0], source)
        named = to_ours(compvis.autoencoder_table(len(vq.block_out_channels)), state, source)
        return filled(lambda: VQAutoencoder(vq), named, VQ, source=source, dtype=dtype)
    config = shapes.autoencoder_config_of(state, scale[0], source)
    return _kl(state, replace(config, shift_factor=scale[1]), source, dtype)


def _kl(state: State, config: AutoencoderConfig, source: str, dtype: torch.dtype) -> Autoencoder:
    named = to_ours(compvis.autoencoder_table(len(config.block_out_channels)), state, source)
    return filled(lambda: Autoencoder(config), named, AUTOENCODER, source=source, dtype=dtype)


def _in_compvis(state: State, source: str) -> State:
    """diffusers' names, of all generations, as CompVis'."""
    table = VQ if "quantize.embedding.weight" in state else AUTOENCODER
    blocks = ("encoder.down_blocks.", "decoder.up_blocks.")
    numbers = {key.split(".", 3)[2] for key in state if key.startswith(blocks)}
    levels = next(level for level in range(len(numbers) + 1) if str(level) not in numbers)
    try:
        named = from_ours(table, to_ours(table, state, source))
        return from_ours(compvis.autoencoder_table(levels), named)
    except KeyError as error:
        raise SafelightError(
            f"{source} holds {error}, which no autoencoder of Stable Diffusion's family has."
        ) from error


def _tiny(state: State, source: str, dtype: torch.dtype) -> TinyAutoencoder:
    config = tiny_config_of(state, source)
    return filled(lambda: TinyAutoencoder(config), state, TINY, source=source, dtype=dtype)


def _from_taesd(state: Mapping[str, Tensor], source: str) -> State:
    """TAESD's own names, of one half or both, as diffusers'; what else it is where it has none."""
    named = {key.removeprefix("taesd_"): tensor for key, tensor in state.items()}
    half = next((half for mark, half in _MARKS.items() if mark in named), None)
    if half is not None:
        named = {half + key: tensor for key, tensor in named.items()}
    if not any(f"{half}{mark}" in named for mark, half in _MARKS.items()):
        raise SafelightError(f"{source} is {describe_state(state)}; expected an autoencoder.")
    return to_ours(taesd_table(len(named)), named, source)


def _halves(path: Path) -> tuple[Path, ...]:
    files = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS and file.is_file())
    if len(files) != 2:
        raise SafelightError(
            f"{path} is {describe_folder(path)}; expected an autoencoder's folder with "
            "config.json, a model's with model_index.json, or TAESD's two halves alone."
        )
    return tuple(files)


def _half(file: Path) -> State:
    state = read_weights_file(file).state
    if any(key.startswith(_HALVES) for key in state) or not _MARKS.keys() & state.keys():
        raise SafelightError(f"{file} is {describe_state(state)}; expected one half of TAESD.")
    return _from_taesd(state, str(file))
