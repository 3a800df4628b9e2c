"""Whether a network can steer a model, and be steered with as a user asks."""

from collections.abc import Iterator

from safelight.checkpoints.folder import Folder
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet, SteeringNetwork
from safelight.models.t2i_adapter import T2IAdapter
from safelight.models.unet_encoder import skip_channels
from safelight.pipelines.control_settings import Control

_Pair = tuple[str, object, object]
"""What a network takes, what that is, and what the model has."""


def check_fit(control: Control, network: SteeringNetwork, folder: Folder, name: str) -> None:
    """Raises `SafelightError` for a network that steers another kind of U-Net, or of which more is
    asked than it can do.
    """
    check_model(f"The control {control.kind}", network, folder, name)
    if network.hint_channels not in (1, 3):
        raise SafelightError(
            f"The control {control.kind} takes a hint of {network.hint_channels} channels; a "
            "picture has 3, or 1 if it is grey. This network is not for pictures."
        )
    if control.weights is not None and len(control.weights) != network.parts:
        raise SafelightError(
            f"The control {control.kind} adds at {network.parts} places; got "
            f"{len(control.weights)} weights. Give one for each."
        )
    if control.mask is not None and network.pooled:
        raise SafelightError(
            f"The control {control.kind} adds the same everywhere, so that no mask says where; "
            "leave the mask out."
        )


def check_model(what: str, network: SteeringNetwork, folder: Folder, name: str) -> None:
    """Raises `SafelightError`, which calls the network `what`, if it is for another kind of U-Net
    than that of the model `name`.
    """
    pairs = _adapter(network, folder) if isinstance(network, T2IAdapter) else _net(network, folder)
    for part, given, wanted in pairs:
        if given != wanted:
            raise SafelightError(
                f"{what} is for another kind of model than {name}: it takes {part} "
                f"{given or 'none'}, and here it would be {wanted or 'none'}. Give one that was "
                "trained with this kind of model."
            )


def _net(network: ControlNet, folder: Folder) -> Iterator[_Pair]:
    theirs, unet, steered = network.config, folder.unet.config, network.shape.steered
    own = {unet.in_channels, unet.out_channels}  # an inpainting model's, or the ordinary one's
    known = theirs.in_channels if theirs.in_channels in own else unet.out_channels
    yield "a context of width", theirs.cross_attention_dim, unet.cross_attention_dim
    yield "an added vector of width", theirs.added_dim, unet.added_dim
    yield "classes:", theirs.class_dim, unet.class_dim
    yield "levels of widths", steered.block_out_channels, unet.block_out_channels
    yield "skips of widths", skip_channels(steered), skip_channels(unet)
    yield "pixels to a latent:", network.shape.factor, folder.autoencoder.factor
    yield "latent channels:", theirs.in_channels, known


def _adapter(network: T2IAdapter, folder: Folder) -> Iterator[_Pair]:
    theirs, unet = network.config, folder.unet.config
    widths = unet.block_out_channels
    if theirs.kind == "full_xl":  # whose last part is for the middle
        widths = (*widths, widths[-1])
    yield "levels of widths", theirs.block_out_channels, widths
    factor = folder.autoencoder.factor * (2 if theirs.kind == "full_xl" else 1)
    yield "pixels to a latent:", theirs.factor, factor
