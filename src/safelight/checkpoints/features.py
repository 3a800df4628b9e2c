"""Feature networks by name or by file: what perceptual losses and distances look through."""

from pathlib import Path

import torch

from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.rules import Rule, Table, load_into
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.features import EfficientNetLite0, Vgg16Features, packaged_efficientnet
from safelight.models.inception import InceptionFid

EFFICIENTNET = "efficientnet-lite0"

FeatureNetwork = EfficientNetLite0 | Vgg16Features | InceptionFid

_TABLE = Table(
    (Rule("{key}", "{key}"),),
    dropped=("{norm}.num_batches_tracked", "classifier.{rest}"),
)
_NETWORKS: tuple[tuple[str, type[FeatureNetwork], str], ...] = (
    ("_conv_stem.weight", EfficientNetLite0, "an EfficientNet-Lite0"),
    ("features.0.weight", Vgg16Features, "a VGG16 in torchvision's layout"),
    ("Conv2d_1a_3x3.conv.weight", InceptionFid, "the InceptionV3 of FID"),
)


def load_features(
    source: str | Path = EFFICIENTNET, device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """A frozen feature network, in float32.

    `source` is "efficientnet-lite0" for the installed package's weights, or a `.safetensors` or
    `.pth` file with those weights, with VGG16's in torchvision's layout, or with those of FID's
    InceptionV3, told apart by their keys.

    Raises `SafelightError` if the package is not installed, or the file is none of these.
    """
    path = packaged_efficientnet() if source == EFFICIENTNET else Path(source)
    state = read_weights_file(path).state
    for mark, build, what in _NETWORKS:
        if mark in state:
            network = build()
            load_into(network, state, _TABLE, what=what, source=str(path))
            network.requires_grad_(False)
            network.eval()
            return network.to(device)
    expected = ", ".join(what for _, _, what in _NETWORKS)
    raise SafelightError(f"{path} is {describe_state(state)}; expected one of: {expected}.")
