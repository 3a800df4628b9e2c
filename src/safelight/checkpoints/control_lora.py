"""Control-LoRAs, and ControlNets kept as differences: what they add to a U-Net makes a ControlNet.

Source: Stability's `control-lora`, of which each changed layer holds two factors, `up` and `down`,
and all that a U-Net has not, or that was trained whole, is there as it is.
"""

from collections.abc import Mapping

from torch import Tensor

from safelight.checkpoints.components import Reading
from safelight.checkpoints.controlnet_file import controlnet_of
from safelight.checkpoints.families import CONTROL
from safelight.checkpoints.files import State
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.tables.compvis import unet_table
from safelight.checkpoints.tables.shapes import hint_config_of
from safelight.checkpoints.tables.unet import UNET
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet
from safelight.models.unet import UNet

FACTORS, DIFFERENCE = "lora_controlnet", "difference"
"""The tensors by whose names the two kinds are known."""
_UP = ("output_blocks.", "out.")


def needs_base(state: Mapping[str, Tensor]) -> bool:
    """Whether a file holds what a U-Net is changed by, and no ControlNet of its own."""
    return FACTORS in state or DIFFERENCE in state


def control_from_base(
    state: Mapping[str, Tensor], base: UNet | None, source: str, reading: Reading
) -> ControlNet:
    """The ControlNet that a file makes of the U-Net `base`, which keeps its weights.

    Raises `SafelightError`, one line, without a base, or for one whose layers are of other shapes.
    """
    if base is None:
        raise SafelightError(
            f"{source} holds only what it adds to a U-Net; give the model that it is made for with "
            "it."
        )
    added = {
        key.removeprefix(CONTROL): tensor
        for key, tensor in state.items()
        if key not in (FACTORS, DIFFERENCE) and (FACTORS in state or key.startswith(CONTROL))
    }
    config = hint_config_of(added, base.config, source)
    whole = {
        name: _changed(name, weight, added, source, summed=DIFFERENCE in state)
        for name, weight in _encoder(base).items()
    }
    layers = [name.removesuffix(".weight") for name in whole]
    used = {*whole, *(f"{layer}.{part}" for layer in layers for part in ("up", "down"))}
    whole |= {name: tensor for name, tensor in added.items() if name not in used}
    return controlnet_of(config, whole, source, reading)


def _encoder(base: UNet) -> State:
    """The first half of a U-Net, in the original names."""
    theirs = from_ours(unet_table(base.config), from_ours(UNET, base.state_dict()))
    return {name: tensor for name, tensor in theirs.items() if not name.startswith(_UP)}


def _changed(
    name: str, weight: Tensor, added: Mapping[str, Tensor], source: str, *, summed: bool
) -> Tensor:
    """A tensor of the U-Net as a file changes it: by the product of two factors, by a summand, or
    to another; `weight` itself, copied, where the file is silent.
    """
    layer = name.removesuffix(".weight")
    up, down, own = added.get(f"{layer}.up"), added.get(f"{layer}.down"), added.get(name)
    if up is None and down is None:
        if own is None:
            return weight.detach().clone()
        if not summed:
            return own
        change = own.float()
    elif up is None or down is None:
        raise SafelightError(f"{source} has one factor of {name!r} without the other.")
    elif up.ndim < 2 or down.ndim < 2 or up[0].numel() != len(down):
        raise SafelightError(f"{source} has factors of {name!r} that do not fit each other.")
    else:
        change = up.flatten(1).float() @ down.flatten(1).float()
    if change.numel() != weight.numel() or len(change) != len(weight):
        raise SafelightError(
            f"{source} changes {name!r}, which has the shape {tuple(weight.shape)} in this U-Net, "
            "by another shape; it is made for another family of models."
        )
    return weight.detach().to(change) + change.reshape(weight.shape)
