"""The layers along the frames of a video model alone, beside the model of pictures they are for."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    part_config,
)
from safelight.checkpoints.files import read_weights, sha256_of_state, write_weights
from safelight.checkpoints.tables.configs import DIFFUSERS_VERSION, fitting
from safelight.config import from_dict, to_dict
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.models.video import TemporalConfig, VideoUNet, in_video, inflate, new_parameters

LAYERS = "SafelightVideoLayers"
"""The class that the configuration of such a folder names."""

_BESIDE = "conv_in.beside"  # of the first layer's weight, the channels beside x


@dataclass(frozen=True)
class _Config:
    """What `config.json` holds; `pictures` is the hash of the layers that these belong to."""

    temporal: TemporalConfig
    number_dim: int
    pictures: str


def holds_layers(folder: Path) -> bool:
    """Whether a folder holds layers along the frames alone."""
    return part_config(folder).get("_class_name") == LAYERS


def belong_to(folder: Path, pictures: UNet, dtype: torch.dtype) -> bool:
    """Whether the layers along the frames in a folder go with this U-Net of pictures written in a
    precision; float16 has not all values that bfloat16 has.
    """
    return part_config(folder, LAYERS).get("pictures") == _hash_of(pictures, dtype)


def write_video_layers(
    folder: Path, video: VideoUNet, pictures: UNet, writing: Writing | None = None
) -> None:
    """Writes what a video U-Net has beside the U-Net of pictures that it was inflated from.

    Raises `SafelightError` if its layers of pictures are not that one's.
    """
    writing = writing or Writing()
    number_dim = video.config.added_time_dim or 1
    plain = {in_video(name): tensor for name, tensor in pictures.state_dict().items()}
    latents, new = video.config.out_channels, set(new_parameters(video))
    state: dict[str, Tensor] = {}
    for name, tensor in video.state_dict().items():
        if name in new:
            state[name] = tensor
            continue
        shared, theirs = tensor[:, :latents] if name == _FIRST else tensor, plain.get(name)
        if theirs is None or not torch.equal(shared, theirs.to(shared)):
            raise SafelightError(
                f"The layers of pictures of this video model are not those of the model given: "
                f"{name} differs. Train it with video.layers = 'temporal' on that model, or write "
                "it as a whole."
            )
        if name == _FIRST and tensor.shape[1] > latents:
            state[_BESIDE] = tensor[:, latents:]
    state = {name: t.detach().to("cpu", writing.dtype).contiguous() for name, t in state.items()}
    config = _Config(video.temporal, number_dim, _hash_of(pictures))
    values = {"_class_name": LAYERS, "_diffusers_version": DIFFUSERS_VERSION, **to_dict(config)}
    write_weights(folder, DIFFUSERS_STEM, state, writing.variant, writing.max_shard_bytes)
    write_text(folder / "config.json", json.dumps(values, indent=2) + "\n")


def read_video_layers(folder: Path, pictures: UNet, reading: Reading | None = None) -> VideoUNet:
    """A video U-Net of the layers in a folder and those of a U-Net of pictures, in evaluation mode.

    Raises `SafelightError` if they belong to another one, some are missing, or the configuration is
    none that can be built.
    """
    reading = reading or Reading()
    values = part_config(folder, LAYERS)
    plain = {key: value for key, value in values.items() if not key.startswith("_")}
    source = str(folder / "config.json")
    with fitting(source):
        config = from_dict(_Config, plain, source)
    if config.pictures != _hash_of(pictures):
        raise SafelightError(
            f"{folder} holds layers along the frames of another model of pictures than the one "
            "beside it; bring back the one that they were trained on, or train them anew."
        )
    state = dict(read_weights(folder, DIFFUSERS_STEM, reading.variant, reading.device))
    numbers = state.get(_NUMBERS)
    width = config.number_dim * len(config.temporal.numbers)
    if width != (0 if numbers is None else numbers.shape[-1]):  # before a layer so wide is built
        raise SafelightError(
            f"{folder} does not hold the layers of its configuration, by which the numbers of a "
            f"clip take {width:,} features."
        )
    with fitting(source):
        video = inflate(pictures, config.temporal, number_dim=config.number_dim)
    own = dict(video.named_parameters())
    wanted: dict[str, Tensor] = {name: own[name] for name in new_parameters(video)}
    latents = video.config.out_channels
    if video.config.in_channels > latents:
        wanted[_BESIDE] = own[_FIRST][:, latents:]
    wrong = sorted(
        name
        for name in wanted.keys() | state.keys()
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    )
    if wrong:
        raise SafelightError(
            f"{folder} does not hold the layers of its configuration: {len(wrong)} tensors differ, "
            f"such as {wrong[0]!r}."
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])
    return video.eval()


def _hash_of(pictures: UNet, dtype: torch.dtype = torch.float32) -> str:
    """Of the weights, written as `dtype`, in bfloat16, as which a bundle holds them, whatever they
    are read as.
    """
    state = pictures.state_dict().items()
    return sha256_of_state({name: t.to(dtype).to(torch.bfloat16) for name, t in state})


_FIRST, _NUMBERS = "conv_in.weight", "add_embedding.linear_1.weight"
