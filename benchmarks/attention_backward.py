"""Attention and its gradients in bfloat16 on a CPU: `python benchmarks/attention_backward.py`.

The peer is torch's own `scaled_dot_product_attention` on the same bfloat16 tensors; ours is
`nn.attention.attend`, which attends in float32 where gradients are wanted. Both run in turn, so
that what else the machine does meets both. Shapes are those of the default U-Net's attention on a
batch of 64, and one of Stable Diffusion's on one picture.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from safelight.nn.attention import attend

SHAPES = ((64, 16, 16, 5, 32), (64, 16, 32, 5, 32), (64, 4, 32, 6, 32), (1, 256, 256, 8, 80))
"""Batch, queries, keys, heads, width of a head."""
ROUNDS = 15

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def torchs(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """torch's attention as it comes."""
    q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=heads) for part in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


def seconds(attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int) -> float:
    """One forward and one backward pass."""
    start = time.perf_counter()
    attention(q, k, v, heads).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Prints a row of the table for each shape."""
    for batch, queries, keys, heads, width in SHAPES:
        q, k, v = (
            torch.randn(batch, n, heads * width, dtype=torch.bfloat16, requires_grad=True)
            for n in (queries, keys, keys)
        )
        times: dict[Attention, list[float]] = {torchs: [], attend: []}
        for _ in range(ROUNDS):
            for attention, taken in times.items():
                taken.append(seconds(attention, q, k, v, heads))
        theirs, ours = (1000 * statistics.median(taken) for taken in times.values())
        shape = f"{batch} x {queries} on {keys}, {heads} heads of {width}"
        print(f"| {shape} | {theirs:.1f} ms | {ours:.1f} ms | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main()
