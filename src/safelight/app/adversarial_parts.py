"""What the discriminator of an adversarial distillation looks through, and at."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.app.distillation_parts import Pupil
from safelight.app.recipe import DistillationRecipe
from safelight.checkpoints.features import load_features
from safelight.checkpoints.folder import Folder
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.objective import logit_normal
from safelight.errors import SafelightError
from safelight.models.inception import InceptionFid
from safelight.models.unet import map_widths
from safelight.train.adversarial_views import LatentViewer, PixelViewer, Viewer


def viewer_of(
    recipe: DistillationRecipe,
    model: Folder,
    pupil: Pupil,
    teacher: Denoiser,
    device: torch.device,
) -> Viewer:
    """What the discriminator looks through: the blocks of the teacher, or the recipe's `features`
    at decoded pictures.

    Raises `SafelightError` for a teacher that is told its scale, and a feature network that is not
    there or shows no maps.
    """
    unet, config = model.unet.config, recipe.adversarial
    if unet.guidance_dim is not None:
        raise SafelightError(
            f"{recipe.base} is told its scale of guidance, as a distilled model; an adversarial "
            "student begins from the model that it was distilled from. Choose that as base."
        )
    pooled_dim = (unet.cross_attention_dim or 0) + (unet.class_dim or 0) + (unet.added_dim or 0)
    if recipe.features is None:
        up = config.blocks == "all"
        return LatentViewer(
            teacher,
            partial(pupil.teacher.maps, up=up),
            logit_normal(config.mean, config.std),
            map_widths(unet, up=up),
            pooled_dim,
        )
    features, autoencoder = load_features(recipe.features, device), model.autoencoder
    if isinstance(features, InceptionFid):
        raise SafelightError(
            f"{recipe.features} is FID's network, which shows no maps; expected an "
            "EfficientNet-Lite0 or a VGG16."
        )
    with torch.no_grad():
        maps = features(torch.zeros(1, 3, 64, 64, device=device))

    def decode(latents: Float[Tensor, "b c h w"]) -> Tensor:
        with torch.autocast(device.type, teacher.dtype, enabled=teacher.dtype is not None):
            return autoencoder.decode(autoencoder.unscale(latents))

    return PixelViewer(
        decode,
        features,
        [part.shape[1] for part in maps],
        pooled_dim,
        told_picture=config.told_picture,
    )
