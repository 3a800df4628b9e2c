"""What a reconstruction is judged by, each a mean over the batch."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from safelight.models.autoencoder import Gaussian

Pixels = Float[Tensor, "b c h w"]
Scalar = Float[Tensor, ""]
Features = Callable[[Tensor], Sequence[Tensor]]
"""A frozen network from pixels (b, 3, h, w) in [-1, 1] to feature maps, each (b, c, h', w')."""


def l1(output: Pixels, target: Pixels) -> Scalar:
    """Mean absolute error."""
    return F.l1_loss(output, target)


def gradient_loss(output: Pixels, target: Pixels, scales: int = 3) -> Scalar:
    """Mean absolute error of the differences between neighbouring pixels, at full, half, quarter...
    size.

    It asks for sharp edges where no feature network is at hand. Scales at which a side would fall
    below two pixels are left out. Source: Mathieu et al. 2016 (arXiv 1511.05440), eq. 6, over
    scales.
    """
    error = output - target  # differences are linear: those of the error are the error of those
    terms: list[Tensor] = []
    for scale in range(scales):
        if scale:
            error = F.avg_pool2d(error, 2)
        if min(error.shape[-2:]) < 2:
            break
        down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
        terms.append(down + across)
    return torch.stack(terms).mean() if terms else error.new_zeros(())


def perceptual(features: Features, output: Pixels, target: Pixels) -> Scalar:
    """Squared distance of unit-length feature vectors, averaged over places and levels.

    Source: Zhang et al. 2018 (arXiv 1801.03924), eq. 1; differs in that all channels weigh the
    same, so any feature network serves.
    """
    with torch.no_grad():
        wanted = [_unit(level) for level in features(target)]
    got = features(output)
    distances = [
        (_unit(level) - other).square().sum(dim=1).mean()
        for level, other in zip(got, wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def kl(posterior: Gaussian, pixels: Pixels) -> Scalar:
    """Divergence of the latents from the standard normal, in nats per pixel value.

    Divided so, weights are those of Rombach et al. 2022, who sum both this and the reconstruction's
    error over each picture.
    """
    return posterior.kl().mean() / pixels[0].numel()


def pseudo_huber(output: Tensor, target: Tensor, c: float) -> Scalar:
    """Mean of `sqrt(error^2 + c^2) - c`: squared for errors below c, absolute above (Song and
    Dhariwal 2023, arXiv 2310.14189, eq. 8, of each element, as in the published training of LCM).
    """
    return ((output - target).square() + c**2).sqrt().mean() - c


def hinge_discriminator(real: Tensor, fake: Tensor) -> Scalar:
    """The discriminator's loss: real logits above 1, fake below -1 (Lim and Ye 2017, eq. 6)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator(fake: Tensor) -> Scalar:
    """The generator's loss: the mean fake logit, negated (Lim and Ye 2017, eq. 7)."""
    return -fake.mean()


def r1(logits: Tensor, inputs: Float[Tensor, "b ..."]) -> Scalar:
    """The squared length of the gradient of each image's summed logits by its inputs, averaged over
    the batch (Mescheder et al. 2018, arXiv 1801.04406, eq. 9, without its gamma / 2).

    `logits` (b, ...) must depend on `inputs`, which must require gradients; the penalty has
    gradients itself.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, limit: float = 1e4) -> Scalar:
    """The weight of the adversarial loss, from both losses' gradients at the decoder's last layer.

    Source: Esser et al. 2021 (arXiv 2012.09841), eq. 7, with delta 1e-4.
    """
    ratio = _length(reconstruction) / (_length(adversarial) + 1e-4)
    return ratio.clamp(0, limit).detach()


def _length(gradient: Tensor) -> Tensor:
    return gradient.square().sum().sqrt()


def _unit(features: Tensor) -> Tensor:
    """Features (b, c, h, w) with unit length along the channels."""
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-10)
