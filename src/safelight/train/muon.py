"""Muon: momentum whose matrices are orthogonalised before they are applied.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
2025 (arXiv 2502.16982), eq. 4, for the scale that lets it share AdamW's learning rate; Amsel et al.
2025 (arXiv 2505.16932), algorithm 1, for the polynomials.
"""

import math
from collections.abc import Callable
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

_POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""`a x + b x^3 + c x^5`, each the nearest to 1 in the largest deviation over what the one before it
makes of [0.01, 1]; together they take that interval to [0.73, 1.27].
"""


class Muon(torch.optim.AdamW):
    """Muon for the groups marked `orthogonal=True`, fused AdamW for all others.

    Kernels (out, in, h, w) are orthogonalised as matrices (out, in * h * w). The update's entries
    have a root mean square of 0.2, about AdamW's, so both share one learning rate. Weight decay is
    decoupled. `momentum` is the first of `betas`, with Nesterov's look-ahead.
    """

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; the gradients of orthogonal groups are consumed."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group.get("orthogonal", False):
                continue
            lr, momentum = group["lr"], group["betas"][0]
            alike: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average = state["exp_avg"].lerp_(gradient, 1 - momentum)
                direction = gradient.lerp(average, momentum).flatten(1)
                parameters, directions = alike.setdefault(direction.shape, ([], []))
                parameters.append(parameter)
                directions.append(direction)
                parameter.grad = None  # AdamW passes over weights without a gradient
            for shape, (parameters, directions) in alike.items():
                scale = 0.2 * math.sqrt(max(shape))
                updates = orthogonalised(torch.stack(directions))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - lr * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-lr * scale)
        super().step()
        return loss


def orthogonalised(matrices: Float[Tensor, "b m n"]) -> Float[Tensor, "b m n"]:
    """The nearest semi-orthogonal matrix of each, roughly: singular values in about [0.7, 1.3].

    That holds for those of at least 0.01 of the norm below; smaller ones are enlarged 73 to 78
    times.

    A quintic Newton-Schulz iteration `x <- p(x x^T) x` (Jordan et al. 2024). As every x is a
    polynomial of the first Gram matrix times the first x, only that matrix of the shorter side is
    iterated, and x is multiplied once, at the end. Differs from theirs in that each iteration has
    its own polynomial (Amsel et al. 2025), and in that the fourth root of the sum of the fourth
    powers of the singular values, a tighter bound of the largest than the Frobenius norm, scales x.
    Three iterations then serve for theirs of five, though values near a hundredth of the largest
    stay lower (`benchmarks/muon.py`).

    Matrices of one shape go together: products of a few hundred rows are too small to keep several
    cores busy one by one.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if wide else matrices.mT
    x = x / (x.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-12)  # so that x^4 is in range
    gram: Tensor = x @ x.mT  # (b, m, m), m the shorter side
    norm = 1.01 * gram.square().sum(dim=(1, 2), keepdim=True).sqrt() + 1e-12  # of sigma^2
    gram = gram / norm
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    product = identity
    for number, (a, b, c) in enumerate(_POLYNOMIALS, start=1):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor if number == 1 else factor @ product
        if number < len(_POLYNOMIALS):
            gram = factor @ gram @ factor  # they commute
    x = (product / norm.sqrt()) @ x
    return x if wide else x.mT
