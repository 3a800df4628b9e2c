"""The model that a video training starts from: a picture's, inflated, or a video model, read."""

from dataclasses import dataclass, replace

from safelight.app.latent_parts import conditioner
from safelight.app.recipe import VideoRecipe
from safelight.app.running import open_whole, seeded
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.tables.video import OWN_PIPELINE
from safelight.conditioners.text import TextConditioner
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import latent_channels
from safelight.models.unet import UNet
from safelight.models.video import TemporalConfig, VideoUNet, inflate, new_parameters, told_around
from safelight.train.fresh import Fresh
from safelight.train.video_task import VideoConfig


@dataclass(frozen=True)
class Start:
    """A video model to train, its U-Net, and the one that was inflated, if it was."""

    model: Folder
    unet: VideoUNet
    former: UNet | None

    @property
    def text(self) -> TextConditioner:
        """What turns captions into the model's conditioning."""
        return conditioner(self.model)

    def learning(self, config: VideoConfig) -> tuple[list[Fresh], list[Fresh]]:
        """Freezes what does not learn; what is new beside what has learned, and the parameters of
        which only a part learns.
        """
        names = set(new_parameters(self.unet))
        latents = self.unet.config.out_channels
        added = [Fresh(p) for name, p in self.unet.named_parameters() if name in names]
        if self.unet.config.in_channels > latents:  # channels that tell of known frames
            added.append(Fresh(self.unet.get_parameter("conv_in.weight"), latents))
        whole = config.layers == "all"
        trained = {id(part.parameter) for part in added}
        for parameter in self.unet.parameters():
            parameter.requires_grad_(whole or id(parameter) in trained)
        fresh = [] if self.former is None or not whole else added
        return fresh, [] if whole else [part for part in added if part.first]


def start_video(recipe: VideoRecipe) -> Start:
    """The model of a recipe's `base`, ready to be trained on clips.

    Raises `SafelightError` for a model that is told other than one prompt (and, of clips, frames
    and numbers), or whose shape is not what the recipe asks for.
    """
    model = open_whole(recipe.base)
    if recipe.diffusion is not None:
        model = replace(model, scheduler=recipe.diffusion)
    if len(model.text_towers) != 1 or model.vision is not None:
        raise SafelightError(
            f"{recipe.base} is a {model.pipeline_class}; a video model is trained from one that is "
            "told a prompt by one text tower, and sees no picture by an image tower."
        )
    wanted = recipe.video.temporal(recipe.clips.frames)
    if isinstance(model.unet, VideoUNet):
        unet, former = model.unet, None
        if (unet.temporal.given, wanted.given) == ("placed", "around"):
            unet = told_around(unet)
        _check_same(recipe, unet, wanted)
        unet.temporal = replace(
            unet.temporal,
            num_frames=wanted.num_frames,
            noise_correlation=wanted.noise_correlation,
            moving_correlation=wanted.moving_correlation,
            null_numbers=wanted.null_numbers,
        )
    else:
        unet, former = _inflated(recipe, model, wanted), model.unet
    model = replace(model, unet=unet, pipeline_class=OWN_PIPELINE)
    return Start(model, unet, former)


def _inflated(recipe: VideoRecipe, model: Folder, wanted: TemporalConfig) -> VideoUNet:
    config = model.unet.config
    latents = latent_channels(model.autoencoder)
    told = (config.class_dim, config.added_dim, config.guidance_dim)
    if config.in_channels != latents or told != (None, None, None) or model.beside.conditions:
        raise SafelightError(
            f"{recipe.base} is a {model.pipeline_class} that is told more than a prompt; a video "
            "model is trained from one that makes pictures from a prompt alone."
        )
    try:
        with seeded(recipe.loop.seed):
            return inflate(model.unet, wanted, number_dim=recipe.video.number_dim)
    except ValueError as error:
        raise SafelightError(f"[video] does not go with {recipe.base}: {error}") from error


def _check_same(recipe: VideoRecipe, unet: VideoUNet, wanted: TemporalConfig) -> None:
    """Raises `SafelightError` if a recipe asks for another shape than its base has; the number of
    frames is free, and so is what makes no other layers.
    """
    has, number_dim = unet.temporal, unet.config.added_time_dim
    different = [
        f"{name} = {getattr(has, name)!r}"
        for name in ("given", "numbers", "narrow")
        if getattr(has, name) != getattr(wanted, name)
    ]
    if has.numbers and number_dim != recipe.video.number_dim:
        different.append(f"number_dim = {number_dim}")
    if different:
        raise SafelightError(
            f"The base {recipe.base} is a video model with {', '.join(different)}; a training that "
            "goes on from it has the same in [video]."
        )
