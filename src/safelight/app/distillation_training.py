"""Runs recipes of distillation: a student that needs few steps, from a teacher that needs many."""

import copy
from dataclasses import dataclass

import torch

from safelight.app.adversarial_parts import viewer_of
from safelight.app.control_parts import captions_to_conditioning, null_of
from safelight.app.distillation_parts import (
    Pupil,
    pupil_of,
    student_folder,
    student_scheduler,
    teachable,
    write_student,
)
from safelight.app.distillation_preview import Shown, distillation_preview
from safelight.app.latent_training import latents_of, scale_of
from safelight.app.recipe import DistillationRecipe
from safelight.app.recipe_distillation import check_base
from safelight.app.running import (
    MODEL,
    check_sizes,
    choose_device,
    describe,
    say,
    seeded,
    train_by,
)
from safelight.app.training_basis import check_basis, distillation_basis
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.data.folders import gather
from safelight.data.latents import LatentBatches
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.models.unet import UNet
from safelight.train.adversarial_reals import teacher_samples
from safelight.train.adversarial_task import AdversarialTask, Judge
from safelight.train.consistency_task import ConsistencyTask, Trio
from safelight.train.distillation import Told, by_itself, by_teacher, follow
from safelight.train.fresh import fresh_in
from safelight.train.latent_task import ObjectiveConfig, latent_objective
from safelight.train.loop import Outcome
from safelight.train.matching_task import (
    GuidanceTask,
    ProgressiveTask,
    round_at,
    round_length,
)
from safelight.train.optim import autocast_dtype, prepare
from safelight.train.task import Phase, Task
from safelight.types import Network


