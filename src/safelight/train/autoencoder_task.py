"""The training of autoencoders: reconstruction, regularised latents, and an adversary.

Source: Rombach et al. 2022 (arXiv 2112.10752), eq. 25; Esser et al. 2021 for VQ and the adversary.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, likeliest
from safelight.models.autoencoder import Autoencoder, Gaussian
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder
from safelight.train import losses
from safelight.train.discriminator import AdversaryConfig, PatchDiscriminator, frozen_call
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch

Pixels = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class AutoencoderLossConfig:
    """The weights of an autoencoder's losses; those of 0 are not computed.

    `kl` is per pixel value (`losses.kl`); `codebook` is for VQ autoencoders, `latents`, the mean
    squared error of what the encoder gives, for tiny ones.
    """

    l1: float = 1.0
    perceptual: float = 1.0
    gradient: float = 0.0
    gradient_scales: int = 3
    kl: float = 1e-6
    codebook: float = 1.0
    latents: float = 1.0
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)

    def __post_init__(self):
        weights = ("l1", "perceptual", "gradient", "kl", "codebook", "latents")
        for name, least in {**dict.fromkeys(weights, 0), "gradient_scales": 1}.items():
            if not getattr(self, name) >= least:
                raise SafelightError(
                    f"loss.{name} should be at least {least}, got {getattr(self, name)}."
                )


@dataclass(frozen=True)
class Reconstruction:
    """What came back, and what the latents cost: `penalty` is weighted, `parts` are for the log."""

    pixels: Pixels
    penalty: Float[Tensor, ""]
    parts: Mapping[str, Tensor]


@runtime_checkable
class Reconstruct(Protocol):
    """One pass through an autoencoder."""

    def __call__(self, pixels: Pixels, draws: Draws) -> Reconstruction:
        """Pixels in [-1, 1] to their reconstruction."""
        ...


class AutoencoderTask:
    """Trains an autoencoder, and a discriminator against it if the loss asks for one."""

    def __init__(
        self,
        autoencoder: AnyAutoencoder,
        reconstruct: Reconstruct,
        config: AutoencoderLossConfig,
        features: losses.Features | None,
    ):
        self._reconstruct, self._config, self._features = reconstruct, config, features
        self._last_layer = autoencoder.last_layer
        adversary = config.adversary
        self._discriminator = PatchDiscriminator(adversary) if adversary.weight else None
        self._phases = {"main": Phase({"autoencoder": autoencoder})}
        if self._discriminator is not None:
            self._phases["adversary"] = Phase(
                {"discriminator": self._discriminator},
                averaged=False,
                lr_scale=adversary.lr_scale,
            )

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The autoencoder, and the discriminator if there is one."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The autoencoder's loss; then the discriminator's, once it takes part."""
        if batch.pixels is None:
            raise ValueError("An autoencoder trains on pixels; this batch holds none.")
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        result = self._reconstruct(pixels, draws)
        output = result.pixels.float()
        error, parts = self._error(output, pixels)
        adversary = self._config.adversary
        if self._discriminator is None or draws.step < adversary.start:
            total = error + result.penalty
            yield Loss("main", total, {"loss": total, **parts, **result.parts})
            return

        fooled = losses.hinge_generator(frozen_call(self._discriminator, output))
        total, weight = self._balanced(error, fooled, output)
        total = total + result.penalty
        parts |= {**result.parts, "fooled": fooled, "adversary_weight": weight}
        yield Loss("main", total, {"loss": error + result.penalty, **parts})

        real, fake = self._discriminator(torch.cat([pixels, output.detach()])).chunk(2)
        judged = losses.hinge_discriminator(real, fake)
        yield Loss("adversary", judged, {"adversary": judged})

    def _error(self, output: Pixels, pixels: Pixels) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the reconstruction's losses, and each by itself."""
        config = self._config
        parts: dict[str, Tensor] = {"l1": losses.l1(output, pixels)}
        error = config.l1 * parts["l1"]
        if config.gradient:
            parts["gradient"] = losses.gradient_loss(output, pixels, config.gradient_scales)
            error = error + config.gradient * parts["gradient"]
        if config.perceptual and self._features is not None:
            parts["perceptual"] = losses.perceptual(self._features, output, pixels)
            error = error + config.perceptual * parts["perceptual"]
        return error, parts

    def _balanced(self, error: Tensor, fooled: Tensor, output: Pixels) -> tuple[Tensor, Tensor]:
        """A scalar with the gradients of `error + weight * fooled`, and the weight.

        Both are differentiated down to the output once; the last layer's gradients, which set the
        weight, and the network's then follow from those, so no feature network runs backward twice.
        """
        of_error = torch.autograd.grad(error, output)[0]
        of_fooled = torch.autograd.grad(fooled, output)[0]
        reconstruction, adversarial = (
            torch.autograd.grad(output, self._last_layer, gradient, retain_graph=True)[0]
            for gradient in (of_error, of_fooled)
        )
        balance = losses.adaptive_weight(reconstruction, adversarial)
        weight = self._config.adversary.weight * balance
        return (output * (of_error + weight * of_fooled)).sum(), weight


