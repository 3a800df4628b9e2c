"""Puts the video model's own layers into the package, in bfloat16, beside the model of pictures.

`python bundle_video.py` takes `work/video_alike/model` and writes `video` into the bundle: the
layers along the frames alone, as those of pictures are the bundle's own, and how the model is best
used.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from held_out import HERE

from safelight.checkpoints.atomic import replacing_folder, write_text
from safelight.checkpoints.components import Writing
from safelight.checkpoints.folder import DEFAULTS, read_folder
from safelight.checkpoints.video_layers import write_video_layers
from safelight.config import to_dict
from safelight.errors import SafelightError
from safelight.models.video import VideoUNet

BUNDLE = HERE.parents[1] / "src" / "safelight" / "weights" / "default"
LARGEST = 4_000_000  # bytes of its files


def bundle(model: Path, base: Path, target: Path) -> int:
    """Writes the layers and gives their size in bytes.

    Raises `SafelightError` if one of the models cannot be read, the video model's layers of
    pictures are not the base's, or its own would be larger than they may be.
    """
    folder, pictures = read_folder(model), read_folder(base)
    if not isinstance(folder.unet, VideoUNet):
        raise SafelightError(f"{model} is a {folder.pipeline_class}; expected a video model.")
    with replacing_folder(target) as whole:
        write_video_layers(whole, folder.unet, pictures.unet, Writing(dtype=torch.bfloat16))
        write_text(whole / DEFAULTS, json.dumps(to_dict(folder.defaults), indent=2) + "\n")
        size = sum(path.stat().st_size for path in whole.iterdir())
        if size > LARGEST:
            raise SafelightError(
                f"The layers along the frames take {size / 1e6:.1f} MB; a bundle may have "
                f"{LARGEST / 1e6:.0f} MB. Make them narrower (video.narrow)."
            )
    return size


def main() -> int:
    """Bundles the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "work" / "video_alike" / "model")
    parser.add_argument("--base", type=Path, default=BUNDLE)
    parser.add_argument("--target", type=Path, default=BUNDLE / "video")
    arguments = parser.parse_args()
    try:
        size = bundle(arguments.model, arguments.base, arguments.target)
    except SafelightError as error:
        print(f"bundle_video: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
