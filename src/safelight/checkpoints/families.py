"""What Stability's and CompVis' single files are, by the names of their tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.files import State
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.tables.video import SVD_PIPELINE
from safelight.checkpoints.vision import UNCLIP as UNCLIP_PIPELINE
from safelight.config import Value
from safelight.errors import SafelightError

BERT = "LDMTextToImagePipeline"
"""CompVis' first text-to-image model, whose parts have names of their own in diffusers."""
CONTROL = "control_model."
"""Before the names of a ControlNet, which may lie beside the model that it steers."""
UNET, VAE = "model.diffusion_model.", "first_stage_model."
SPREAD = "noise_augmentor.data_"
"""Where our files keep the mean and spread of a picture's vectors, which published ones leave out.
"""


@dataclass(frozen=True)
class TextPart:
    """Where a text tower lies in a file, and in whose layout."""

    prefix: str
    open_clip: bool
    mark: str = ""  # the beginning of a name behind the prefix that no other family has


@dataclass(frozen=True)
class Family:
    """A kind of file: its text towers, and what it was published with that left no trace."""

    name: str
    pipeline: str
    text: tuple[TextPart, ...]
    latent_scale: float
    latent_size: int
    context: int  # width of the published U-Nets' context
    scheduler: SchedulerConfig
    xl: bool = False
    penultimate: bool = False  # its U-Net reads the text tower's last but one state
    in_channels: int | None = None  # of its U-Net, where that tells it from another family
    vision: str = ""  # the prefix of its image tower, if it has one
    settings: Mapping[str, Value] = field(default_factory=dict[str, Value])


