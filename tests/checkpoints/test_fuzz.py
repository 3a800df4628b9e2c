"""Mutated files in every layout: each is read, or refused in one line, soon and in little memory.

A hundred cases or so in the ordinary run; `pytest -m slow tests/checkpoints/test_fuzz.py` runs
10,000 and takes some minutes. A case is a function of its number and of the file that it mutates.
"""

import json
import random
import resource
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from safelight.checkpoints.adapters import read_adapter
from safelight.checkpoints.components import write_autoencoder
from safelight.checkpoints.controlnet import read_control
from safelight.checkpoints.controlnet_file import write_controlnet_file
from safelight.checkpoints.files import State, read_state, write_state
from safelight.checkpoints.folder import Folder, read_folder, write_folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.inversions import read_inversion
from safelight.checkpoints.ip_adapter import read_image_adapter, write_image_adapter
from safelight.checkpoints.single_file import read_single_file, write_single_file
from safelight.checkpoints.swap import with_autoencoder
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.controlnet import ControlNet, ControlNetConfig
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig
from tiny_model import seeing_folder, tiny_folder

SECONDS = 10  # a case, on a machine that does other things too
MEGABYTES = 700  # by which all cases together may raise the highest use of memory
ABSURD = (-1, 0, 1, 2, 3, 7, 2**31, 2**63, -(2**63), 1e308, -0.5, None, True, "", "x", [], {}, [[]])
LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@dataclass(frozen=True)
class Sample:
    """A whole file, and who reads it; `within` is where it lies in a model's folder."""

    content: bytes
    read: Callable[[Path], object]
    within: str | None = None


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Sample]:
    """One whole file of each layout."""
    top = tmp_path_factory.mktemp("samples")
    folder = tiny_folder()
    write_folder(top / "model", folder)
    write_single_file(top / "one.safetensors", folder)
    write_state(top / "plain.safetensors", {"a.weight": torch.ones(3, 4), "b": torch.ones(2)})
    nested = {"state_dict": {"a": torch.ones(3), "b": torch.ones(2, 2)}, "n": 1}
    torch.save(nested, top / "zip.ckpt")
    torch.save(nested, top / "legacy.ckpt", _use_new_zipfile_serialization=False)
    lora = {f"{LORA}.lora_down.weight": torch.ones(2, 32), f"{LORA}.alpha": torch.tensor(2.0)}
    lora |= {f"{LORA}.dora_scale": torch.ones(32, 1)}
    write_state(top / "lora.safetensors", lora | {f"{LORA}.lora_up.weight": torch.ones(32, 2)})
    word = {"string_to_param": {"*": torch.ones(2, 32)}, "name": "<cat>"}
    torch.save(word, top / "word.pt")
    canary = b"cposix\nsystem\n(S'touch " + bytes(top / "canary") + b"'\ntR."
    (top / "hostile.pkl").write_bytes(canary)

    def adapter(path: Path) -> object:
        return read_adapter(path, folder)

    def inversion(path: Path) -> object:
        return read_inversion(path, folder)

    def swap(path: Path) -> object:
        return with_autoencoder(folder, path, dtype=torch.float32, device="cpu")

    readers: dict[str, Callable[[Path], object]] = {
        "plain.safetensors": read_weights_file,
        "zip.ckpt": read_weights_file,
        "legacy.ckpt": read_weights_file,
        "hostile.pkl": read_weights_file,
        "lora.safetensors": adapter,
        "word.pt": inversion,
        "one.safetensors": read_single_file,
    }
    made = {name: Sample((top / name).read_bytes(), read) for name, read in readers.items()}
    seeing = ImageAdapterConfig(8, 1, (), kind="plus", hidden_dim=16, depth=2, heads=1)
    adapters = top / "seeing.safetensors"
    write_image_adapter(adapters, ImageAdapter.for_unet(folder.unet, seeing))
    made["seeing"] = Sample(adapters.read_bytes(), read_image_adapter)
    torch.save(_nested(read_state(adapters)), top / "seeing.bin")
    made["seeing, pickled"] = Sample((top / "seeing.bin").read_bytes(), read_image_adapter)
    made["inspected"] = Sample(made["zip.ckpt"].content, inspect)
    shape = AutoencoderConfig(
        block_out_channels=(32, 64), layers_per_block=1, attention=(False,) * 2
    )
    write_autoencoder(top / "vae", Autoencoder(shape))
    vae = top / "vae" / "diffusion_pytorch_model.safetensors"
    made["swap"] = Sample(vae.read_bytes(), swap)
    write_controlnet_file(top / "control", ControlNet(ControlNetConfig(folder.unet.config)))
    made["control"] = Sample((top / "control").read_bytes(), read_control)
    write_folder(top / "seeing", seeing_folder())
    for model in (top / "seeing", top / "model"):
        for file in sorted(model.rglob("*")):
            if file.suffix in (".json", ".txt"):
                name = file.relative_to(model).as_posix()
                made[name] = Sample(file.read_bytes(), _reader_of_folder(model), name)
    return made


