"""Weights on the disk: what is written is read back; what is broken is one line."""

import json
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from safelight.checkpoints.atomic import replacing_file, replacing_folder, write_text
from safelight.checkpoints.files import (
    find_weights,
    read_metadata,
    read_state,
    read_weights,
    sha256_of_files,
    sha256_of_state,
    variants,
    write_state,
    write_weights,
)
from safelight.errors import SafelightError


def _state():
    return {
        "a.weight": torch.randn(3, 4),
        "b": torch.randn(2, 2).half(),
        "c": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(7),
    }


def _same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert torch.equal(tensor, second[name])


def _refused(path, match, read=read_state):
    with pytest.raises(SafelightError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_state_comes_back_in_every_precision(tmp_path):
    state, path = _state(), tmp_path / "deep" / "x.safetensors"
    write_state(path, state, {"made by": "a test"})
    _same(read_state(path), state)
    _same(load_file(path), state)
    assert read_metadata(path) == {"format": "pt", "made by": "a test"}


def test_tied_and_strided_tensors_are_written_whole(tmp_path):
    tied = torch.randn(4, 4)
    channels_last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"a": tied, "b": tied, "c": tied.T, "d": tied[1:], "e": channels_last}
    write_state(tmp_path / "x.safetensors", state)
    _same(read_state(tmp_path / "x.safetensors"), state)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("limit", [60, 10_000])
def test_a_component_comes_back_from_shards_and_variants(tmp_path, variant, limit):
    state = _state()
    write_weights(tmp_path, "model", state, variant, max_shard_bytes=limit)
    _same(read_weights(tmp_path, "model", variant), state)
    _same(read_weights(tmp_path, "model"), state)  # the only variant there is
    shards = find_weights(tmp_path, "model", variant)
    assert (len(shards) > 1) == (limit == 60)
    assert all((f".{variant}" in path.name) == bool(variant) for path in shards)
    assert variants(tmp_path, "model") == ((variant,) if variant else ())


def test_the_plain_files_are_taken_before_a_variant(tmp_path):
    plain, half = {"a": torch.ones(1)}, {"a": torch.zeros(1).half()}
    write_weights(tmp_path, "model", plain)
    write_weights(tmp_path, "model", half, "fp16")
    _same(read_weights(tmp_path, "model"), plain)
    _same(read_weights(tmp_path, "model", "fp16"), half)


def test_what_is_not_there_is_said_with_what_is(tmp_path):
    with pytest.raises(SafelightError, match=r"holds nothing"):
        find_weights(tmp_path, "model")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(SafelightError, match=r"only pickled weights \(model\.bin\)"):
        find_weights(tmp_path, "model")
    write_weights(tmp_path, "model", _state(), "fp16")
    write_weights(tmp_path, "model", _state(), "ema")
    with pytest.raises(SafelightError, match="ema, fp16"):
        find_weights(tmp_path, "model")
    with pytest.raises(SafelightError, match="ema, fp16"):
        find_weights(tmp_path, "model", "bf16")


def test_a_broken_index_is_one_line(tmp_path):
    write_weights(tmp_path, "model", _state(), max_shard_bytes=60)
    index = tmp_path / "model.safetensors.index.json"
    whole = json.loads(index.read_text())

    missing = whole | {"weight_map": whole["weight_map"] | {"more": "other.safetensors"}}
    index.write_text(json.dumps(missing))
    _refused(tmp_path, "shards that are not there: other", lambda p: read_weights(p, "model"))

    shard = whole["weight_map"]["b"]
    index.write_text(json.dumps({"weight_map": whole["weight_map"] | {"more": shard}}))
    _refused(tmp_path, "promises 1 tensors.*'more'", lambda p: read_weights(p, "model"))

    for evil in ("../secret.safetensors", "/etc/passwd", "x.bin", 3, None):
        index.write_text(json.dumps({"weight_map": {"a": evil}}))
        _refused(tmp_path, "safetensors files beside it", lambda p: read_weights(p, "model"))
    for text in ("", "[]", "{}", "nonsense", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(text)
        _refused(tmp_path, "index", lambda p: read_weights(p, "model"))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    write_state(tmp_path / "one.safetensors", {"a": torch.ones(1)})
    write_state(tmp_path / "two.safetensors", {"a": torch.ones(1), "b": torch.ones(1)})
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    write_text(tmp_path / "m.safetensors.index.json", json.dumps({"weight_map": weight_map}))
    _refused(tmp_path, "repeats the tensor 'a'", lambda p: read_weights(p, "m"))


def _file(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


HOSTILE = {
    "empty": b"",
    "short": b"\x01",
    "absurd header length": b"\xff" * 8 + b"{}",
    "long header length": struct.pack("<Q", 90_000_000) + b"{}",
    "not json": _file(b"not json"),
    "not utf-8": _file(b'{"\xff": 1}'),
    "a list": _file([]),
    "no dtype": _file({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "unknown dtype": _file({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "overlapping": _file(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        },
        b"123456781234",
    ),
    "past the end": _file({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, b"1234"),
    "negative": _file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
    "backwards": _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
    "overflowing": _file(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"
    ),
    "wrong size": _file({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, b"1234"),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "a zip": b"PK\x03\x04" + b"\0" * 64,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HOSTILE[name])
    _refused(path, "not a readable safetensors file")
    _refused(path, "not a readable safetensors file", read_metadata)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 399), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_mutated_file_is_read_or_is_one_line(tmp_path_factory, at, byte, cut):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    path = folder / "x.safetensors"
    write_state(path, {"a.weight": torch.ones(3, 4), "b": torch.ones(2).half()})
    content = bytearray(path.read_bytes())
    if at < len(content):
        content[at] = byte
    path.write_bytes(content[: len(content) - cut] if cut < len(content) else b"")
    try:
        state = read_state(path)
    except SafelightError:
        return
    assert all(isinstance(tensor.sum().item(), (int, float, bool)) for tensor in state.values())


def test_a_path_that_is_no_file_is_one_line(tmp_path):
    _refused(tmp_path / "nowhere.safetensors", "not there")
    _refused(tmp_path, "a folder, not a file")


def test_the_hash_of_a_file_is_what_sha256sum_says(tmp_path):
    path = tmp_path / "x.safetensors"
    write_state(path, _state())
    said = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert sha256_of_files([path]) == said.split()[0]
    assert sha256_of_files([path, path]) != sha256_of_files([path])


def test_the_hash_of_a_state_sees_every_bit_and_not_the_order():
    state = _state()
    whole = sha256_of_state(state)
    assert sha256_of_state(dict(reversed(state.items()))) == whole
    assert sha256_of_state(state | {"count": torch.tensor(8)}) != whole
    assert sha256_of_state(state | {"b": state["b"].reshape(4)}) != whole
    assert sha256_of_state(state | {"b": state["b"].view(torch.bfloat16)}) != whole


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    with pytest.raises(FileNotFoundError), replacing_file(path):
        pass
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def _interrupted(path):
    with replacing_folder(path) as temporary:
        (temporary / "a").write_text("half")
        raise KeyboardInterrupt


def test_a_failed_folder_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    for content in ("first", "second"):
        with replacing_folder(path) as temporary:
            (temporary / "a").write_text(content)
        assert (path / "a").read_text() == content
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert (path / "a").read_text() == "second"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["model"]
