"""Attention to pictures beside the attention to a text, each with keys and values of its own.

Source: Ye et al. 2023 (arXiv 2308.06721), section 3.2.2 and equation 5.
"""

from collections.abc import Iterator, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import Attention, Tokens, TransformerBlock


class DecoupledAttention(nn.Module):
    """A layer's attention to the text, and added to it that to each of several pictures, weighed.

    The pictures' tokens stand after the text's, `tokens` for each. Projections of queries and of
    the output are those of `base`.
    """

    def __init__(
        self,
        base: Attention,
        to_k: nn.Linear,
        to_v: nn.Linear,
        tokens: int,
        weights: Sequence[float],
    ):
        super().__init__()
        self.base = base
        self.to_k = to_k
        self.to_v = to_v
        self.tokens = tokens
        self.weights = tuple(weights)

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"]) -> Tokens:
        """(b, n, d), attending to (b, text and pictures, e), to (b, n, d)."""
        base, count = self.base, len(self.weights) * self.tokens
        text, pictures = context[:, :-count], context[:, -count:]
        q = base.to_q(x)
        attended = base.attend(q, base.to_k(text), base.to_v(text))
        keys = self.to_k(pictures).split(self.tokens, dim=1)
        values = self.to_v(pictures).split(self.tokens, dim=1)
        for weight, k, v in zip(self.weights, keys, values, strict=True):
            attended = attended + weight * base.attend(q, k, v)
        return base.to_out(attended)


class WithoutLast(nn.Module):
    """A layer that reads a context, without the last tokens of it."""

    def __init__(self, base: nn.Module, count: int):
        super().__init__()
        self.base = base
        self.count = count

    def forward(self, *inputs: Tensor) -> Tensor:
        """The context is the last of the inputs."""
        return self.base(*inputs[:-1], inputs[-1][:, : -self.count])


def cross_attentions(network: nn.Module) -> list[tuple[str, Attention]]:
    """A U-Net's layers that attend to the context, by their paths, in the order in which public
    files number them: down, up, and the middle last.
    """
    modules = cast(Iterator[tuple[str, nn.Module]], network.named_modules())  # torch leaves it open
    found = [
        (f"{path}.attn2", module.attn2)
        for path, module in modules
        if isinstance(module, TransformerBlock)
    ]
    parts = ("down_blocks", "up_blocks", "mid_block")
    return sorted(found, key=lambda layer: parts.index(layer[0].partition(".")[0]))


def context_readers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What reads a U-Net's context besides these layers: attention that looks at it in the place of
    its own tokens, and what pools it into the embedding.
    """
    for path, module in cast(Iterator[tuple[str, nn.Module]], network.named_modules()):
        if isinstance(module, TransformerBlock) and module.self_context:
            yield f"{path}.attn1", module.attn1
        elif path == "context_embedding":
            yield path, module
