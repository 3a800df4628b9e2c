"""A U-Net whose finest layers attend over fewer tokens.

Source: Bolya and Hoffman 2023 (arXiv 2303.17604), sections 4 and 5: merged where the most tokens
are, before the self-attention alone.
"""

import re
from collections.abc import Iterator
from typing import cast

from torch import nn

from safelight.models.unet import UNet
from safelight.nn.attention import SpatialTransformer
from safelight.nn.merged_attention import MergedTransformer
from safelight.nn.substitute import substituted


def with_merged_tokens(unet: UNet, ratio: float) -> UNet:
    """A U-Net that merges a part of the tokens, `ratio` (0 to 3/4), where its finest transformers
    attend to themselves, and shares its weights with the first; that one itself for 0.
    """
    if not ratio:
        return unet
    finest = finest_transformers(unet)
    return substituted(
        unet, {path: MergedTransformer(layer, ratio) for path, layer in finest.items()}
    )


def finest_transformers(unet: UNet) -> dict[str, SpatialTransformer]:
    """The transformers of the finest level that has any, by their paths; none for a U-Net that
    attends otherwise.
    """
    levels: dict[int, dict[str, SpatialTransformer]] = {}
    modules = cast(Iterator[tuple[str, nn.Module]], unet.named_modules())  # torch leaves it open
    for path, module in modules:
        place = _PLACE.fullmatch(path)
        if place is not None and isinstance(module, SpatialTransformer):
            number = int(place["number"])
            level = number if place["way"] == "down" else len(unet.up_blocks) - 1 - number
            levels.setdefault(level, {})[path] = module
    return levels[min(levels)] if levels else {}


_PLACE = re.compile(r"(?P<way>down|up)_blocks\.(?P<number>\d+)\.attentions\.\d+")
