"""Muon: momentum whose matrices are orthogonalised before they are applied.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
2025 (arXiv 2502.16982), eq. 4, for the scale that lets it share AdamW's learning rate.
"""

import math
from collections.abc import Callable
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.'s coefficients: steepest at small values


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
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average = state["exp_avg"].lerp_(gradient, 1 - momentum)
                update = orthogonalised(gradient.lerp(average, momentum).flatten(1))
                scale = 0.2 * math.sqrt(max(update.shape))
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-lr * scale)
                parameter.grad = None  # AdamW passes over weights without a gradient
        super().step()
        return loss


def orthogonalised(matrix: Float[Tensor, "m n"], iterations: int = 5) -> Float[Tensor, "m n"]:
    """The nearest semi-orthogonal matrix, roughly: singular values in about [0.7, 1.2].

    A quintic Newton-Schulz iteration `x <- p(x x^T) x` (Jordan et al. 2024). As every x is a
    polynomial of the first Gram matrix times the first x, only that matrix of the shorter side is
    iterated, and x is multiplied once, at the end.
    """
    a, b, c = _QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.mT
    x = x / (x.square().sum().sqrt() + 1e-7)
    gram: Tensor = x @ x.mT  # (m, m), m the shorter side
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    product = identity
    for _ in range(iterations):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor  # they commute
    x = product @ x
    return x if wide else x.mT
