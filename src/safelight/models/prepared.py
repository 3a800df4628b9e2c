"""Networks made ready for many calls that differ in little more than x."""

from collections.abc import Iterator
from typing import TypeVar, cast

from torch import nn

from safelight.models.controlnet import ControlNet
from safelight.models.unet_encoder import UNetEncoder
from safelight.nn.attention import TransformerBlock
from safelight.nn.blocks import ResBlock
from safelight.nn.kept import Kept, KeptRows
from safelight.nn.packed import PackedConv2d, can_pack
from safelight.nn.substitute import substituted

M = TypeVar("M", bound=nn.Module)


def prepared(network: M) -> M:
    """A second network that gives what the first gives, up to rounding, without gradients.

    It computes anew only what x changes: keys and values of the prompt, the embeddings of the
    prompt, the time and the hint are remembered (`nn.kept`); its convolutions are packed where that
    is known to be faster (`nn.packed`). Weights are shared where they are not packed; the first
    network stays as it is, and its weights must not change.
    """
    layers: dict[str, nn.Module] = dict(_remembering(network))
    for path, module in cast(Iterator[tuple[str, nn.Module]], network.named_modules()):
        inside = any(path.startswith(f"{kept}.") for kept in layers)
        if not inside and isinstance(module, nn.Conv2d) and can_pack(module):
            layers[path] = PackedConv2d(module)
    return substituted(network, layers)


def _remembering(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in cast(Iterator[tuple[str, nn.Module]], network.named_modules()):
        if isinstance(module, TransformerBlock):
            yield f"{path}.attn2.to_k", Kept(module.attn2.to_k)
            yield f"{path}.attn2.to_v", Kept(module.attn2.to_v)
        elif isinstance(module, ResBlock) and module.time_emb_proj is not None:
            yield f"{path}.time_emb_proj", Kept(module.time_emb_proj)
        elif isinstance(module, UNetEncoder):
            prefix = f"{path}." if path else ""
            for name in ("time_embedding", "class_embedding", "add_embedding", "context_embedding"):
                layer = getattr(module, name)
                if layer is not None:
                    yield f"{prefix}{name}", Kept(layer)
            if isinstance(module, ControlNet):
                encoder = prepared(module.controlnet_cond_embedding)
                yield f"{prefix}controlnet_cond_embedding", KeptRows(encoder)