_PNDM = SchedulerConfig(class_name="PNDMScheduler", set_alpha_to_one=False)
_EULER = SchedulerConfig(class_name="EulerDiscreteScheduler", timestep_spacing="leading")
SD1 = Family(
    "Stable Diffusion 1.x",
    "StableDiffusionPipeline",
    (TextPart("cond_stage_model.transformer.", False),),
    0.18215,
    64,
    768,
    _PNDM,
)
SD2 = Family(
    "Stable Diffusion 2.x",
    "StableDiffusionPipeline",
    (TextPart("cond_stage_model.model.", True),),
    0.18215,
    64,
    1024,
    _PNDM,
    penultimate=True,
)
UPSCALER = replace(
    SD2,
    name="Stable Diffusion's x4 upscaler",
    pipeline="StableDiffusionUpscalePipeline",
    latent_scale=0.08333,
    latent_size=128,
    in_channels=7,
    scheduler=SchedulerConfig(
        class_name="DDIMScheduler",
        beta_start=0.0001,
        beta_end=0.02,
        prediction_type="v_prediction",
        set_alpha_to_one=False,
    ),
)
UNCLIP = replace(
    SD2,
    name="Stable unCLIP",
    pipeline=UNCLIP_PIPELINE,
    latent_size=96,
    vision="embedder.model.visual.",
    scheduler=SchedulerConfig(
        class_name="DDIMScheduler", prediction_type="v_prediction", set_alpha_to_one=False
    ),
)
XL = Family(
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    (
        TextPart("conditioner.embedders.0.transformer.", False),
        TextPart("conditioner.embedders.1.model.", True),
    ),
    0.13025,
    128,
    2048,
    _EULER,
    xl=True,
    settings={"force_zeros_for_empty_prompt": True},
)
REFINER = Family(
    "the refiner of Stable Diffusion XL",
    "StableDiffusionXLImg2ImgPipeline",
    (TextPart("conditioner.embedders.0.model.", True),),
    0.13025,
    128,
    1280,
    _EULER,
    xl=True,
    settings={"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
)
BERT_TEXT = Family(
    "CompVis' first text-to-image model",
    BERT,
    (TextPart("cond_stage_model.transformer.", False, "token_emb."),),
    0.18215,
    32,
    1280,
    SchedulerConfig(class_name="DDIMScheduler", set_alpha_to_one=False),
)
CLASSES = Family(
    "CompVis' class-conditional model",
    "LatentDiffusion",
    (TextPart("cond_stage_model.", False, "embedding.weight"),),
    1.0,
    64,
    512,
    SchedulerConfig(
        class_name="DDIMScheduler", beta_start=0.0015, beta_end=0.0195, set_alpha_to_one=False
    ),
)
SVD = Family(
    "Stable Video Diffusion",
    SVD_PIPELINE,
    (),
    0.18215,
    96,
    1024,
    SchedulerConfig(
        class_name="EulerDiscreteScheduler",
        prediction_type="v_prediction",
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_max=700.0,
    ),
    vision="conditioner.embedders.0.open_clip.model.visual.",
)
_FAMILIES = (SVD, XL, REFINER, UPSCALER, UNCLIP, SD2, BERT_TEXT, SD1, CLASSES)
_BY_CHANNELS = {
    (5, False): "StableDiffusionDepth2ImgPipeline",
    (8, False): "StableDiffusionInstructPix2PixPipeline",
    (9, False): "StableDiffusionInpaintPipeline",
    (8, True): "StableDiffusionXLInstructPix2PixPipeline",
    (9, True): "StableDiffusionXLInpaintPipeline",
}
_DROPPED = (
    *("model_ema.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar"),
    *("lvlb_weights", "denoiser.sigmas", "embedding_manager.", "scale_factor", "global_step"),
    *("depth_model.", "low_scale_model."),  # the depth is given, the noise on small pictures known
    *("embedder.model.logit_scale", "embedder.model.text_projection", "embedder.model.ln_final."),
    *("embedder.model.positional_embedding", "embedder.model.token_embedding."),
    *("noise_augmentor.betas", "noise_augmentor.alphas_", "noise_augmentor.sqrt_"),
    *("noise_augmentor.log_one_minus_",),
    *("conditioner.embedders.0.open_clip.", "conditioner.embedders.3."),  # all but its tower
    *("v_pred", "ztsnr", "cond_stage_model.logit_scale", "conditioner.embedders.0.logit_scale"),
)
"""Beginnings of names that carry no weights of use: averages, schedules, marks, leftovers."""
_TWO_PICTURES = 6  # channels
_VELOCITY_BIAS = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_VELOCITY_SPREAD = 0.09
_LATENT_SIZE_OF_768_V = 96


def family_of(state: Mapping[str, Tensor], source: str) -> Family:
    """The family of a file; `SafelightError` that says what it is if it is not a whole model."""
    channels = in_channels_of(state)
    control = next((key for key in state if key.startswith(CONTROL)), None)
    if control is not None and any(key.startswith(UNET) for key in state):
        raise SafelightError(
            f"{source} holds a ControlNet ({control}) beside a model; give it as the network of a "
            "control, and the model by itself."
        )
    for family in _FAMILIES if control is None else ():
        prefixes = [UNET, VAE, *(part.prefix + part.mark for part in family.text), family.vision]
        complete = all(any(key.startswith(prefix) for key in state) for prefix in prefixes)
        if complete and family.in_channels in (None, channels):
            return family
    raise SafelightError(
        f"{source} is {describe_state(state)}; expected a whole text-to-image model of Stable "
        "Diffusion's family: a U-Net, an autoencoder and a text tower."
    )


def in_channels_of(state: Mapping[str, Tensor]) -> int:
    """How many channels the U-Net of a file takes; 4 where it does not show."""
    first = state.get(f"{UNET}input_blocks.0.0.weight")
    return 4 if first is None or first.ndim < 2 else first.shape[1]


def is_super_resolution(state: Mapping[str, Tensor]) -> bool:
    """Whether a file is CompVis' super-resolution: three channels of latents beside three of a
    picture, and attention without context.
    """
    attends = any(key.startswith(UNET) and key.endswith(".qkv.weight") for key in state)
    coded = any(key.startswith(VAE) for key in state)
    return attends and coded and in_channels_of(state) == _TWO_PICTURES


def split(state: Mapping[str, Tensor], family: Family, source: str) -> dict[str, State]:
    """The tensors of each part, by its prefix and without it.

    Raises `SafelightError` for a name that belongs to no part and is not known to carry nothing.
    """
    parts: dict[str, State] = {part.prefix: {} for part in family.text} | {UNET: {}, VAE: {}}
    if family.vision:
        parts |= {family.vision: {}, SPREAD: {}}
    for key, tensor in state.items():
        prefix = next((prefix for prefix in parts if key.startswith(prefix)), None)
        if prefix is not None:
            parts[prefix][key.removeprefix(prefix)] = tensor
        elif not key.startswith(_DROPPED):
            raise SafelightError(
                f"{source} holds {key!r}, which is no part of a {family.pipeline}."
            )
    return parts


def pipeline_of(family: Family, in_channels: int) -> str:
    """diffusers' pipeline for a U-Net of that many channels."""
    return _BY_CHANNELS.get((in_channels, family.xl), family.pipeline)


def latent_size_of(family: Family, scheduler: SchedulerConfig) -> int:
    """The height and width of the latents that a model of that family was trained on.

    Stable Diffusion 2.x that predicts v was published for 768 pixels, and for 512 otherwise; its
    U-Net is the same.
    """
    velocity = scheduler.prediction == "v_prediction"
    return _LATENT_SIZE_OF_768_V if family is SD2 and velocity else family.latent_size


def marks_of(scheduler: SchedulerConfig) -> State:
    """The tensors by whose names ComfyUI and A1111's web UI know a model that predicts v."""
    if scheduler.levels != "betas" or scheduler.prediction != "v_prediction":
        return {}
    names = ("v_pred", "ztsnr") if scheduler.rescale_betas_zero_snr else ("v_pred",)
    return {name: torch.ones(1) for name in names}


def scheduler_of(
    family: Family, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> SchedulerConfig:
    """The noise schedule that a file was published with.

    A model that predicts v shows in a tensor or a text entry that some trainers leave, or, in
    Stable Diffusion 2.x, in the spread of one bias, as ComfyUI has found.
    """
    bias = state.get(_VELOCITY_BIAS) if family is SD2 else None
    spread = 0.0 if bias is None else bias.float().std(correction=0).item()
    said = metadata.get("modelspec.prediction_type") == "v"
    if not said and "v_pred" not in state and not spread > _VELOCITY_SPREAD:
        return family.scheduler
    return replace(
        family.scheduler,
        class_name=family.scheduler.class_name if family.xl else "DDIMScheduler",
        prediction_type="v_prediction",
        rescale_betas_zero_snr="ztsnr" in state,
    )
