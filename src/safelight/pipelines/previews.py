"""Pictures of latents on the way, decoded while a sampler runs."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.models.tiling import needs_tiles
from safelight.pipelines.coding import decoded
from safelight.pipelines.generated import to_image
from safelight.types import OnStep


class Previewer:
    """Latents as the U-Net sees them, (b, c, h, w), to one picture each.

    What a step believes the clean latents to be (`denoised` of `OnStep`) shows the picture to come;
    its noised `x` shows the noise. A tiny autoencoder makes a preview many times faster than the
    model's own, which may serve as well.
    """

    def __init__(self, autoencoder: AnyAutoencoder):
        self.autoencoder = autoencoder

    def __call__(self, latents: Float[Tensor, "b c h w"]) -> list[Image.Image]:
        """Decodes a batch.

        Raises `SafelightError` for latents of another number of channels.
        """
        channels = latent_channels(self.autoencoder)
        if latents.shape[1] != channels:
            raise SafelightError(
                f"The preview's autoencoder takes latents of {channels} channels, got "
                f"{latents.shape[1]}; take one of the model's family."
            )
        weight = next(self.autoencoder.decoder.parameters())
        with torch.inference_mode():
            z = self.autoencoder.unscale(latents.to(weight.device))
            width, height = (side * self.autoencoder.factor for side in (z.shape[3], z.shape[2]))
            tiled = needs_tiles(self.autoencoder, width, height)
            return [to_image(pixels) for pixels in decoded(self.autoencoder, z, tiled=tiled)]

    def showing(self, show: Callable[[Image.Image], None]) -> OnStep:
        """A callback of a sampler that shows, after each step, the picture to come, the first of a
        batch.
        """

        def on_step(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            show(self(denoised[:1])[0])

        return on_step
