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


def prepared(network: M, steps: int = 8, *, times: bool = True) -> M:
    """A second network that gives what the first gives, up to rounding, without gradients.

    It computes anew only what x changes: keys and values of the prompt, the embeddings of the
    prompt, the time and the hint are remembered (`nn.kept`), as many as a run of `steps` under a
    prompt and beside it has; without `times` not those of times, where each comes but once. Its
    convolutions are packed where that is known to be faster
    (`nn.packed`). Weights are shared where they are not packed. The first network stays as it is;
    what is put into it later, such as an adapter, is not in the second. Weights must not be
    written into.
    """
    twin = substituted(network, {})  # whose layers nobody else swaps the weights of
    layers: dict[str, nn.Module] = dict(_remembering(twin, steps, times=times))
    for path, module in cast(Iterator[tuple[str, nn.Module]], twin.named_modules()):
        inside = any(path.startswith(f"{kept}.") for kept in layers)
        if not inside and isinstance(module, nn.Conv2d) and can_pack(module):
            layers[path] = PackedConv2d(module)
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, layer)
    return twin


def _remembering(network: nn.Module, steps: int, *, times: bool) -> Iterator[tuple[str, nn.Module]]:
    most = 2 * steps + 2
    told = not isinstance(network, UNetEncoder) or network.config.cross_attention_dim is not None
    for path, module in cast(Iterator[tuple[str, nn.Module]], network.named_modules()):
        if isinstance(module, TransformerBlock) and told:
            yield f"{path}.attn2.to_k", Kept(module.attn2.to_k, most)
            yield f"{path}.attn2.to_v", Kept(module.attn2.to_v, most)
        elif isinstance(module, ResBlock) and module.time_emb_proj is not None:
            if times and _on_cpu(module.time_emb_proj):
                yield f"{path}.time_emb_proj", Kept(module.time_emb_proj, most)
        elif isinstance(module, UNetEncoder):
            prefix = f"{path}." if path else ""
            names = ["context_embedding"]
            if times and _on_cpu(module.conv_in):
                names += ["time_embedding", "class_embedding", "add_embedding"]
            for name in names:
                layer = getattr(module, name)
                if layer is not None:
                    yield f"{prefix}{name}", Kept(layer, most)
            if isinstance(module, ControlNet):
                encoder = prepared(module.controlnet_cond_embedding, steps)
                yield f"{prefix}controlnet_cond_embedding", KeptRows(encoder, steps + 1)


def _on_cpu(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether inputs that are new tensors each time are worth comparing by their values, for which
    another device would have to be waited for.
    """
    return layer.weight.device.type == "cpu"