def reconstruct_kl(
    autoencoder: Autoencoder, config: AutoencoderLossConfig, dtype: torch.dtype | None
) -> Reconstruct:
    """Encodes, draws a latent, decodes, under autocast to `dtype` if given."""

    def reconstruct(pixels: Pixels, draws: Draws) -> Reconstruction:
        with _autocast(pixels.device, dtype):
            encoded = autoencoder.encode(pixels)
            # exponents and sums over a latent are beyond bfloat16's eight bits
            posterior = Gaussian(encoded.mean.float(), encoded.logvar.float())
            noise = draws.normal(posterior.mean.shape, stream=0)
            output = autoencoder.decode(posterior.sample(noise))
        divergence = losses.kl(posterior, pixels)
        return Reconstruction(output, config.kl * divergence, {"kl": divergence})

    return reconstruct


def reconstruct_vq(
    autoencoder: VQAutoencoder, config: AutoencoderLossConfig, dtype: torch.dtype | None
) -> Reconstruct:
    """Encodes, quantises, decodes, under autocast to `dtype` if given."""

    def reconstruct(pixels: Pixels, draws: Draws) -> Reconstruction:
        with _autocast(pixels.device, dtype):
            quantized = autoencoder.quantize(autoencoder.encode(pixels))
            output = autoencoder.decode(quantized.z, quantize=False)
        parts = {"codebook": quantized.loss, "codes_used": _used(quantized.indices)}
        return Reconstruction(output, config.codebook * quantized.loss, parts)

    return reconstruct


def reconstruct_tiny(
    tiny: TinyAutoencoder,
    teacher: Autoencoder | VQAutoencoder,
    config: AutoencoderLossConfig,
    dtype: torch.dtype | None,
) -> Reconstruct:
    """Encodes by the teacher, scales as the U-Net sees it, and decodes by the tiny one, under
    autocast to `dtype` if given; where the tiny one has an encoder, that is to give the same.

    The decoder learns pictures, not the teacher's reconstructions, so that it does not inherit the
    faults of that one's decoder (as TAESD does).
    """

    def reconstruct(pixels: Pixels, draws: Draws) -> Reconstruction:
        with _autocast(pixels.device, dtype):
            with torch.no_grad():
                z = tiny.unscale(teacher.scale(likeliest(teacher, pixels)))
            output = tiny.decode(z)
            found = None if tiny.encoder is None or not config.latents else tiny.encode(pixels)
        if found is None:
            return Reconstruction(output, output.new_zeros((), dtype=torch.float32), {})
        error = torch.nn.functional.mse_loss(found.float(), z.float())
        return Reconstruction(output, config.latents * error, {"latents": error})

    return reconstruct


@torch.no_grad()
def start_codebook(autoencoder: VQAutoencoder, pixels: Pixels, generator: torch.Generator) -> None:
    """Makes random latents of some pictures the rows of a new codebook, so that more of it is used.

    Source: Lancucki et al. 2020 (arXiv 2005.08520), section 3.2.
    """
    latents = rearrange(autoencoder.encode(pixels), "b d h w -> (b h w) d")
    rows = autoencoder.codebook.weight
    chosen = torch.randint(len(latents), (len(rows),), generator=generator)
    rows.copy_(latents[chosen.to(latents.device)])


def _used(indices: Tensor) -> Tensor:
    """How many different rows of the codebook a batch uses."""
    rows = torch.bincount(indices.flatten())
    return (rows > 0).sum()


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
