"""A network with its meaning: x at noise level sigma to the expected x0."""

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.noise_schedule import NoiseSchedule
from safelight.diffusion.parameterization import Parameterization
from safelight.types import Conditioning, Network, Scalings


class Denoiser:
    """`(x, sigma, cond) -> x0`: a network, what its output means, and its name for sigma.

    x (b, c, h, w) is `x0 + sigma * noise` and sigma (b,), both float32 or finer; so is the x0 that
    comes back. With `dtype` the network alone runs under autocast to that type.
    """

    def __init__(
        self,
        network: Network,
        parameterization: Parameterization,
        schedule: NoiseSchedule,
        dtype: torch.dtype | None = None,
    ):
        self.network = network
        self.parameterization = parameterization
        self.schedule = schedule
        self.dtype = dtype

    def __call__(
        self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        """The expected x0: `c_skip * x + c_out * network(c_in * x, t)` (Karras et al. 2022, eq.
        7).
        """
        output, scalings = self.output(x, sigma, cond)
        return per_image(scalings.c_skip, x) * x + per_image(scalings.c_out, x) * output

    def output(
        self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> tuple[Float[Tensor, "b c h w"], Scalings]:
        """The network's own output, in x's dtype, and the scalings that turn it into x0."""
        scalings = self.parameterization(sigma)
        t = self.schedule.sigma_to_t(sigma)
        with torch.autocast(x.device.type, self.dtype) if self.dtype else nullcontext():
            output = self.network(per_image(scalings.c_in, x) * x, t, cond)
        return output.to(x.dtype), scalings


def per_image(values: Float[Tensor, " b"], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Values (b,) shaped to multiply x (b, ...), in x's dtype."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
