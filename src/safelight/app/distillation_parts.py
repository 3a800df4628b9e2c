"""What a distillation is made of: the teacher, the student, and the folder or file it leaves."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from safelight.app.recipe import DistillationRecipe
from safelight.app.running import open_whole
from safelight.checkpoints.folder import Defaults, Folder, write_folder
from safelight.checkpoints.lora_file import inject_fresh
from safelight.checkpoints.model import write_upon
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.solvers import PURE_NOISE
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.models.widening import told_guidance
from safelight.nn.deltas import LowRank
from safelight.nn.lora import silenced
from safelight.pipelines.kind import kind_of
from safelight.train.distillation import DistillationConfig
from safelight.types import Conditioning


def teachable(path: Path) -> Folder:
    """The model at `path`, which makes pictures from a prompt alone, guided by two calls or told
    its scale.

    Raises `SafelightError` for one that takes more than these.
    """
    model = open_whole(path)
    kind = kind_of(model, str(path))
    if (
        kind.beside != "nothing"
        or kind.sees != "nothing"
        or not model.text_towers
        or model.beside.conditions
    ):
        raise SafelightError(
            f"{path} is a {model.pipeline_class} that takes more than a prompt; a model can be "
            "distilled that makes pictures from a prompt alone."
        )
    return model


class Silent:
    """A U-Net as if no LoRA were in it: the teacher of its own LoRA, at no more memory."""

    def __init__(self, unet: UNet):
        self._unet = unet

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """The output of the U-Net without what is added to it."""
        with silenced(self._unet):
            return self._unet(x, t, cond)

    def maps(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning, *, up: bool
    ) -> list[Tensor]:
        """The maps of the U-Net without what is added to it."""
        with silenced(self._unet):
            return self._unet.maps(x, t, cond, up=up)


@dataclass(frozen=True)
class Pupil:
    """The student: the U-Net that answers, what of it is trained, the network that teaches it, and
    what is added to its layers, if the U-Net is the teacher's own with a LoRA in it.
    """

    unet: UNet
    trained: nn.Module
    teacher: UNet | Silent
    deltas: Mapping[str, LowRank] | None = None

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The U-Nets that are not trained."""
        if self.deltas is not None:
            return (self.unet,)
        return (self.teacher,) if isinstance(self.teacher, nn.Module) else ()


def pupil_of(recipe: DistillationRecipe, model: Folder) -> Pupil:
    """The student of a recipe, whose output is at first that of the model."""
    unet = model.unet
    if recipe.lora is not None:
        unet.requires_grad_(False)
        deltas = inject_fresh(unet, recipe.lora)
        trained = nn.ModuleDict({path.replace(".", "/"): delta for path, delta in deltas.items()})
        return Pupil(unet, trained, Silent(unet), deltas)
    dim = recipe.distillation.told_dim
    student = told_guidance(unet, dim) if dim else copy.deepcopy(unet)
    return Pupil(student, student, unet)


def student_scheduler(
    config: DistillationConfig, scheduler: SchedulerConfig, steps: int
) -> SchedulerConfig:
    """The scheduler of the student, by which it makes pictures in so many steps: LCM's, TCD's,
    DDIM's or Euler's (SDXL-Turbo's) at trailing times, or, of guidance alone, the teacher's own.

    Raises `SafelightError` if the method does not go with the model's noise levels, and for a
    student that predicts the noise but begins where nothing else is.
    """
    if config.method == "guidance":
        return scheduler
    if not isinstance(scheduler.schedule(), DiscreteSchedule):
        raise SafelightError(
            f"distillation.method = {config.method!r} goes with a model whose noise levels are a "
            f'table of betas, and these are a {scheduler.levels}; only method = "guidance" does.'
        )
    sampler = _SAMPLERS.get(config.method, config.method)
    student = replace(
        scheduler.with_sampler(sampler),
        original_inference_steps=config.times,
        timestep_spacing="trailing" if config.method in _SAMPLERS else None,
        set_alpha_to_one=True,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
    )
    highest = student.sigmas(steps)[:1]  # raises now for more steps than are taught
    if student.parameterization()(highest).c_out.abs().item() > PURE_NOISE:
        raise SafelightError(
            "A student that predicts the noise learns nothing where x is noise alone, as this "
            'model\'s last time is; take a base with prediction_type = "v_prediction", one without '
            'rescale_betas_zero_snr, or distillation.method = "guidance".'
        )
    return student


_SAMPLERS = {"progressive": "ddim", "adversarial": "euler_a"}
"""What samples at trailing times; other methods have a sampler of their name."""


def student_folder(
    config: DistillationConfig, model: Folder, pupil: Pupil, steps: int, size: int
) -> Folder:
    """The model with the student in the teacher's place, and how that is best used."""
    scheduler = student_scheduler(config, model.scheduler, steps)
    former, kind = model.defaults, kind_of(model, "the base")
    scale = kind.scale if former.scale is None else former.scale
    told = pupil.unet.config.guidance_dim is not None
    keeps_steps = config.method == "guidance"
    defaults = Defaults(
        sampler=former.sampler if keeps_steps else scheduler.sampler,
        steps=former.steps if keeps_steps else steps,
        scale=min(max(scale, config.scale[0]), config.scale[1]) if told else 1.0,
        width=former.width or size,
        height=former.height or size,
        control_mode=former.control_mode,
    )
    return replace(model, unet=pupil.unet, scheduler=scheduler, defaults=defaults)


def write_student(recipe: DistillationRecipe, folder: Folder, pupil: Pupil, path: Path) -> None:
    """Writes a student as a model's folder, or as its LoRA and the place of its teacher."""
    if recipe.lora is None or pupil.deltas is None:
        write_folder(path, folder)
    else:
        write_upon(path, recipe.base, folder, pupil.deltas, recipe.lora.layout)
