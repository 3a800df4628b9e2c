"""Puts a trained model into the package, in bfloat16, as `safelight.load()` finds it.

`python bundle.py` takes `work/unet_scenes/model`; the folder is replaced whole or not at all.
"""

import argparse
import sys
from pathlib import Path

import torch
from held_out import HERE

from safelight.checkpoints.folder import read_folder, write_folder
from safelight.errors import SafelightError

BUNDLE = HERE.parents[1] / "src" / "safelight" / "weights" / "default"
LARGEST = 40_000_000  # bytes of its weights


def bundle(model: Path, target: Path) -> int:
    """Writes the bundle and gives its size in bytes.

    Raises `SafelightError` if the model cannot be read or would be larger than a bundle may be.
    """
    folder = read_folder(model)
    networks = (folder.unet, folder.autoencoder, *folder.text_towers)
    weights = 2 * sum(p.numel() for network in networks for p in network.parameters())
    if weights > LARGEST:
        raise SafelightError(
            f"{model} has {weights / 1e6:.1f} MB of bfloat16 weights; a bundle may have "
            f"{LARGEST / 1e6:.0f} MB. Train a smaller U-Net or text tower."
        )
    write_folder(target, folder, dtype=torch.bfloat16)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def main() -> int:
    """Bundles the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "work" / "unet_scenes" / "model")
    parser.add_argument("--target", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    try:
        size = bundle(arguments.model, arguments.target)
    except SafelightError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
