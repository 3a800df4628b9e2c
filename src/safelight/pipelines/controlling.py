"""Controls put upon a model: its U-Net steered, and hints beside what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.models.controlnet import (
    Controlled,
    Steering,
    even_weights,
    rising_weights,
    softer_weights,
)
from safelight.pipelines.beginning import Batch, Model, padded
from safelight.pipelines.beside import mask_tensor
from safelight.pipelines.control_settings import ONE_SIDED
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.guiding import Conditions
from safelight.pipelines.hint_pictures import hint_tensor
from safelight.types import Conditioning, Network

_APART = 0.05  # of the way to the time before, by which a time is told from its neighbours


@dataclass(frozen=True)
class Hints:
    """What the networks of controls see.

    Attributes:
        pictures: for each, in [0, 1].
        masks: where each works under the prompt; none: everywhere.
        masks_beside: where each works under what guidance leads away from; likewise.
    """

    pictures: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    masks_beside: tuple[Tensor, ...]

    def with_prompts(self, conditions: Conditions) -> Conditions:
        """The conditions with the hints."""

        def beside(cond: Conditioning) -> Conditioning:
            return replace(cond, hints=self.pictures, hint_masks=self.masks_beside)

        return replace(
            conditions,
            conds=tuple(
                replace(cond, hints=self.pictures, hint_masks=self.masks)
                for cond in conditions.conds
            ),
            uncond=beside(conditions.uncond),
            null=None if conditions.null is None else beside(conditions.null),
        )


def hints_of(model: Model, batch: Batch) -> Hints:
    """The hints of a batch's controls at the size of its settings, a row for each picture."""
    settings, factor, count = batch.settings, model.folder.autoencoder.factor, len(batch.seeds)
    size = (settings.width, settings.height)
    whole = (-(-size[1] // factor) * factor, -(-size[0] // factor) * factor)

    def rows(picture: Float[Tensor, "1 k h w"]) -> Float[Tensor, "b k H W"]:
        return padded(picture, whole).to(model.device).expand(count, -1, -1, -1)

    pictures: list[Tensor] = []
    masks: list[Tensor] = []
    for read in batch.led.controls:
        pictures.append(rows(hint_tensor(read.hint_at(size), read.network.hint_channels)))
        if read.mask is None:
            masks.append(torch.ones_like(pictures[-1][:, :1]))
        else:
            masks.append(rows(mask_tensor(read.mask, *size)))
    if not any(read.mask is not None or _is_one_sided(read) for read in batch.led.controls):
        return Hints(tuple(pictures), (), ())
    beside = (
        torch.zeros_like(mask) if _is_one_sided(read) else mask
        for read, mask in zip(batch.led.controls, masks, strict=True)
    )
    return Hints(tuple(pictures), tuple(masks), tuple(beside))


def steered(
    unet: Network,
    controls: Sequence[ReadControl],
    scheduler: SchedulerConfig,
    levels: Float[Tensor, " n"],
) -> Network:
    """A U-Net with its controls, for steps from each of these noise levels to the next."""
    if not controls:
        return unet
    times = [float(t) for t in scheduler.schedule().sigma_to_t(levels)]
    return Controlled(unet, [_steering(read, times) for read in controls])


def _steering(read: ReadControl, times: Sequence[float]) -> Steering:
    """A control's network with its weights, and the times of the steps that it takes part in.

    Step i of n is one of them if `start <= i / n` and `(i + 1) / n <= end`, as in diffusers. What a
    sampler asks for between two levels belongs to the step that it is part of.
    """
    control, steps = read.control, len(times) - 1
    taken = [
        i for i in range(steps) if i / steps >= control.start and (i + 1) / steps <= control.end
    ]
    weights = _weights(read)
    if not taken:
        return Steering(read.network, weights, first=-torch.inf)
    first, after = taken[0], taken[-1] + 1
    return Steering(
        read.network,
        weights,
        first=_just_above(times, first) if first > 0 else torch.inf,
        last=_just_above(times, after) if after < steps else -torch.inf,
    )


def _just_above(times: Sequence[float], step: int) -> float:
    """A time above that of a step, by rounding alone."""
    return times[step] + _APART * (times[step - 1] - times[step])


def _weights(read: ReadControl) -> tuple[float, ...]:
    control, network = read.control, read.network
    if control.weights is not None:
        return tuple(control.weight * weight for weight in control.weights)
    if read.mode == "guess" and not network.pooled:
        return rising_weights(network, control.weight)
    if read.mode in ("prompt", "control"):
        return softer_weights(network, control.weight)
    return even_weights(network, control.weight)


def _is_one_sided(read: ReadControl) -> bool:
    """Whether it works under the prompt alone; one that is pooled always does, as in diffusers."""
    return read.mode in ONE_SIDED or read.network.pooled
