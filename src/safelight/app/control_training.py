"""Runs recipes of ControlNets: what steers a model that stays as it is."""

import torch

from safelight.app.control_parts import captions_to_conditioning, null_of, steerable
from safelight.app.control_preview import Steered, control_preview
from safelight.app.latent_training import latents_of, scale_of
from safelight.app.recipe import ControlRecipe, HintConfig
from safelight.app.running import (
    MODEL,
    check_sizes,
    choose_device,
    describe,
    own_memory,
    say,
    seeded,
    train_by,
)
from safelight.app.training_basis import check_basis, control_basis
from safelight.checkpoints.controlnet import read_control, write_controlnet
from safelight.checkpoints.folder import Folder
from safelight.data.companions import Annotate, Companions
from safelight.data.folders import PictureFolder, gather
from safelight.data.latents import LatentBatches
from safelight.data.sources import Each, Pictures
from safelight.diffusion.denoiser import Denoiser
from safelight.errors import SafelightError
from safelight.models.control_plan import planned
from safelight.models.controlnet import Controlled, ControlNet, Steering, even_weights
from safelight.pipelines.annotate import annotator, on_levels
from safelight.pipelines.control_fit import check_model
from safelight.train.beside import Dropped, as_hint
from safelight.train.latent_task import LatentTask, latent_objective
from safelight.train.loop import Outcome
from safelight.train.optim import autocast_dtype, prepare

HINT = "hint"  # what it is called in a batch


def train_control(recipe: ControlRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "control"; errors as `training.run_recipe`."""
    device = choose_device(recipe.device)
    pictures = gather(recipe.data)
    say(f"Data: {pictures.summary()}.")
    model = steerable(recipe.base)
    condition = captions_to_conditioning(model, recipe.data)
    unet, autoencoder = model.unet, model.autoencoder
    check_sizes(recipe.data, autoencoder.factor)
    with seeded(recipe.loop.seed):
        control = begun(recipe, model)
    basis = control_basis(model, control, started=recipe.start is not None)
    check_basis(recipe.output, basis, resume=resume)
    annotate = hint_annotator(recipe.hint, device)
    hints_of(recipe, pictures, annotate)  # raises now for a file that is not there
    for frozen in (autoencoder, unet, *model.text_towers):
        prepare(frozen, recipe.optim, device)
        frozen.requires_grad_(False).eval()
    say(f"ControlNet: {describe(control)}; it steers a U-Net of {describe(unet)}.")

    cache = latents_of(
        autoencoder, pictures, recipe.data, recipe.latents or recipe.output / "latents", device
    )
    hints = hints_of(recipe, cache.pictures, annotate)
    batches = LatentBatches(
        cache, recipe.loop.batch_size, *scale_of(autoencoder), beside={HINT: Each(Pictures(hints))}
    )
    steered = Controlled(unet, [Steering(control, even_weights(control, 1.0))])
    scheduler = model.scheduler
    dtype = autocast_dtype(recipe.optim.precision, device)
    denoiser = Denoiser(steered, scheduler.parameterization(), scheduler.schedule(), dtype)
    plain = Denoiser(unet, scheduler.parameterization(), scheduler.schedule(), dtype)
    task = LatentTask(
        {"control": control},
        denoiser,
        condition,
        latent_objective(recipe.objective, denoiser),
        {HINT: Dropped(as_hint)},
    )
    with torch.no_grad():
        null = null_of(model, recipe.data.size)
    shown = Steered(denoiser, plain, scheduler, condition, null, autoencoder)
    preview = control_preview(shown, recipe.preview, cache, hints)

    def export(step: int) -> None:
        write_controlnet(recipe.output / MODEL, control)

    return train_by(
        recipe,
        task,
        batches.batch,
        preview,
        export,
        device=device,
        resume=resume,
        basis=basis,
    )


def begun(recipe: ControlRecipe, model: Folder) -> ControlNet:
    """The ControlNet as its training begins: a new one, or the one that the recipe goes on from.

    Raises `SafelightError` if it cannot be built or read, or is for another kind of model.
    """
    if recipe.start is None:
        try:
            return planned(recipe.control, model.unet, model.autoencoder.factor)
        except ValueError as error:
            raise SafelightError(f"[control] cannot be built: {error}") from error
    if not recipe.start.exists():
        raise SafelightError(f"There is no ControlNet to go on from at {recipe.start}.")
    control = read_control(recipe.start, model.unet)
    if not isinstance(control, ControlNet):
        raise SafelightError(f"{recipe.start} is no ControlNet, which a training could go on from.")
    check_model(str(recipe.start), control, model, str(recipe.base))
    return own_memory(control)


def hint_annotator(hint: HintConfig, device: torch.device) -> Annotate | None:
    """What makes the hints of a recipe, read once; None where a column names them.

    Raises `SafelightError` for an unknown annotator or option, or weights that are missing, those
    of another network, or not wanted.
    """
    if hint.annotator is None:
        return None
    make = annotator(hint.annotator, hint.options, weights=hint.weights, device=str(device))
    return on_levels(make)


def hints_of(
    recipe: ControlRecipe, pictures: PictureFolder, annotate: Annotate | None
) -> Companions:
    """The hints of a recipe's pictures; `SafelightError` for a picture without one."""
    if annotate is not None:
        return Companions(pictures, recipe.data, annotate=annotate)
    return Companions(pictures, recipe.data, column=recipe.hint.column or "")