def train_distillation(recipe: DistillationRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "distill"; errors as `training.run_recipe`."""
    device, config = choose_device(recipe.device), recipe.distillation
    pictures = gather(recipe.data)
    say(f"Data: {pictures.summary()}.")
    model = teachable(recipe.base)
    condition = captions_to_conditioning(model, recipe.data)
    autoencoder = model.autoencoder
    check_sizes(recipe.data, autoencoder.factor)
    basis = distillation_basis(model, config, recipe.lora, recipe.loop.steps)
    check_base(config, recipe.base, model.unet.config, lora=recipe.lora is not None)
    student_scheduler(config, model.scheduler, config.steps)  # raises now
    with seeded(recipe.loop.seed):
        pupil = pupil_of(recipe, model)
    check_basis(recipe.output, basis, resume=resume)
    for frozen in (autoencoder, *pupil.frozen, *model.text_towers):
        prepare(frozen, recipe.optim, device)
        frozen.requires_grad_(False).eval()
    pupil.trained.requires_grad_(True)  # a LoRA is within what is frozen
    say(f"Student: {describe(pupil.trained)} to train, of a U-Net of {describe(pupil.unet)}.")

    dtype = autocast_dtype(recipe.optim.precision, device)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        told = Told(condition, null_of(model, recipe.data.size), dtype)
    taught = Taught(recipe, model, pupil, told, device)
    task = taught.task()
    cache = latents_of(
        autoencoder, pictures, recipe.data, recipe.latents or recipe.output / "latents", device
    )
    batches = LatentBatches(cache, recipe.loop.batch_size, *scale_of(autoencoder))
    shown = Shown(
        by_teacher(taught.denoiser(pupil.teacher), model.unet.config),
        by_itself(taught.denoiser(pupil.unet), pupil.unet.config),
        model.scheduler,
        told,
        autoencoder,
        config.scale,
    )

    def folder_at(step: int) -> Folder:
        return student_folder(config, model, pupil, steps_at(recipe, step), recipe.data.size)

    preview = distillation_preview(shown, recipe.preview, cache, folder_at)

    def export(step: int) -> None:
        write_student(recipe, folder_at(step), pupil, recipe.output / MODEL)

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


def steps_at(recipe: DistillationRecipe, step: int) -> int:
    """How many steps the student is for once `step` steps of training are done."""
    config = recipe.distillation
    if config.method != "progressive":
        return config.steps
    length = round_length(recipe.loop.steps, config.rounds)
    return config.teacher_steps >> (1 + round_at(max(step - 1, 0), length, config.rounds))


@dataclass(frozen=True)
class Taught:
    """A recipe's teacher and student, from which the objective of its method is made."""

    recipe: DistillationRecipe
    model: Folder
    pupil: Pupil
    told: Told
    device: torch.device

    def task(self) -> Task:
        """The objective of the recipe's method."""
        match self.recipe.distillation.method:
            case "lcm" | "tcd":
                return self._consistency()
            case "guidance":
                return self._guidance()
            case "progressive":
                return self._progressive()
            case "adversarial":
                return self._adversarial()

    def denoiser(self, network: Network) -> Denoiser:
        """A network as the student's scheduler takes it."""
        scheduler = self._scheduler
        return Denoiser(
            network, scheduler.parameterization(), scheduler.schedule(), self.told.dtype
        )

    @property
    def _scheduler(self) -> SchedulerConfig:
        config = self.recipe.distillation
        return student_scheduler(config, self.model.scheduler, config.steps)

    @property
    def _main(self) -> Phase:
        if self.pupil.deltas is not None:
            return Phase({"lora": self.pupil.trained})
        fresh = fresh_in(self.pupil.unet, self.model.unet)  # the embedding of the guidance scale
        return Phase({"unet": self.pupil.trained}, fresh=fresh)

    def _consistency(self) -> Task:
        config, pupil = self.recipe.distillation, self.pupil
        phases, target = {"main": self._main}, pupil.unet
        averaged = config.target_decay > 0 and pupil.deltas is None
        if averaged:
            target, phases["target"] = self._follower()
        trio = Trio(
            by_itself(self.denoiser(pupil.unet), pupil.unet.config),
            by_itself(self.denoiser(target), target.config),
            by_teacher(self.denoiser(pupil.teacher), self.model.unet.config),
        )

        def move() -> None:
            if averaged:
                follow(target, pupil.unet, config.target_decay)

        return ConsistencyTask(phases, trio, self.told, self._table(), config, move)

    def _guidance(self) -> Task:
        pupil, denoiser = self.pupil, self.denoiser(self.pupil.unet)
        return GuidanceTask(
            {"main": self._main},
            by_itself(denoiser, pupil.unet.config),
            by_teacher(self.denoiser(pupil.teacher), self.model.unet.config),
            self.told,
            denoiser.parameterization,
            latent_objective(ObjectiveConfig(), denoiser).sigmas,
            self.recipe.distillation,
        )

    def _progressive(self) -> Task:
        recipe, pupil = self.recipe, self.pupil
        former, kept = self._follower()
        return ProgressiveTask(
            {"main": self._main, "former": kept},
            by_itself(self.denoiser(pupil.unet), pupil.unet.config),
            (
                by_teacher(self.denoiser(pupil.teacher), self.model.unet.config),
                by_itself(self.denoiser(former), former.config),
            ),
            self.told,
            self._table(),
            recipe.distillation,
            round_length(recipe.loop.steps, recipe.distillation.rounds),
            lambda: follow(former, pupil.unet, 0.0),
        )

    def _adversarial(self) -> Task:
        recipe, pupil = self.recipe, self.pupil
        config, adversarial, scheduler = recipe.distillation, recipe.adversarial, self._scheduler
        student, frozen = self.denoiser(pupil.unet), self.denoiser(pupil.teacher)
        teacher = by_teacher(frozen, self.model.unet.config)
        viewer = viewer_of(recipe, self.model, pupil, frozen, self.device)
        sampled = adversarial.real == "teacher"
        with seeded(recipe.loop.seed):
            return AdversarialTask(
                {"main": self._main},
                student,
                Judge(teacher, latent_objective(ObjectiveConfig(), frozen).sigmas),
                self.told,
                viewer,
                scheduler.sigmas(config.steps)[:-1],
                (config, adversarial),
                teacher_samples(teacher, scheduler.sigmas(config.teacher_steps))
                if sampled
                else None,
            )

    def _follower(self) -> tuple[UNet, Phase]:
        """A copy of the student that follows it, and a phase of it, so that it is resumed."""
        unet = copy.deepcopy(self.pupil.unet).requires_grad_(False)
        return unet, Phase({"unet": unet}, averaged=False)

    def _table(self) -> DiscreteSchedule:
        schedule = self._scheduler.schedule()
        assert isinstance(schedule, DiscreteSchedule)  # which `student_scheduler` sees to
        return schedule
