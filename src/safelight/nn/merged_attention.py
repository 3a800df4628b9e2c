"""Self-attention over fewer tokens: those that are alike are merged before it and spread after it.

Source: Bolya and Hoffman 2023 (arXiv 2303.17604), token merging for Stable Diffusion, section 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from safelight.nn.attention import SpatialTransformer, Tokens, TransformerBlock
from safelight.nn.substitute import substituted

_SIDE = 2  # of the squares of which one token each takes others in
MOST = 1 - 1 / _SIDE**2
"""The largest part of tokens that can be merged: all but those that take others in."""


class MergedTransformer(nn.Module):
    """A picture's transformer whose self-attention merges a part of the tokens, `ratio`, in each
    block.

    It shares its weights with `base`. Raises `ValueError` for a ratio that is not in (0, 3/4].
    """

    def __init__(self, base: SpatialTransformer, ratio: float):
        super().__init__()
        if not 0 < ratio <= MOST:
            raise ValueError(f"A ratio should be above 0 and at most {MOST}, got {ratio}.")
        self._grid = _Grid()
        self.base = substituted(
            base,
            {
                f"transformer_blocks.{i}": _MergedBlock(block, ratio, self._grid)
                for i, block in _blocks(base)
            },
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b m e"] | None
    ) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w), attending to (b, m, e), to (b, c, h, w)."""
        self._grid.height, self._grid.width = x.shape[-2:]
        return self.base(x, context)


@dataclass
class _Grid:
    """How the tokens lie of the picture that is looked at."""

    height: int = 0
    width: int = 0


class _MergedBlock(nn.Module):
    """A block whose tokens are merged before its self-attention, by what they are before the norm,
    and spread after it.
    """

    def __init__(self, base: TransformerBlock, ratio: float, grid: _Grid):
        super().__init__()
        self.base, self._ratio, self._grid = base, ratio, grid

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"] | None) -> Tokens:
        """(b, n, d), attending to (b, m, e), to (b, n, d)."""
        block = self.base
        takers, others = split_tokens(self._grid.height, self._grid.width, x.device)
        count = min(int(x.shape[1] * self._ratio), len(others))
        if block.self_context or not count:
            return block(x, context)
        pairs = Pairs.of(x, takers, others, count)
        x = x + pairs.spread(block.attn1(pairs.merged(block.norm1(x))))
        x = x + block.attn2(block.norm2(x), context)
        return x + block.ff(block.norm3(x))


@dataclass(frozen=True)
class Pairs:
    """Which tokens are merged into which.

    Attributes:
        takers: the tokens that take others in.
        kept: those that stay by themselves.
        given: those that are merged.
        into: for each of them, which of the takers takes it in.
    """

    takers: Int[Tensor, " n_takers"]
    kept: Int[Tensor, "b n_kept"]
    given: Int[Tensor, "b n_given"]
    into: Int[Tensor, "b n_given"]

    @staticmethod
    def of(
        x: Tokens, takers: Int[Tensor, " n_takers"], others: Int[Tensor, " n_others"], count: int
    ) -> "Pairs":
        """The `count` of the other tokens that are most like one of the takers (by the cosine)."""
        with torch.no_grad():
            near = F.normalize(x, dim=-1)
            likeness, into = (near[:, others] @ near[:, takers].mT).max(-1)
            order = likeness.argsort(dim=-1, descending=True)
        given, kept = order[:, :count], order[:, count:]
        return Pairs(takers, others[kept], others[given], into.gather(1, given))

    def merged(self, x: Tokens) -> Float[Tensor, "b n_fewer d"]:
        """The tokens that stay, then the takers with the mean of themselves and what they take."""
        given, kept = (_taken(x, places) for places in (self.given, self.kept))
        where = self.into[..., None].expand_as(given)
        takers = x[:, self.takers].scatter_reduce(1, where, given, "mean")
        return torch.cat([kept, takers], 1)

    def spread(self, merged: Float[Tensor, "b n_fewer d"]) -> Tokens:
        """Each token again, where those that were merged are as what took them in."""
        width, stay = merged.shape[-1], self.kept.shape[1]
        kept, takers = merged[:, :stay], merged[:, stay:]
        whole = merged.new_empty(len(merged), stay + len(self.takers) + self.given.shape[1], width)
        whole[:, self.takers] = takers
        for places, tokens in ((self.kept, kept), (self.given, _taken(takers, self.into))):
            whole.scatter_(1, places[..., None].expand_as(tokens), tokens)
        return whole


def split_tokens(
    height: int, width: int, device: torch.device
) -> tuple[Int[Tensor, " n_takers"], Int[Tensor, " n_others"]]:
    """The tokens of a grid, row by row, that take others in, the first of each square of 2 x 2, and
    the others.

    Differs from the paper, which draws one of each square anew in each call, as AUTOMATIC1111's web
    UI does: so that both sides of guidance merge alike, and a picture can be made again.
    """
    whole_squares = torch.zeros(height, width, dtype=torch.bool, device=device)
    whole_squares[: height // _SIDE * _SIDE : _SIDE, : width // _SIDE * _SIDE : _SIDE] = True
    taking = whole_squares.flatten()
    return taking.nonzero()[:, 0], (~taking).nonzero()[:, 0]


def _blocks(base: SpatialTransformer) -> Iterator[tuple[int, TransformerBlock]]:
    for i, block in enumerate(base.transformer_blocks):
        assert isinstance(block, TransformerBlock)
        yield i, block


def _taken(x: Tokens, places: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
