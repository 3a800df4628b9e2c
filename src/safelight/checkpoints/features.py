"""Feature networks by name or by file: what perceptual losses and distances look through."""

from pathlib import Path

import torch

from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.files import read_state, read_torch_pickle
from safelight.checkpoints.rules import Rule, Table, load_into
from safelight.errors import SafelightError
from safelight.models.features import EfficientNetLite0, Vgg16Features, packaged_efficientnet

EFFICIENTNET = "efficientnet-lite0"

_SAME = Rule("{key}", "{key}")
_EFFICIENTNET = Table((_SAME,), dropped=("{rest}.num_batches_tracked",))
_VGG16 = Table((_SAME,), dropped=("classifier.{rest}",))


def load_features(
    source: str | Path = EFFICIENTNET, device: torch.device | str = "cpu"
) -> EfficientNetLite0 | Vgg16Features:
    """A frozen feature network, in float32.

    `source` is "efficientnet-lite0" for the installed package's weights, or a `.safetensors` or
    `.pth` file with those weights or with VGG16's in torchvision's layout, told apart by their
    keys.

    Raises `SafelightError` if the package is not installed, or the file is neither.
    """
    path = packaged_efficientnet() if source == EFFICIENTNET else Path(source)
    state = read_state(path) if path.suffix == ".safetensors" else read_torch_pickle(path)
    network: EfficientNetLite0 | Vgg16Features
    if "_conv_stem.weight" in state:
        network, table, what = EfficientNetLite0(), _EFFICIENTNET, "an EfficientNet-Lite0"
    elif "features.0.weight" in state:
        network, table, what = Vgg16Features(), _VGG16, "a VGG16"
    else:
        raise SafelightError(
            f"{path} is {describe_state(state)}; expected an EfficientNet-Lite0, or a VGG16 in "
            "torchvision's layout."
        )
    load_into(network, state, table, what=what, source=str(path))
    network.requires_grad_(False)
    network.eval()
    return network.to(device)
