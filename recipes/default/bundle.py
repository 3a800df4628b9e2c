"""Puts a trained model into the package, in bfloat16, as `safelight.load()` finds it.

`python bundle.py` takes `work/unet_scenes/model`; the folder is replaced whole or not at all. The
ControlNets of `work/controls/` that reach their aims (`CONTROLS`) go into its `controls/`, the
students of `work/students/` (`STUDENTS`) into folders beside it that stand on it, such as
`default-lcm`.
"""

import argparse
import sys
from pathlib import Path

import torch
from held_out import HERE

from safelight.checkpoints.components import Writing
from safelight.checkpoints.controlnet import read_controlnet, write_controlnet
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.model import copy_upon
from safelight.errors import SafelightError

BUNDLE = HERE.parents[1] / "src" / "safelight" / "weights" / "default"
LARGEST = 40_000_000  # bytes of its weights
CONTROLS = ("canny", "depth", "pose", "scribble")
LARGEST_CONTROLS = 15_000_000  # bytes of theirs together
STUDENTS = ("lcm", "turbo")
LARGEST_STUDENTS = 8_000_000


def bundle(model: Path, controls: Path, target: Path) -> int:
    """Writes the bundle and gives its size in bytes.

    Raises `SafelightError` if the model or a ControlNet cannot be read, or they would be larger
    than a bundle may be.
    """
    folder = read_folder(model)
    steering = {kind: read_controlnet(controls / kind / "model") for kind in CONTROLS}
    added = 2 * sum(p.numel() for control in steering.values() for p in control.parameters())
    if added > LARGEST_CONTROLS:
        raise SafelightError(
            f"The ControlNets in {controls} have {added / 1e6:.1f} MB of bfloat16 weights; a "
            f"bundle may have {LARGEST_CONTROLS / 1e6:.0f} MB. Train smaller ones."
        )
    networks = (folder.unet, folder.autoencoder, *folder.text_towers)
    weights = 2 * sum(p.numel() for network in networks for p in network.parameters())
    if weights > LARGEST:
        raise SafelightError(
            f"{model} has {weights / 1e6:.1f} MB of bfloat16 weights; a bundle may have "
            f"{LARGEST / 1e6:.0f} MB. Train a smaller U-Net or text tower."
        )
    write_folder(target, folder, dtype=torch.bfloat16)
    for kind, control in sorted(steering.items()):
        write_controlnet(target / "controls" / kind, control, Writing(dtype=torch.bfloat16))
    return _bytes(target)


def bundle_students(students: Path, target: Path) -> int:
    """Writes the students beside the bundle that they stand on, and gives their size in bytes;
    raises `SafelightError` if they would be larger than they may be.
    """
    folders = {
        students / name / "model": target.with_name(f"{target.name}-{name}") for name in STUDENTS
    }
    size = sum(_bytes(source) for source in folders)
    if size > LARGEST_STUDENTS:
        raise SafelightError(
            f"The students in {students} have {size / 1e6:.1f} MB; a bundle may have "
            f"{LARGEST_STUDENTS / 1e6:.0f} MB. Train LoRAs of lower rank."
        )
    for source, folder in folders.items():
        copy_upon(source, folder, target)
    return size


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Bundles the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "work" / "unet_scenes" / "model")
    parser.add_argument("--controls", type=Path, default=HERE / "work" / "controls")
    parser.add_argument("--students", type=Path, default=HERE / "work" / "students")
    parser.add_argument("--target", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    try:
        size = bundle(arguments.model, arguments.controls, arguments.target)
        size += bundle_students(arguments.students, arguments.target)
    except SafelightError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
