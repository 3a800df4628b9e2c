"""Which keys of a recipe of distillation go with its method, and which with its base."""

from pathlib import Path

from safelight.checkpoints.lora_file import LoraConfig
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig
from safelight.train.adversarial_task import AdversarialConfig
from safelight.train.distillation import DistillationConfig


def check_keys(
    config: DistillationConfig,
    adversarial: AdversarialConfig,
    features: str | None,
    lora: LoraConfig | None,
    *,
    recompute: bool,
) -> None:
    """Raises `SafelightError` for parts of a recipe that do not go together, and for a key that
    would change nothing.
    """
    if lora is not None and config.method == "progressive":
        raise SafelightError(
            'distillation.method = "progressive" makes each student the next one\'s teacher, '
            "and takes the whole model; leave [lora] out."
        )
    if config.method == "adversarial":
        adversarial.chances_of(config.steps)
        if lora is not None and recompute and features is None:
            raise SafelightError(
                "optim.recompute would run the teacher with the student's LoRA in it; leave it "
                "out, leave [lora] out, or choose features."
            )
    elif features is not None or adversarial != AdversarialConfig():
        raise SafelightError(
            'features and [adversarial] are of distillation.method = "adversarial"; leave '
            f"them out, this method is {config.method!r}."
        )
    _check_used(config, adversarial, features, lora)


def check_base(config: DistillationConfig, base: Path, unet: UNetConfig, *, lora: bool) -> None:
    """Raises `SafelightError` for a base that is told its scale of guidance already, where the
    method has nothing more to teach it, or where another width is asked for.
    """
    own, default = unet.guidance_dim, DistillationConfig.guidance_dim
    if own is None:
        return
    if config.method == "guidance":
        raise SafelightError(
            f"{base} is told its scale of guidance and answers in one call already; choose another "
            'distillation.method than "guidance", or a base that is guided by two calls.'
        )
    if not lora and config.guidance_dim not in (own, default):
        raise SafelightError(
            f"{base} is told its scale of guidance by {own} features, which stay; leave "
            f"distillation.guidance_dim = {config.guidance_dim} out."
        )


def _check_used(
    config: DistillationConfig,
    adversarial: AdversarialConfig,
    features: str | None,
    lora: LoraConfig | None,
) -> None:
    method = config.method
    consistent = method in ("lcm", "tcd")
    asks_teacher = method == "adversarial" and adversarial.real == "teacher"
    told = method != "adversarial" and lora is None
    rows = (
        (("times", "loss"), consistent, 'methods "lcm" and "tcd"'),
        (("huber_c",), consistent and config.loss == "huber", 'loss = "huber" of "lcm" and "tcd"'),
        (("target_decay",), consistent and lora is None, '"lcm" and "tcd" without [lora]'),
        (
            ("teacher_steps",),
            method == "progressive" or asks_teacher,
            'method "progressive", and adversarial.real = "teacher"',
        ),
        (
            ("guidance_dim",),
            told,
            "a student that is told its scale, as neither a LoRA nor an adversarial one is",
        ),
    )
    for names, used, by in rows:
        for name in names:
            if not used and getattr(config, name) != getattr(DistillationConfig, name):
                raise _unused(f"distillation.{name}", by)
    rows = (
        (("blocks", "mean", "std"), features is None, "an adversary in latents, without features"),
        (("told_picture",), method != "adversarial" or features is not None, "features"),
    )
    for names, used, by in rows:
        for name in names:
            if not used and getattr(adversarial, name) != getattr(AdversarialConfig, name):
                raise _unused(f"adversarial.{name}", by)


def _unused(key: str, by: str) -> SafelightError:
    return SafelightError(f"{key} would change nothing here, it is of {by}; leave it out.")
