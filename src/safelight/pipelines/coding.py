"""Pictures to latents and back: in tiles where they are big, and once more in float32 where half
precision does not suffice.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, weight_dtype
from safelight.models.autoencoder import Gaussian
from safelight.models.tiling import decode_tiled, encode_tiled, tile_of
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder

Latents = Float[Tensor, "b z h w"]
Pixels = Float[Tensor, "b c H W"]


def check_finite(z: Latents, name: str, dtype: torch.dtype) -> None:
    """Raises `SafelightError` for latents that are no numbers, which no decoder mends; `name` and
    `dtype` are of the model whose U-Net made them.
    """
    if not z.isfinite().all():
        remedy = (
            "its weights are damaged, or the scale is far too high."
            if dtype == torch.float32
            else f"it needs more precision than {dtype}; take float32."
        )
        raise SafelightError(
            f"The latents came out as not-a-number by the U-Net of {name}: {remedy}"
        )


def encoding_draws(autoencoder: AnyAutoencoder) -> int:
    """How many draws of noise `encoded` takes before those that follow: one where latents are drawn
    from a distribution, none where the autoencoder gives them for certain.
    """
    return 0 if isinstance(autoencoder, TinyAutoencoder | VQAutoencoder) else 1


def encoded(
    autoencoder: AnyAutoencoder, pixels: Pixels, noise: Latents, *, tiled: bool = False
) -> Latents:
    """Scaled latents of pictures in [-1, 1], drawn from the autoencoder's distribution with that
    noise.
    """

    def latents(coder: AnyAutoencoder) -> Tensor:
        found = _encode(coder, pixels, tiled=tiled)
        return found if isinstance(found, Tensor) else found.sample(noise)

    return autoencoder.scale(_in_enough_precision(latents, autoencoder)).float()


def encoded_surely(autoencoder: AnyAutoencoder, pixels: Pixels, *, tiled: bool = False) -> Latents:
    """Unscaled latents of pictures in [-1, 1], the most probable ones."""

    def latents(coder: AnyAutoencoder) -> Tensor:
        found = _encode(coder, pixels, tiled=tiled)
        return found if isinstance(found, Tensor) else found.mode()

    return _in_enough_precision(latents, autoencoder)


def decoded(autoencoder: AnyAutoencoder, z: Latents, *, tiled: bool = False) -> Pixels:
    """Pictures, about in [-1, 1], from unscaled latents."""

    def pixels(coder: AnyAutoencoder) -> Tensor:
        x = z.to(weight_dtype(coder))
        return decode_tiled(coder, x, *tile_of(coder)) if tiled else coder.decode(x)

    return _in_enough_precision(pixels, autoencoder).float()


def finished(autoencoder: AnyAutoencoder, z: Latents, *, tiled: bool = False) -> Pixels:
    """Pictures in [-1, 1] from scaled latents."""
    return decoded(autoencoder, autoencoder.unscale(z), tiled=tiled).clamp(-1, 1)


def there_and_back(autoencoder: AnyAutoencoder, pixels: Pixels) -> Pixels:
    """Pictures in [-1, 1] as the autoencoder gives them back."""
    return decoded(autoencoder, encoded_surely(autoencoder, pixels)).clamp(-1, 1)


def _encode(coder: AnyAutoencoder, pixels: Tensor, *, tiled: bool) -> Gaussian | Tensor:
    x = pixels.to(weight_dtype(coder))
    return encode_tiled(coder, x, *tile_of(coder)) if tiled else coder.encode(x)


def _in_enough_precision(
    run: Callable[[AnyAutoencoder], Tensor], autoencoder: AnyAutoencoder
) -> Tensor:
    """What `run` gives by the autoencoder, or by a float32 copy of it, made for this call alone,
    where the values in between overflow the half precision of its weights, as they may in Stable
    Diffusion XL's.

    Raises `SafelightError` if they overflow that too.
    """
    found, half = run(autoencoder), weight_dtype(autoencoder) != torch.float32
    if half and not found.isfinite().all():
        found = run(copy.deepcopy(autoencoder).float())
    if not found.isfinite().all():
        remedy = "load the model in float32, or" if half else "its weights are damaged;"
        raise SafelightError(
            f"The picture came out as not-a-number by the autoencoder: {remedy} give another by "
            "--vae."
        )
    return found
