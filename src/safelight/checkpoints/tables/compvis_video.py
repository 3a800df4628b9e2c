"""Stable Video Diffusion in one file, as Stability's generative-models lays it out: its keys beside
diffusers'.

As in `compvis`, keys are without the prefixes of a whole file, and beside them stand diffusers'
names.
"""

import re
from collections.abc import Iterator

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.compvis import autoencoder_table, unet_table
from safelight.models.unet import UNetConfig

_RESNET = re.compile(r"(.*resnets\.[^.]+)\.(.*)")
_STACK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}


def video_unet_table(config: UNetConfig) -> Table:
    """The keys of a video U-Net of this shape."""
    return Table(tuple(_unet_rules(unet_table(config))))


def temporal_autoencoder_table(levels: int) -> Table:
    """The keys of an autoencoder of that many levels whose decoder looks along the frames."""
    plain = autoencoder_table(levels)
    return Table(tuple(_decoder_rules(plain)), plain.dropped)


def _unet_rules(plain: Table) -> Iterator[Rule]:
    for rule in plain.rules:
        resnet = _RESNET.fullmatch(rule.ours)
        if resnet is not None:
            ours, layer = resnet.groups()
            yield Rule(f"{ours}.spatial_res_block.{layer}", rule.theirs)
            if layer == "norm1.{p}":
                theirs = rule.theirs.removesuffix(".in_layers.0.{p}")
                yield from _temporal(ours, theirs)
                yield Rule(f"{ours}.time_mixer.{{p}}", f"{theirs}.time_mixer.{{p}}")
        elif ".attentions." in rule.ours:
            ours, theirs = rule.ours.removesuffix(".{p}"), rule.theirs.removesuffix(".{p}")
            yield Rule(f"{ours}.temporal_transformer_blocks.{{p}}", f"{theirs}.time_stack.{{p}}")
            for layer, number in (("linear_1", 0), ("linear_2", 2)):
                embedding = f"{theirs}.time_pos_embed.{number}.{{p}}"
                yield Rule(f"{ours}.time_pos_embed.{layer}.{{p}}", embedding)
            yield rule
        else:
            yield rule


def _decoder_rules(plain: Table) -> Iterator[Rule]:
    yield Rule("decoder.time_conv_out.{p}", "decoder.conv_out.time_mix_conv.{p}")
    for rule in plain.rules:
        resnet = _RESNET.fullmatch(rule.ours)
        if not rule.ours.startswith("decoder.") or ".resnets." not in rule.ours:
            yield rule
        elif resnet is not None:  # a row of each level's shortcuts, or of all that a block has
            ours, layer = resnet.groups()
            block = re.sub(r"\.(nin_shortcut\.\{p\}|\{rest\})$", "", rule.theirs)
            if layer.startswith("conv_shortcut"):
                yield Rule(f"{ours}.spatial_res_block.{layer}", rule.theirs)
            for name in ("norm1", "conv1", "norm2", "conv2"):
                yield Rule(f"{ours}.spatial_res_block.{name}.{{p}}", f"{block}.{name}.{{p}}")
            yield from _temporal(ours, block)
            yield Rule(f"{ours}.time_mixer.mix_factor", f"{block}.mix_factor")


def _temporal(ours: str, theirs: str) -> Iterator[Rule]:
    for layer, place in _STACK.items():
        name = f"{ours}.temporal_res_block.{layer}.{{p}}"
        yield Rule(name, f"{theirs}.time_stack.{place}.{{p}}")
