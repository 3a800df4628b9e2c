"""The controls and the conditions of a picture that is made again."""

from safelight.errors import SafelightError
from safelight.pipelines.condition_settings import Condition, ImagePrompt
from safelight.pipelines.control_settings import Control
from safelight.pipelines.given import GivenPicture, Part, give
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.manifest import Manifest, UsedCondition, UsedControl, UsedPicture
from safelight.pipelines.request import Request


def controls_again(manifest: Manifest) -> tuple[Control, ...]:
    """The controls of then; `SafelightError` if a picture is gone or another."""
    return tuple(_control_again(used) for used in manifest.controls)


def check_controls(manifest: Manifest, pipeline: ImagePipeline) -> None:
    """Raises `SafelightError` naming the control whose network did not make the picture."""
    now = pipeline.read(Request("", controls=controls_again(manifest))).controls
    for then, control in zip(manifest.controls, now, strict=True):
        if then.sha256 != control.sha256:
            raise SafelightError(
                f"The network of control {then.kind} is not the one that made the picture "
                f"({then.sha256[:12]} then, {control.sha256[:12]} now). Put the right one there, "
                "or give --other-weights to go on."
            )


def control_differences(then: Manifest, now: Manifest) -> list[str]:
    """What has changed of networks and of hints, each as "the hint of pose 0af3 -> 92bd"."""
    told: list[str] = []
    for old, new in zip(then.controls, now.controls, strict=False):
        pairs = {"network": (old.sha256, new.sha256), "hint": (old.made, new.made)}
        told += [
            f"the {what} of {old.kind} {before[:12]} -> {after[:12]}"
            for what, (before, after) in pairs.items()
            if before != after
        ]
    return told


def conditions_again(manifest: Manifest) -> tuple[Condition, ...]:
    """The conditions of then; `SafelightError` if a picture is gone or another."""
    return tuple(_condition_again(used) for used in manifest.conditions)


def image_prompts_again(manifest: Manifest) -> tuple[ImagePrompt, ...]:
    """The image prompts of then; `SafelightError` if a picture is gone or another."""
    used = manifest.image_prompts
    if used is None:
        return ()
    prompts: list[ImagePrompt] = []
    for picture, weight in zip(used.pictures, used.weights, strict=True):
        again = picture_again("image", picture, "picture of an image prompt")
        assert again.file is not None
        prompts.append(ImagePrompt(again.file, weight))
    return tuple(prompts)


def see_again(manifest: Manifest, pipeline: ImagePipeline, *, any_weights: bool) -> None:
    """Takes the IP-Adapter of then.

    Raises `SafelightError` if it or its encoder is another, unless `any_weights`.
    """
    used = manifest.image_prompts
    if used is None:
        return
    if used.adapter.file:
        pipeline.see_by(used.adapter.file, used.adapter.encoder)
    if any_weights:
        return
    request = Request("", image_prompts=image_prompts_again(manifest))
    now = pipeline.read(request).image_prompts
    assert now is not None
    pairs = {
        "IP-Adapter": (used.adapter.sha256, now.used.adapter.sha256),
        "image encoder": (used.adapter.encoder_sha256, now.used.adapter.encoder_sha256),
    }
    for what, (then, ours) in pairs.items():
        if then != ours:
            raise SafelightError(
                f"The {what} is not the one that made the picture ({then[:12]} then, {ours[:12]} "
                "now). Put the right one there, or give --other-weights to go on."
            )


def _condition_again(used: UsedCondition) -> Condition:
    if used.picture is None:
        return Condition(used.kind, used.boxes or used.name, used.scale)
    again = picture_again("image", used.picture, f"picture of condition {used.kind}")
    assert again.file is not None
    return Condition(used.kind, again.file, used.scale)


def _control_again(used: UsedControl) -> Control:
    return Control(
        used.kind,
        _file_again(used.kind, "image", used.picture),
        hint=used.hint,
        annotator=used.annotator or None,
        network=used.network or None,
        weight=used.weight,
        start=used.start,
        end=used.end,
        mode=used.mode,
        weights=used.weights,
        mask=None if used.mask is None else _file_again(used.kind, "mask", used.mask),
        resize=used.resize,
    )


def _file_again(kind: str, part: Part, used: UsedPicture) -> str:
    what = "mask" if part == "mask" else "picture"
    again = picture_again(part, used, f"{what} of control {kind}")
    assert again.file is not None
    return again.file


def picture_again(part: Part, used: UsedPicture, what: str) -> GivenPicture:
    """A picture that was used then; `SafelightError`, in which it is `what`, if it is another."""
    if used.file is None:
        raise SafelightError(f"The {what} was never a file; ask for the picture in Python with it.")
    given = give(part, used.file)
    if given is None or given.sha256 != used.sha256:
        raise SafelightError(
            f"{used.file} is not the {what} then: its pixels are others. Put the right one there."
        )
    return given
