"""Puts a trained model into the package, in bfloat16, as `safelight.load()` finds it.

`python bundle.py` takes `work/unet_scenes/model`; the folder is replaced whole or not at all. The
ControlNets of `work/controls/` that reach their aims (`CONTROLS`) go into its `controls/`, the
students of `work/students/` (`STUDENTS`) into folders beside it that stand on it, such as
`default-lcm`. `python bundle.py --tiny work/tiny/model/vae` puts the tiny autoencoder there alone.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from held_out import HERE

from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.components import Reading, Writing, read_autoencoder, write_autoencoder
from safelight.checkpoints.controlnet import read_controlnet, write_controlnet
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.model import copy_upon
from safelight.checkpoints.video_layers import belong_to
from safelight.errors import SafelightError
from safelight.pipelines.find import VIDEO

BUNDLE = HERE.parents[1] / "src" / "safelight" / "weights" / "default"
LARGEST = 40_000_000  # bytes of its weights
CONTROLS = ("canny", "depth", "pose", "scribble")
LARGEST_CONTROLS = 15_000_000  # bytes of theirs together
STUDENTS = ("lcm", "turbo")
LARGEST_STUDENTS = 8_000_000
LARGEST_TINY = 1_000_000


def bundle(model: Path, controls: Path, target: Path) -> int:
    """Writes the bundle and gives its size in bytes; the layers along the frames that it had stay
    there as long as they belong to it.

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
    video = target / VIDEO
    with replacing_folder(target) as whole:
        write_folder(whole, folder, dtype=torch.bfloat16)
        for kind, control in sorted(steering.items()):
            write_controlnet(whole / "controls" / kind, control, Writing(dtype=torch.bfloat16))
        if video.is_dir() and belong_to(video, folder.unet, torch.bfloat16):
            shutil.copytree(video, whole / VIDEO)
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


def bundle_tiny(tiny: Path, target: Path) -> int:
    """Writes the tiny autoencoder beside the bundle, and gives its size in bytes; raises
    `SafelightError` if it would be larger than it may be.
    """
    network = read_autoencoder(tiny, Reading())
    weights = 2 * sum(p.numel() for p in network.parameters())
    if weights > LARGEST_TINY:
        raise SafelightError(
            f"{tiny} has {weights / 1e6:.1f} MB of bfloat16 weights; a bundle may have "
            f"{LARGEST_TINY / 1e6:.0f} MB. Train a narrower one."
        )
    folder = target.with_name(f"{target.name}-tiny")
    with replacing_folder(folder) as whole:
        write_autoencoder(whole, network, Writing(dtype=torch.bfloat16))
    return _bytes(folder)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Bundles the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "work" / "unet_scenes" / "model")
    parser.add_argument("--controls", type=Path, default=HERE / "work" / "controls")
    parser.add_argument("--students", type=Path, default=HERE / "work" / "students")
    parser.add_argument("--target", type=Path, default=BUNDLE)
    parser.add_argument("--tiny", type=Path, help="a tiny autoencoder, which alone is put there")
    arguments = parser.parse_args()
    try:
        if arguments.tiny is not None:
            size = bundle_tiny(arguments.tiny, arguments.target)
            print(f"{arguments.target}-tiny: {size / 1e6:.2f} MB")
            return 0
        size = bundle(arguments.model, arguments.controls, arguments.target)
        size += bundle_students(arguments.students, arguments.target)
    except SafelightError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
