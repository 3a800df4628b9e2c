"""Pictures of latents on the way, decoded while a sampler runs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.models.tiling import needs_tiles
from safelight.models.tiny import TinyAutoencoder
from safelight.pipelines.coding import decoded, encoded_surely
from safelight.pipelines.generated import to_image
from safelight.pipelines.latent_colours import LatentColours, latent_colours
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
        return _showing(self, show)


class ColourPreviewer:
    """Latents as the U-Net sees them, (b, c, h, w), to one picture each, of one colour at each
    place: soft, and at no cost beside a step's.

    The colours are a linear map of the latents, the one that is nearest for a chart of colours,
    which goes through the autoencoder's encoder once, at the first preview.
    """

    def __init__(self, autoencoder: AnyAutoencoder):
        self.autoencoder = autoencoder
        self._colours: LatentColours | None = None

    def __call__(self, latents: Float[Tensor, "b c h w"]) -> list[Image.Image]:
        """Pictures as large as the finished ones."""
        if self._colours is None:
            self._colours = colours_of(self.autoencoder)
        small = [self._colours(z) for z in latents]
        factor = self.autoencoder.factor
        return [one.resize((one.width * factor, one.height * factor)) for one in small]

    def showing(self, show: Callable[[Image.Image], None]) -> OnStep:
        """As `Previewer.showing`."""
        return _showing(self, show)


def quick_previewer(autoencoder: AnyAutoencoder) -> "Previewer | ColourPreviewer":
    """What previews a model's latents without holding up its steps: its own autoencoder if that is
    small, or cannot encode; else colours.
    """
    weights = sum(parameter.numel() for parameter in autoencoder.decoder.parameters())
    if weights <= _SMALL or (isinstance(autoencoder, TinyAutoencoder) and not autoencoder.encoder):
        return Previewer(autoencoder)
    return ColourPreviewer(autoencoder)


def colours_of(autoencoder: AnyAutoencoder) -> LatentColours:
    """The linear map from an autoencoder's scaled latents to colours, of a chart of such."""
    colours = torch.rand(1, 3, _CHART, _CHART, generator=torch.Generator().manual_seed(0)) * 2 - 1
    chart = F.interpolate(colours, scale_factor=_PLACES * autoencoder.factor)
    weight = next(autoencoder.parameters())
    with torch.inference_mode():
        z = autoencoder.scale(encoded_surely(autoencoder, chart.to(weight)))
    return latent_colours([z[0]], [chart[0]])


def _showing(
    previewer: Callable[[Tensor], list[Image.Image]], show: Callable[[Image.Image], None]
) -> OnStep:
    def on_step(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        show(previewer(denoised[:1])[0])

    return on_step


_SMALL = 10_000_000
"""Weights of a decoder that is fast enough for previews; Stable Diffusion's has 49 million."""
_CHART, _PLACES = 8, 4
"""Colours of the chart along each side, and latents along the side of each."""
