"""What a training stands on: what it must find unchanged when it is resumed."""

import hashlib
import json
from pathlib import Path
from typing import cast

from safelight.app.recipe import AutoencoderRecipe, VQRecipe
from safelight.checkpoints.files import sha256_of_state
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.lora_file import LoraConfig
from safelight.conditioners.conditions import Conditions
from safelight.config import Value, to_dict
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.any_text import AnyTokenizer
from safelight.models.autoencoder import Autoencoder
from safelight.models.classes import ClassReader
from safelight.models.controlnet import ControlNet
from safelight.models.tiny import TinyAutoencoder
from safelight.models.video import VideoUNet, new_parameters
from safelight.models.vq import VQAutoencoder
from safelight.train.checkpoint import Basis, to_go_on_from
from safelight.train.distillation import DistillationConfig

_SINCE = (("self_attention", False),)  # what trainings begun before do not say, as it was then
_FREE = {"sample_size", "scaling_factor", "shift_factor", "force_upcast"}
"""What may change without harm to what is read."""


def autoencoder_basis(
    recipe: AutoencoderRecipe | VQRecipe, autoencoder: Autoencoder | VQAutoencoder
) -> dict[str, Value]:
    """The shape of the autoencoder, and the weights that it went on from, if any."""
    basis: dict[str, Value] = {"kind": recipe.kind, "model": _shape(autoencoder.config)}
    if recipe.base is not None:
        basis["base"] = sha256_of_state(autoencoder.state_dict())
    return basis


def tiny_basis(tiny: TinyAutoencoder, teacher: AnyAutoencoder) -> dict[str, Value]:
    """The shape of a tiny autoencoder, and the weights of the one that it stands in for."""
    return {
        "kind": "tiny",
        "model": _shape(tiny.config),
        "base": sha256_of_state(teacher.state_dict()),
        "base_shape": _shape(teacher.config),
    }


def latent_basis(model: Folder, *, text_trained: bool) -> dict[str, Value]:
    """Weights and shape of the autoencoder, the vocabulary, the shapes of what is trained, what the
    U-Net predicts; and the text tower's weights, if they are not trained.
    """
    (tower,), (tokenizer,) = model.text_towers, model.tokenizers
    basis: dict[str, Value] = {
        "autoencoder": sha256_of_state(model.autoencoder.state_dict()),
        "autoencoder_shape": _shape(model.autoencoder.config),
        "tokenizer": _hash_of(tokenizer),
        "unet": _shape(model.unet.config),
        "text_tower": _shape(tower.config),
        "prediction": model.scheduler.prediction,
        "levels": model.scheduler.levels,
        "sigma_data": model.scheduler.sigma_data,
    }
    if model.beside.conditions:
        basis |= Conditions(model.beside.conditions).to_values()
    if not text_trained:
        basis["text_tower_weights"] = sha256_of_state(tower.state_dict())
    return basis


def control_basis(model: Folder, control: ControlNet, *, started: bool) -> dict[str, Value]:
    """The weights of the model that is steered, all of it, and the shape of what steers; and its
    weights, where it did not begin anew.
    """
    basis = {**_whole(model), "control": _shape(control.shape)}
    return {**basis, "start": sha256_of_state(control.state_dict())} if started else basis


def distillation_basis(
    model: Folder, config: DistillationConfig, lora: LoraConfig | None, steps: int
) -> dict[str, Value]:
    """The weights and noise levels of the teacher, all of it, the method, and the shape of the
    student; where a training of so many steps has rounds, how long they are, and from how many
    steps to how few they lead.
    """
    progressive, shape = config.method == "progressive", None
    if lora is not None:
        alpha = float(lora.rank) if lora.alpha is None else lora.alpha
        shape: Value = {"rank": lora.rank, "alpha": alpha, "targets": list(lora.targets)}
    return {
        **_whole(model),
        "method": config.method,
        "guidance_dim": config.told_dim,
        "lora": shape,
        "round_steps": steps // config.rounds if progressive else None,
        "halved": [config.teacher_steps, config.steps] if progressive else None,
        "noise_levels": _hash_of_levels(model),
    }


def video_basis(model: Folder, *, trained: str, shift: float, scale: float) -> dict[str, Value]:
    """The weights around the U-Net of a video model, how latents are shifted, scaled and noised,
    the shape of the U-Net, and, where the layers of pictures stay as they are (`trained`
    "temporal"), their weights.
    """
    unet, (tower,), (tokenizer,) = model.unet, model.text_towers, model.tokenizers
    assert isinstance(unet, VideoUNet)
    basis: dict[str, Value] = {
        "autoencoder": sha256_of_state(model.autoencoder.state_dict()),
        "autoencoder_shape": _shape(model.autoencoder.config),
        "latents": [shift, scale],
        "text_tower_weights": sha256_of_state(tower.state_dict()),
        "tokenizer": _hash_of(tokenizer),
        "unet": _shape(unet.config),
        "temporal": to_dict(unet.temporal),
        "prediction": model.scheduler.prediction,
        "levels": model.scheduler.levels,
        "sigma_data": model.scheduler.sigma_data,
        "noise_levels": _hash_of_levels(model),
        "layers": trained,
    }
    if trained == "temporal":
        new = {*new_parameters(unet), "conv_in.weight"}
        state = unet.state_dict()
        basis["pictures"] = sha256_of_state({k: v for k, v in state.items() if k not in new})
    return basis


def _whole(model: Folder) -> dict[str, Value]:
    return {
        "autoencoder": sha256_of_state(model.autoencoder.state_dict()),
        "unet": sha256_of_state(model.unet.state_dict()),
        "text_towers": [sha256_of_state(tower.state_dict()) for tower in model.text_towers],
        "tokenizers": [_hash_of(tokenizer) for tokenizer in model.tokenizers],
        "prediction": model.scheduler.prediction,
        "levels": model.scheduler.levels,
    }


def check_basis(output: Path, basis: Basis, *, resume: bool) -> Basis:
    """What the training in a folder stood on so far, empty if none is there or it did not say.

    Raises `SafelightError` if that is not `basis`, or if the folder is in use without `resume`.
    """
    former, _ = to_go_on_from(output, resume=resume)
    if former is None:
        return {}
    former.check(basis)
    return former.basis


def _shape(config: object) -> dict[str, Value]:
    said = to_dict(config).items()
    return {k: value for k, value in said if k not in _FREE and (k, value) not in _SINCE}


def _hash_of_levels(model: Folder) -> str | None:
    """Of a table of noise levels, to six digits, which every machine computes alike."""
    schedule = model.scheduler.schedule()
    if not isinstance(schedule, DiscreteSchedule):
        return None
    sigmas = cast(list[float], schedule.sigmas.tolist())
    text = " ".join(f"{sigma:.6g}" for sigma in sigmas)
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_of(tokenizer: AnyTokenizer) -> str:
    if isinstance(tokenizer, ClassReader):
        raise SafelightError("A model of classes cannot be trained; expected one of prompts.")
    ids = sorted(tokenizer.tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps([tokenizer.length, tokenizer.pad, ids]).encode()).hexdigest()
