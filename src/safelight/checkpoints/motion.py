"""AnimateDiff's motion modules, from a folder of diffusers' or a file of their authors'."""

from pathlib import Path

from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    check_layers,
    filled,
    part_config,
    read_part,
    weights_files,
    write_part,
)
from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.tables.motion import (
    MOTION,
    MOTION_MARK,
    ORIGINAL_MOTION,
    motion_config_from_diffusers,
    motion_config_of,
    motion_config_to_diffusers,
)
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.motion import MotionAdapter

_WRAPPED = "module."  # before the names in files of a training on several devices


def read_motion(path: Path, reading: Reading | None = None) -> MotionAdapter:
    """The motion modules in a `MotionAdapter` folder, or in one `.safetensors` or `.ckpt`.

    Raises `SafelightError`, one line, if there are none, or not all.
    """
    reading = reading or Reading()
    if path.is_dir():
        values = part_config(path, "MotionAdapter")
        config = motion_config_from_diffusers(values, str(path / "config.json"))
        layers = config.layers_per_block
        return read_part(
            path, DIFFUSERS_STEM, lambda: MotionAdapter(config), MOTION, reading, layers
        )
    opened, source = read_weights_file(path).state, str(path)
    state = {key.removeprefix(_WRAPPED): tensor for key, tensor in opened.items()}
    if MOTION_MARK not in state:
        raise SafelightError(
            f"{source} is {describe_state(opened)}; expected the motion module of AnimateDiff."
        )
    config = motion_config_of(state, source)
    check_layers(config.layers_per_block, state, source)
    adapter = filled(
        lambda: MotionAdapter(config), state, ORIGINAL_MOTION, source=source, dtype=reading.dtype
    )
    return adapter.to(reading.device)


def write_motion(folder: Path, adapter: MotionAdapter, writing: Writing | None = None) -> None:
    """Writes motion modules as diffusers' `MotionAdapter`."""
    values = motion_config_to_diffusers(adapter.config)
    write_part(folder, DIFFUSERS_STEM, adapter, values, MOTION, writing or Writing())


def motion_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights of motion modules."""
    return weights_files(path) if path.is_dir() else (path,)
