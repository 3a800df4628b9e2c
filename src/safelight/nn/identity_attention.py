"""Self-attention in which every token looks at itself alone, in the place of a network's own."""

import re
from collections.abc import Iterator, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import Attention, Tokens, TransformerBlock
from safelight.nn.substitute import M, substituted


class IdentityAttention(nn.Module):
    """An attention whose map is the identity matrix; its projections are those of `base`.

    Source: Ahn et al. 2024 (arXiv 2403.17377), perturbed self-attention.
    """

    def __init__(self, base: Attention):
        super().__init__()
        self.base = base

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"] | None = None) -> Tokens:
        """(b, n, d) to the same; there is no context to look at."""
        return self.base.to_out(self.base.to_v(x))


def with_identity_attention(network: M, patterns: Sequence[str]) -> M:
    """A network with the identity in the place of chosen self-attention maps, which shares its
    weights with the first; patterns and errors as `chosen_attentions`.
    """
    chosen = chosen_attentions(network, patterns)
    return substituted(network, {path: IdentityAttention(layer) for path, layer in chosen.items()})


def chosen_attentions(network: nn.Module, patterns: Sequence[str]) -> dict[str, Attention]:
    """The layers of self-attention in whose paths one of the patterns is found.

    Paths are such as `mid_block.attentions.0.transformer_blocks.0.attn1`, patterns regular
    expressions: `mid`, `up_blocks.1`. Raises `ValueError` for a pattern that is found in none.
    """
    layers = dict(self_attentions(network))
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in layers):
            raise ValueError(f"{pattern!r} is found in no path of self-attention.")
    return {
        path: layer
        for path, layer in layers.items()
        if any(re.search(pattern, path) for pattern in patterns)
    }


def self_attentions(network: nn.Module) -> Iterator[tuple[str, Attention]]:
    """The layers of a network's transformers that look at their own tokens alone, by their
    paths.
    """
    modules = cast(Iterator[tuple[str, nn.Module]], network.named_modules())  # torch leaves it open
    for path, module in modules:
        if isinstance(module, TransformerBlock) and not module.self_context:
            yield f"{path}.attn1", module.attn1
