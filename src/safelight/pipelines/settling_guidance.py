"""Whether guidance as it is asked for goes with a model and with itself."""

from safelight.checkpoints.folder import Folder
from safelight.conditioners.prompt_grammar import parse
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.nn.identity_attention import chosen_attentions, self_attentions
from safelight.pipelines.guidance_settings import Guidance, Projection
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Request, Settings


def check_guidance(
    request: Request, settings: Settings, folder: Folder, kind: Kind, *, by_model: bool
) -> None:
    """Raises `SafelightError` for guidance that this model cannot have, or that would do nothing;
    `by_model` if a weaker model guides.
    """
    guidance = settings.guidance
    by_prompt = settings.scale > 1 and not kind.guided
    if guidance.guide_scale is not None and not by_model:
        raise SafelightError("guide_scale is of a weaker model that guides; give a guide too.")
    if guidance.scales is not None:
        guidance.scales.check(settings.steps)
    if kind.guided and guidance.scales is not None:
        raise SafelightError("This model is told one scale for all steps; give one number.")
    _check_forms(guidance, request.negative, kind, by_prompt=by_prompt)
    if not (by_prompt or guidance.pag_scale or by_model):
        for name, asked in (("rescale", guidance.rescale), ("interval", guidance.interval)):
            if asked:
                raise SafelightError(
                    f"guidance_{name} goes with guidance, and there is none; "
                    f"{_remedy(kind)}, or leave it out."
                )
    if guidance.pag_scale:
        check_layers(folder.unet, guidance)
    own = [*(condition.scale for condition in request.conditions), request.image_prompt_scale]
    if any(scale not in (None, 1) for scale in own):
        _check_own_scales(guidance, request, kind)


def _check_own_scales(guidance: Guidance, request: Request, kind: Kind) -> None:
    """That guidance is of the one form that several scales go with."""
    others = {
        "apg": guidance.apg != Projection(),
        "perp_neg": guidance.perp_neg is not None,
        "a scale that changes": guidance.scales is not None,
        "AND": request.prompt_syntax == "a1111" and len(parse(request.prompt)) > 1,
        "a model that edits by instruction": kind.beside == "image",
        "a model that is told its scale": kind.guided,
    }
    for what, there in others.items():
        if there:
            raise SafelightError(
                f"{what} does not go with the own scale of a condition; leave one of them out."
            )


def check_layers(unet: UNet, guidance: Guidance) -> None:
    """Raises `SafelightError` for a pattern that is found in no layer of self-attention."""
    try:
        chosen_attentions(unet, guidance.pag_layers)
    except ValueError as error:
        blocks = dict.fromkeys(path.split(".attentions")[0] for path, _ in self_attentions(unet))
        raise SafelightError(
            f"pag_layers: {error} This U-Net has them in {', '.join(blocks) or 'no block'}."
        ) from error


def _check_forms(guidance: Guidance, negative: str, kind: Kind, *, by_prompt: bool) -> None:
    """That the forms of classifier-free guidance are one, and there is such guidance."""
    forms = {"apg": guidance.apg != Projection(), "perp_neg": guidance.perp_neg is not None}
    asked = [name for name, there in forms.items() if there]
    if len(asked) > 1:
        raise SafelightError("apg and perp_neg are two forms of guidance; take one of them.")
    for name in asked:
        if kind.beside == "image":
            raise SafelightError(f"{name} is not for models that edit by instruction.")
        if not by_prompt:
            raise SafelightError(
                f"{name} is a form of classifier-free guidance, and there is none; {_remedy(kind)},"
                " or leave it out."
            )
    if guidance.perp_neg is not None and not negative:
        raise SafelightError("perp_neg is of the negative prompt; give one too.")


def _remedy(kind: Kind) -> str:
    return "take another model" if kind.guided else "take a scale above 1"
