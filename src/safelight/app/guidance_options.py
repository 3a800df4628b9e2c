"""Guidance as a user asks for it on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from safelight.errors import SafelightError
from safelight.pipelines.guidance_settings import PLAIN, Guidance, Projection, Scales


@dataclass(frozen=True)
class GuidanceOptions:
    """Options of `safelight generate`, each by its name.

    Parameters
    ----------
    guidance_rescale
        How much of the contrast that guidance adds
        is taken back, 0 to 1; 0.7 is usual at zero
        terminal SNR.
    guidance_interval
        The noise levels sigma at which there is
        guidance, such as 0.3,5. [default: all]
    pag_scale
        Perturbed-attention guidance, with or
        without a scale above 1; 3 is usual.
        [default: none]
    pag_layers
        The self-attention layers that it perturbs:
        patterns in their paths, such as mid or
        up_blocks.1. [default: mid]
    apg_eta
        Adaptive projected guidance: the part along
        the prediction that is kept; 0 saturates
        colours least. [default: 1]
    apg_norm_threshold
        The length of guidance at most, over all
        latents. [default: any]
    apg_momentum
        How much of earlier guidance is added, such
        as -0.5. [default: none]
    perp_neg
        Lead away from what of the negative prompt
        does not contradict the prompt, this
        strongly; 1 is usual.
    guide
        A weaker model to lead away from
        (autoguidance), such as an earlier
        checkpoint: a folder, a file or a name.
    guide_scale
        How strongly; 1 is not at all. [default: 2]
    """

    guidance_rescale: float = 0.0
    guidance_interval: str | None = None
    pag_scale: float = 0.0
    pag_layers: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    apg_eta: float = 1.0
    apg_norm_threshold: float = 0.0
    apg_momentum: float = 0.0
    perp_neg: float | None = None
    guide: str | None = None
    guide_scale: float | None = None

    def guidance(self, scales: Scales | None) -> Guidance:
        """As a request has it; `SafelightError` for an interval that is none."""
        return Guidance(
            scales=scales,
            rescale=self.guidance_rescale,
            interval=_interval(self.guidance_interval),
            pag_scale=self.pag_scale,
            pag_layers=_listed(self.pag_layers) or PLAIN.pag_layers,
            apg=Projection(self.apg_eta, self.apg_norm_threshold, self.apg_momentum),
            perp_neg=self.perp_neg,
            guide_scale=self.guide_scale,
        )


def chosen_scale(text: str | None) -> tuple[float | None, Scales | None]:
    """One scale, or several over the steps, from `7`, `7,7,5,3` or `7:1`; errors as `Scales.of`."""
    if text is None:
        return None, None
    try:
        return float(text), None
    except ValueError:
        return None, Scales.of(text)


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SafelightError(
            f"--guidance-interval should be two noise levels such as 0.3,5, got {text!r}."
        ) from error
    return low, high


def _listed(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
