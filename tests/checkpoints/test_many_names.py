"""Files of many names, made to keep a reader busy: its work grows as their number, no faster."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from safelight.checkpoints import weights_file
from safelight.checkpoints.adapters import read_adapter
from safelight.checkpoints.files import write_state
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.rules import Table, from_ours, to_ours
from safelight.checkpoints.single_file import read_single_file
from safelight.checkpoints.swap import with_autoencoder
from safelight.checkpoints.tables.bert import x_transformers_table
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError

FEW = 60
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_WHOLE = {  # what tells a whole model, whose U-Net is as deep as the names say
    f"{_UNET}input_blocks.0.0.weight": (8, 4, 3, 3),
    f"{_UNET}input_blocks.1.0.out_layers.3.weight": (8, 8, 3, 3),
    f"{_UNET}out.2.weight": (4, 8, 3, 3),
    f"{_VAE}encoder.conv_in.weight": (8, 3, 3, 3),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (8,),
}
_CODERS = {
    "encoder.conv_in.weight": (8, 3, 3, 3),
    "decoder.conv_in.weight": (8, 4, 3, 3),
    "decoder.conv_out.weight": (3, 8, 3, 3),
}
NAMES: Mapping[str, tuple[str, Mapping[str, tuple[int, ...]]]] = {
    "blocks": (f"{_UNET}input_blocks.{{}}.0.in_layers.0.weight", _WHOLE),
    "levels": ("encoder.down.{}.block.0.conv2.weight", _CODERS),
    "diffusers-levels": ("encoder.down_blocks.{}.resnets.0.conv2.weight", _CODERS),
    "taesd": ("decoder.{}.conv.0.weight", {"decoder.1.weight": (8, 4, 3, 3)}),
    "adapter": ("unet.down_blocks.{}.conv.lora_A.weight", {}),
    "unknown": ("a.b.{}", {}),
}
READERS: Mapping[str, Callable[[Path, Folder], object]] = {
    "single file": lambda path, _: read_single_file(path),
    "autoencoder": lambda path, model: with_autoencoder(model, path),
    "adapter": lambda path, model: read_adapter(path, model),
    "inspect": lambda path, _: inspect(path),
}


def _calls(work: Callable[[], object]) -> int:
    """How many calls, of Python and C functions alike, some work takes; it may be refused."""
    count = 0

    def counting(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        with suppress(SafelightError):
            work()
    finally:
        sys.setprofile(None)
    return count


def _grows_as_the_names(work: Callable[[int], Callable[[], object]]) -> bool:
    _calls(work(FEW))  # what is made once
    few, some, many = (_calls(work(count)) for count in (FEW, 2 * FEW, 4 * FEW))
    return many - some < 2.4 * (some - few)  # twice in a straight line, four times in a parabola


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("names", NAMES)
def test_a_reader_s_work_grows_as_the_names_of_a_file(names, reader, model, tmp_path):
    name, others = NAMES[names]

    def reading(count: int) -> Callable[[], object]:
        path = tmp_path / f"{count}.safetensors"
        shapes = {name.format(number): (8, 8, 3, 3) for number in range(1, count)} | others
        write_state(path, {key: torch.zeros(shape) for key, shape in shapes.items()})
        return lambda: READERS[reader](path, model)

    assert _grows_as_the_names(reading)


def test_renaming_grows_as_the_names():
    def renaming(count: int) -> Callable[[], object]:
        table: Table = x_transformers_table(count)
        state = {rule.theirs.format(p="weight"): torch.zeros(1) for rule in table.rules}
        return lambda: from_ours(table, to_ours(table, state, "it"))

    assert _grows_as_the_names(renaming)


@pytest.mark.parametrize(
    ("key", "inner", "said"),
    [
        ("{}", "{}", "more than any model has"),
        ("{}", 7, "holds more than 1,000 values"),
        ("{}" + "x" * 1000, "{}", "absurdly long name"),
    ],
)
def test_one_table_under_many_names_is_refused(key, inner, said, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "_MOST_ENTRIES", 1000 if inner == 7 else 1_000_000)
    value = torch.zeros(1) if inner == "{}" else inner
    shared = {str(number): value for number in range(400)}
    torch.save({key.format(number): shared for number in range(400)}, tmp_path / "a.pt")
    with pytest.raises(SafelightError, match=said):
        read_weights_file(tmp_path / "a.pt")
