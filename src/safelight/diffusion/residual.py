"""Residual classifier-free guidance: what is led away from is remembered, not computed anew.

Source: Kodaira et al. 2023 (arXiv 2312.12491), section 3.2.
"""

from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "b c h w"]


def residual_guided(
    denoised: Latents, x: Latents, anchor: Latents, scale: float, delta: float = 1.0
) -> Latents:
    """The guided x0, from that under the prompt and an `anchor`.

    The noise that x would consist of if `anchor` were its x0, `(x - anchor) / sigma`, stands for
    the network's under the negative prompt, times `delta`: `delta * n + scale * (noise - delta *
    n)`. In x0, with `delta` 1, that is `anchor + scale *
    (denoised - anchor)`. The anchor is the picture begun from (self-negative), or the x0 under the
    negative prompt at the first step (onetime-negative).
    """
    guided = anchor + scale * (denoised - anchor)
    return guided if delta == 1 else guided + (1 - delta) * (1 - scale) * (x - anchor)
