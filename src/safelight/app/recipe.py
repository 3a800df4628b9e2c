"""Training recipes: strict dataclasses that TOML files fill, one for each kind of training."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast

from safelight.app.recipe_conditions import ConditionConfig
from safelight.app.recipe_distillation import check_keys
from safelight.app.recipe_parts import (
    HintConfig,
    PreviewConfig,
    StillsConfig,
    TextConfig,
    TinyShape,
    check_encoded_once,
)
from safelight.checkpoints.features import EFFICIENTNET
from safelight.checkpoints.folder import Defaults
from safelight.checkpoints.lora_file import LoraConfig
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.config import Value, from_dict, near, override, parse_value, read_toml, to_dict
from safelight.data.clips import ClipsConfig
from safelight.data.config import DataConfig
from safelight.errors import SafelightError
from safelight.models.autoencoder import AutoencoderConfig
from safelight.models.control_plan import ControlPlan
from safelight.models.unet import UNetConfig
from safelight.models.vq import VQConfig
from safelight.pipelines.find import HubId, expanded
from safelight.train.adversarial_task import AdversarialConfig
from safelight.train.autoencoder_task import AutoencoderLossConfig
from safelight.train.distillation import DistillationConfig
from safelight.train.latent_task import ObjectiveConfig
from safelight.train.loop import LoopConfig
from safelight.train.optim import OptimConfig
from safelight.train.video_task import VideoConfig


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Trains a KL autoencoder of shape `model`, or goes on from the one in the folder `base`.

    `features` is the perceptual loss's network: "efficientnet-lite0" from the package of that name,
    or a file of VGG16 weights in torchvision's layout; without it the perceptual loss is left out.
    `held_out` is a folder of pictures that previews and the PSNR in the log are of.
    """

    output: Path
    data: DataConfig
    kind: Literal["autoencoder"] = "autoencoder"
    model: AutoencoderConfig | None = None
    base: Path | None = None
    features: str | None = None
    held_out: Path | None = None
    device: str = "auto"
    loss: AutoencoderLossConfig = field(default_factory=AutoencoderLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class VQRecipe:
    """Trains a VQ autoencoder; otherwise as `AutoencoderRecipe`."""

    output: Path
    data: DataConfig
    kind: Literal["vq"] = "vq"
    model: VQConfig | None = None
    base: Path | None = None
    features: str | None = None
    held_out: Path | None = None
    device: str = "auto"
    loss: AutoencoderLossConfig = field(default_factory=AutoencoderLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class TinyRecipe:
    """Trains a tiny autoencoder that stands in for that of the model, or in the folder, `base`:
    its decoder draws the pictures out of that one's latents, its encoder gives those latents.

    Otherwise as `AutoencoderRecipe`.
    """

    output: Path
    data: DataConfig
    base: Path
    kind: Literal["tiny"] = "tiny"
    model: TinyShape = field(default_factory=TinyShape)
    features: str | None = None
    held_out: Path | None = None
    device: str = "auto"
    loss: AutoencoderLossConfig = field(default_factory=AutoencoderLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class LatentRecipe:
    """Trains a U-Net, and a text tower along with it, on the latents of the autoencoder in the
    folder `autoencoder`; or goes on from the model in the folder `base`, with its own autoencoder
    or with that one, which then should have learned from its.

    Latents are kept in the folder `latents`, by default in the output. Without a base their scale
    is measured, so that they have unit variance. `diffusion` says how much noise there is at
    each time and what the network predicts, in the words of diffusers' scheduler_config.json;
    `defaults` how the finished model is best used. What these leave open is as in the base.

    `conditions` are what the pictures are learned under beside their captions.
    """

    output: Path
    data: DataConfig
    kind: Literal["latent"] = "latent"
    autoencoder: Path | None = None
    base: Path | None = None
    latents: Path | None = None
    unet: UNetConfig | None = None
    conditions: tuple[ConditionConfig, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    diffusion: SchedulerConfig | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    defaults: Defaults = field(default_factory=Defaults)
    device: str = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_encoded_once(self.data, self.kind)
        if self.conditions and self.preview.prompts:
            raise SafelightError(
                "preview.prompts do not go with [[conditions]]: previews are of pictures of the "
                "data, under what these are conditioned on. Leave them out."
            )
        own = dataclasses.replace(self.text, trained=TextConfig.trained)
        if self.base is not None and own != TextConfig():
            raise SafelightError(
                "[text] can only say whether the tower is trained where a base is gone on from; "
                "tower and tokenizer are the base's."
            )


@dataclass(frozen=True)
class ControlRecipe:
    """Trains a ControlNet that steers the model in the folder `base`, which stays as it is.

    `control` says what it is made of: the first half of the base's U-Net copied, or one of fewer
    channels from scratch. With `start` it goes on from another ControlNet, a folder or a file, as
    one of other hints whose places in the U-Net are learned already. Latents are kept in the folder
    `latents`, by default in the output; the ControlNet is written to `model` there.
    """

    output: Path
    data: DataConfig
    base: Path
    hint: HintConfig
    kind: Literal["control"] = "control"
    control: ControlPlan = field(default_factory=ControlPlan)
    start: Path | None = None
    latents: Path | None = None
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(caption_dropout=0.5))
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    device: str = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_encoded_once(self.data, self.kind)
        if self.preview.prompts:
            raise SafelightError(
                "preview.prompts do not go with kind = 'control', whose previews are of pictures "
                "of the data, with their own captions; leave them out."
            )
        if self.start is not None and self.control != ControlPlan():
            raise SafelightError(
                "[control] shapes a new ControlNet, and start names one that is there; leave one "
                "of them out."
            )


@dataclass(frozen=True)
class DistillationRecipe:
    """Distils the model in the folder `base` to a student that needs fewer steps, or fewer calls.

    The student is written to `model` in the output: the whole model, or with `lora` a LoRA for the
    base and models fine-tuned from it. Latents are kept in the folder `latents`, by default in the
    output. Previews show the teacher, guided, above the student. `adversarial` is of that method,
    whose discriminator looks through the teacher, or at pictures through the network `features`: a
    name or file as of an autoencoder's recipe.
    """

    output: Path
    data: DataConfig
    base: Path
    kind: Literal["distill"] = "distill"
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    features: str | None = None
    lora: LoraConfig | None = None
    latents: Path | None = None
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    device: str = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_encoded_once(self.data, self.kind)
        check_keys(
            self.distillation,
            self.adversarial,
            self.features,
            self.lora,
            recompute=self.optim.recompute,
        )


@dataclass(frozen=True)
class VideoRecipe:
    """Trains a video model from the model of pictures in the folder `base`, which gets layers along
    the frames, or goes on from the video model there.

    `data` names folders of clips, which `clips` cuts in time; of `stills` it learns between them,
    where layers of pictures learn along. Latents are kept in the folder `latents`, by default in
    the output. What `diffusion` and `defaults` leave open is as in the base.
    """

    output: Path
    data: DataConfig
    base: Path
    kind: Literal["video"] = "video"
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    stills: StillsConfig | None = None
    latents: Path | None = None
    diffusion: SchedulerConfig | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    preview: PreviewConfig = field(default_factory=lambda: PreviewConfig(columns=4))
    defaults: Defaults = field(default_factory=Defaults)
    device: str = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_encoded_once(self.data, self.kind)
        if self.stills is not None and self.video.layers == "temporal":
            raise SafelightError(
                "[stills] would change nothing, as layers along the frames see clips alone; train "
                'the others along (video.layers = "all"), or leave the stills out.'
            )
        if self.preview.prompts:
            raise SafelightError(
                "preview.prompts do not go with kind = 'video', whose previews are of clips of the "
                "data, with their own captions; leave them out."
            )


Recipe: TypeAlias = (
    AutoencoderRecipe
    | VQRecipe
    | TinyRecipe
    | LatentRecipe
    | ControlRecipe
    | DistillationRecipe
    | VideoRecipe
)
R = TypeVar(
    "R",
    AutoencoderRecipe,
    VQRecipe,
    TinyRecipe,
    LatentRecipe,
    ControlRecipe,
    DistillationRecipe,
    VideoRecipe,
)
KINDS: Mapping[str, type[Recipe]] = {
    "autoencoder": AutoencoderRecipe,
    "vq": VQRecipe,
    "tiny": TinyRecipe,
    "latent": LatentRecipe,
    "control": ControlRecipe,
    "distill": DistillationRecipe,
    "video": VideoRecipe,
}


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a TOML file and overrides such as "optim.lr=1e-4".

    Relative paths in the file are meant from the file's folder, those in overrides from the current
    one.

    Raises `SafelightError` for a file that is not there or not TOML, an unknown kind or key, or a
    value of the wrong type.
    """
    if not path.is_file():
        raise SafelightError(f"No recipe {path}; expected a TOML file.")
    return _made(read_toml(path), overrides, path)


def overridden(recipe: R, overrides: Sequence[str]) -> R:
    """The same recipe with overrides such as "optim.lr=1e-4"; errors as `read_recipe`."""
    changed = _made(to_dict(recipe), overrides, recipe.output / "recipe.toml")
    if not isinstance(changed, type(recipe)):
        raise SafelightError(f"kind stays {recipe.kind!r} here; leave it as it is.")
    return changed


def keys_of(overrides: Sequence[str]) -> set[str]:
    """The dotted keys that overrides change."""
    return {assignment.partition("=")[0].strip() for assignment in overrides}


def _made(values: dict[str, Value], overrides: Sequence[str], path: Path) -> Recipe:
    """A recipe from the values of the file `path`, and overrides."""
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SafelightError(f"Expected KEY=VALUE to override, got {assignment!r}.")
        override(values, key.strip(), parse_value(text.strip()))
    changed = keys_of(overrides)
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SafelightError(f"{path}: unknown kind {kind!r}. {near(str(kind), KINDS)}")
    folder = path.parent.absolute()
    _resolve_network(values, "features", Path.cwd() if "features" in changed else folder)
    for row in cast(list[object], values.get("conditions") or []):
        if isinstance(row, dict):
            base = Path.cwd() if "conditions" in changed else folder
            _resolve_network(cast(dict[str, Value], row), "encoder", base)
    hint = values.get("hint")
    if isinstance(hint, dict) and isinstance(weights := hint.get("weights"), str):
        overriding = any(_covers(key, "hint.weights") for key in changed)
        values["hint"] = {**hint, "weights": _place(weights, Path.cwd() if overriding else folder)}
    try:
        recipe = from_dict(KINDS[kind], values, "")
    except ValueError as error:  # from a configuration whose parts do not fit each other
        raise SafelightError(f"{path}: {error}") from error
    if recipe.optim.cooldown > recipe.loop.steps:
        raise SafelightError(
            f"optim.cooldown is {recipe.optim.cooldown}, longer than the training's "
            f"{recipe.loop.steps} steps (loop.steps); lower it."
        )
    return cast(Recipe, _resolved(recipe, folder, changed, ""))


def _resolve_network(values: dict[str, Value], key: str, folder: Path) -> None:
    """Makes the path of a network absolute, in place; the name of a packaged one stays."""
    named = values.get(key)
    if isinstance(named, str) and named != EFFICIENTNET:
        values[key] = str(folder / Path(named).expanduser())


def changes(old: Mapping[str, Value], new: Mapping[str, Value], at: str = "") -> list[str]:
    """What differs between two recipes' values, as "optim.lr 0.0001 -> 0.00005"."""
    found: list[str] = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        name = f"{at}.{key}" if at else key
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += changes(before, after, name)
        elif before != after:
            found.append(f"{name} {before} -> {after}")
    return found


def _resolved(value: object, folder: Path, overridden: set[str], at: str) -> object:
    """The same configuration with absolute paths."""
    if isinstance(value, Path):
        base = Path.cwd() if any(_covers(key, at) for key in overridden) else folder
        return base / value.expanduser()
    if isinstance(value, tuple):
        items = cast(tuple[object, ...], value)
        return tuple(_resolved(item, folder, overridden, at) for item in items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            f.name: _resolved(
                getattr(value, f.name), folder, overridden, f"{at}.{f.name}".lstrip(".")
            )
            for f in dataclasses.fields(value)
        }
        return dataclasses.replace(cast(typing.Any, value), **parts)
    return value


def _place(name: str, folder: Path) -> str:
    """A path, as from `folder`; a name of the hub, where no such path is, as it is."""
    path = folder / expanded(name)
    return str(path) if path.exists() or HubId.of(name) is None else name


def _covers(key: str, at: str) -> bool:
    return at == key or at.startswith(f"{key}.")
