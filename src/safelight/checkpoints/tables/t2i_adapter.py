"""diffusers' `T2IAdapter`: keys and `config.json`, to and from ours; and the keys of TencentARC's
own files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import fitting, read_config, write_config
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.t2i_adapter import AdapterKind, T2IAdapterConfig

T2I_ADAPTER = Table((Rule("{key}", "adapter.{key}"),))
CLASS = "T2IAdapter"
_KINDS: dict[str, AdapterKind] = {
    "full_adapter": "full",
    "full_adapter_xl": "full_xl",
    "light_adapter": "light",
}
_FACTOR, _XL_FACTOR = 8, 16
_PUBLISHED_LAYERS = 2  # of a level, in every full adapter


@dataclass(frozen=True)
class _Diffusers:
    """The keys, with diffusers' own defaults."""

    in_channels: int = 3
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    num_res_blocks: int = 2
    downscale_factor: int = 8
    adapter_type: Literal["full_adapter", "full_adapter_xl", "light_adapter"] = "full_adapter"


def adapter_config_from_diffusers(
    values: Mapping[str, Value], source: str = "adapter/config.json"
) -> T2IAdapterConfig:
    """Translates a `T2IAdapter` configuration; `SafelightError` if it is another kind."""
    theirs = read_config(_Diffusers, values, {}, source)
    kind = _KINDS[theirs.adapter_type]
    last = theirs.channels[-1:] if kind == "light" else ()  # which diffusers does not count
    with fitting(source):
        return T2IAdapterConfig(
            kind=kind,
            hint_channels=theirs.in_channels,
            block_out_channels=(*theirs.channels, *last),
            layers_per_block=theirs.num_res_blocks,
            factor=theirs.downscale_factor,
        )


def adapter_config_to_diffusers(config: T2IAdapterConfig) -> dict[str, Value]:
    """The whole `config.json` of a T2I-Adapter of ours, which diffusers opens.

    Raises `SafelightError` for a light one whose last two levels differ, which diffusers does not
    know.
    """
    channels = config.block_out_channels
    if config.kind == "light":
        if channels[-2:-1] != channels[-1:]:
            raise SafelightError("A light T2I-Adapter has equal channels in its last two levels.")
        channels = channels[:-1]
    kinds = {ours: theirs for theirs, ours in _KINDS.items()}
    theirs: dict[str, Value] = {
        "in_channels": config.hint_channels,
        "channels": list(channels),
        "num_res_blocks": config.layers_per_block,
        "downscale_factor": config.factor,
        "adapter_type": kinds[config.kind],
    }
    return write_config(CLASS, _Diffusers(), {}) | theirs


def adapter_config_of(state: Mapping[str, Tensor], source: str) -> T2IAdapterConfig:
    """The shape of the T2I-Adapter whose tensors, in our names, these are.

    How many pixels it folds is as published: 16 of a side for Stable Diffusion XL, where the
    channels allow it, else 8. Raises `SafelightError` for anything but one that is whole.
    """
    light = "conv_in.weight" not in state
    try:
        folded = state["body.0.in_conv.weight" if light else "conv_in.weight"].shape[1]
        xl = not light and folded % _XL_FACTOR**2 == 0
        factor = _XL_FACTOR if xl else _FACTOR
        levels = _count(state, "body.{}.resnets.0.block1.weight")
        last = "out_conv" if light else "resnets.0.block1"
        return T2IAdapterConfig(
            kind="light" if light else "full_xl" if xl else "full",
            hint_channels=folded // factor**2,
            block_out_channels=tuple(
                state[f"body.{level}.{last}.weight"].shape[0] for level in range(levels)
            ),
            layers_per_block=_count(state, "body.0.resnets.{}.block1.weight"),
            factor=factor,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(f"{source} holds no T2I-Adapter that is whole ({error}).") from error


def original_table(config: T2IAdapterConfig) -> Table:
    """The keys of TencentARC's own files of that shape, beside ours."""
    if config.kind == "light":
        return LIGHT
    return _full_table(len(config.block_out_channels), config.layers_per_block)


def original_table_of(state: Mapping[str, Tensor]) -> Table:
    """The keys of the file of TencentARC's own whose tensors these are, beside ours."""
    if "conv_in.weight" not in state:
        return LIGHT
    blocks = _count(state, "body.{}.block1.weight")
    # the second level is the first whose channels change
    changes = [number for number in range(blocks) if f"body.{number}.in_conv.weight" in state]
    layers = next((number for number in changes if number > 0), _PUBLISHED_LAYERS)
    return _full_table(blocks // layers, layers)


LIGHT = Table(
    (
        Rule("body.{i}.resnets.{rest}", "body.{i}.body.{rest}"),
        Rule("body.{i}.in_conv.{p}", "body.{i}.in_conv.{p}"),
        Rule("body.{i}.out_conv.{p}", "body.{i}.out_conv.{p}"),
    )
)
"""The keys of TencentARC's own light adapters, beside ours."""


def _full_table(levels: int, layers: int) -> Table:
    rows = [Rule("conv_in.{p}", "conv_in.{p}")]
    for level in range(levels):
        first = level * layers
        rows.append(Rule(f"body.{level}.in_conv.{{p}}", f"body.{first}.in_conv.{{p}}"))
        rows += [
            Rule(f"body.{level}.resnets.{j}.{{p}}", f"body.{first + j}.{{p}}")
            for j in range(layers)
        ]
    return Table(tuple(rows))


def _count(state: Mapping[str, Tensor], template: str) -> int:
    count = 0
    while template.format(count) in state:
        count += 1
    return count
