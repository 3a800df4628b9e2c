"""Cross-attention that tells what it looks at, in the place of a network's own."""

from collections.abc import Callable, Collection
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import Attention, Tokens
from safelight.nn.decoupled import cross_attentions
from safelight.nn.substitute import M, substituted

Look: TypeAlias = Callable[[Tokens, Float[Tensor, "b m d"], int], None]
"""Is told the queries, the keys and the number of heads of each cross-attention, in its turn."""


class WatchedAttention(nn.Module):
    """An attention that tells `look` its queries and keys, and gives what `base` gives, to the
    bit.
    """

    def __init__(self, base: Attention, look: Look):
        super().__init__()
        self.base = base
        self.look = look

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"]) -> Tokens:
        """(b, n, d), attending to (b, m, e), to (b, n, d)."""
        base = self.base
        q, k = base.to_q(x), base.to_k(context)
        self.look(q, k, base.heads)
        return base.to_out(base.attend(q, k, base.to_v(context)))


def watched(network: M, look: Look, paths: Collection[str] | None = None) -> M:
    """A second network whose cross-attentions tell `look` what they look at, which shares its
    weights with the first; the first stays as it is.

    `paths` are those of the layers that are watched, of `cross_attentions`; None for all.
    """
    layers = cross_attentions(network)
    return substituted(
        network,
        {
            path: WatchedAttention(layer, look)
            for path, layer in layers
            if paths is None or path in paths
        },
    )


def attention_map(q: Tokens, k: Float[Tensor, "b m d"], heads: int) -> Float[Tensor, "b n m"]:
    """How much each of n queries looks at each of m keys, the mean over the heads: softmax(q k^T /
    sqrt(d)), which sums to 1 over the keys (Vaswani et al. 2017, eq. 1). In float32.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = (rearrange(tokens.float(), "b n (h d) -> b h n d", h=heads) for tokens in (q, k))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1).mean(dim=1)
