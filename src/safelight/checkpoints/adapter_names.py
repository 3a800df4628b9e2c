"""The layers of a model under each name that an adapter's file may have for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from safelight.checkpoints.rules import their_name
from safelight.checkpoints.tables.clip import CLIP_TEXT
from safelight.checkpoints.tables.compvis import unet_table
from safelight.checkpoints.tables.unet import UNET
from safelight.models.unet import UNetConfig
from safelight.nn.lora import adaptable


@dataclass(frozen=True)
class Place:
    """A layer of a model: its network in diffusers' words, its path in ours and in theirs."""

    network: str
    path: str
    theirs: str
    weight: torch.Size

    @property
    def shape(self) -> tuple[int, int]:
        """Of its weight, as a matrix."""
        return self.weight[0], self.weight[1:].numel()


def spellings(networks: Mapping[str, nn.Module], config: UNetConfig) -> dict[str, Place]:
    """Every layer that can be changed, under each name that a file may have for it.

    `networks` are by diffusers' names; `config` is that of the U-Net.
    """
    found: dict[str, Place] = {}
    compvis = unet_table(config)
    for network, module in networks.items():
        table = UNET if network == "unet" else CLIP_TEXT
        for path, layer in adaptable(module):
            theirs = _bare(their_name(table, f"{path}.weight"))
            place = Place(network, path, theirs, layer.weight.shape)
            names = (
                _unet_names(theirs, _bare(their_name(compvis, f"{theirs}.weight")))
                if network == "unet"
                else _text_names(theirs, path, network, alone=len(networks) == 2)
            )
            both = (f"{network}.{theirs}", theirs, f"base_model.model.{theirs}")
            found |= dict.fromkeys((*both, *names), place)
    return found


def _bare(name: str) -> str:
    return name.removesuffix(".weight")


def _unet_names(theirs: str, compvis: str) -> Iterator[str]:
    for name in (theirs, compvis):
        yield f"lora_unet_{name.replace('.', '_')}"
        yield f"lycoris_{name.replace('.', '_')}"
    yield f"diffusion_model.{compvis}"  # ComfyUI's
    block, attention, layer = theirs.partition(".attn1.")
    if not attention:
        block, attention, layer = theirs.partition(".attn2.")
    if attention:  # the attention processors of diffusers before 0.17
        old = f"{block}{attention}processor.{layer.removesuffix('.0')}"
        yield from (old, f"unet.{old}")


def _text_names(theirs: str, path: str, network: str, *, alone: bool) -> Iterator[str]:
    yield f"{network}.{path}"  # transformers 5 has no prefix
    if ".self_attn." in theirs:  # diffusers' older names, beside attention processors
        block, _, layer = theirs.rpartition(".")
        yield f"{network}.{block}.to_{layer.removesuffix('_proj')}"
    tower = "clip_g" if network == "text_encoder_2" else "clip_l"
    for start in (tower, "clip_h") if alone else (tower,):  # ComfyUI's; clip_h is SD 2's
        yield f"text_encoders.{start}.transformer.{theirs}"
        yield f"{start}.transformer.{theirs}"
    numbered = "lora_te2" if network == "text_encoder_2" else "lora_te1"
    for start in (numbered, "lora_te") if alone else (numbered,):
        yield f"{start}_{theirs.replace('.', '_')}"