def _nested(state: State) -> dict[str, State]:
    """An IP-Adapter as its authors pickle it: a table for each part."""
    return {
        part: {
            name.removeprefix(f"{part}."): tensor.clone()
            for name, tensor in state.items()
            if name.startswith(part)
        }
        for part in ("image_proj", "ip_adapter")
    }


def _reader_of_folder(model: Path) -> Callable[[Path], Folder]:
    """Reads the model with the one file in the place of its own."""

    def read(path: Path) -> Folder:
        name = path.with_suffix(".name").read_text()
        kept = (model / name).read_bytes()
        try:
            (model / name).write_bytes(path.read_bytes())
            return read_folder(model)
        finally:
            (model / name).write_bytes(kept)

    return read


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A content with bytes flipped, cut, spliced, repeated, or numbers made absurd."""
    if content[:1] == b"{" and chance.random() < 0.6:
        return _mutated_json(content, chance)
    raw = bytearray(content)
    header = int.from_bytes(raw[:8], "little") + 8 if raw[8:9] == b"{" else 4096
    for _ in range(chance.randint(1, 6)):
        reach = min(len(raw), header if chance.random() < 0.8 else len(raw))
        if reach < 2:
            break
        at = chance.randrange(reach)
        match chance.randrange(7):
            case 0:
                raw[at] = chance.randrange(256)
            case 1:
                raw[at] ^= 1 << chance.randrange(8)
            case 2:
                del raw[at:]
            case 3:
                end = min(len(raw), at + chance.randrange(1, 64))
                raw[at:at] = raw[at:end] * chance.choice((1, 1, 1, 200))
            case 4:
                raw[at : at + 8] = struct.pack(
                    "<q", chance.choice((-1, 0, 2**31, 2**62, 2**63 - 1))
                )
            case 5:
                other = chance.randrange(reach)
                raw[at : at + 16], raw[other : other + 16] = (
                    raw[other : other + 16],
                    raw[at : at + 16],
                )
            case _:
                digits = [i for i in range(max(at - 50, 0), reach) if 48 <= raw[i] <= 57]
                if digits:
                    raw[chance.choice(digits)] = 48 + chance.randrange(10)
    return bytes(raw)


def _mutated_json(content: bytes, chance: random.Random) -> bytes:
    """A table of JSON with a value replaced, a key dropped, or something nested deeply."""
    values = json.loads(content)
    if not values or chance.random() < 0.05:
        return b"[" * 100_000 if chance.random() < 0.5 else b'{"a":' * 50_000
    table, key = values, chance.choice(list(values))
    while isinstance(table[key], dict) and table[key] and chance.random() < 0.7:
        table, key = table[key], chance.choice(list(table[key]))
    if chance.random() < 0.15:
        del table[key]
    else:
        table[key] = chance.choice(ABSURD)
    return json.dumps(values).encode()


def _run(samples: dict[str, Sample], folder: Path, cases: range) -> dict[str, int]:
    """Runs the cases, and counts how many of each sample were read and refused."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {"read": 0, "refused": 0}
    names = sorted(samples)
    for case in cases:
        chance = random.Random(case)
        sample = samples[chance.choice(names)]
        path = folder / "case"
        path.write_bytes(mutated(sample.content, chance))
        if sample.within is not None:
            path.with_suffix(".name").write_text(sample.within)
        lines = [""]
        start = time.monotonic()
        try:
            sample.read(path)
            counts["read"] += 1
        except SafelightError as error:
            lines = str(error).splitlines()
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"case {case}, {sample.within or sample.read}") from error
        taken = time.monotonic() - start
        assert len(lines) == 1, f"case {case}: {lines}"
        assert taken < SECONDS, f"case {case} took {taken:.1f} s"
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MEGABYTES
    return counts


def _check(samples: dict[str, Sample], folder: Path, cases: range) -> None:
    counts = _run(samples, folder, cases)
    assert counts["refused"] > len(cases) / 4  # mutations bite
    assert counts["read"] > len(cases) / 20  # and not all of them are deadly at the first byte
    canary = samples["hostile.pkl"].content.split(b"touch ")[1].split(b"'")[0]
    assert not Path(canary.decode()).exists()


def test_whole_files_are_read(samples, tmp_path):
    for name, sample in samples.items():
        path = tmp_path / "case"
        path.write_bytes(sample.content)
        if sample.within is not None:
            path.with_suffix(".name").write_text(sample.within)
        if name == "hostile.pkl":
            with pytest.raises(SafelightError):
                sample.read(path)
        else:
            assert sample.read(path) is not None


def test_mutated_files_are_read_or_refused_in_a_line(samples, tmp_path):
    _check(samples, tmp_path, range(120))


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_or_refused_in_a_line(samples, tmp_path):
    _check(samples, tmp_path, range(1_000, 11_000))
