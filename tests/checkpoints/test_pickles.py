"""The restricted pickle machine: what PyTorch writes comes back, and nothing else happens."""

import functools
import io
import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from safelight.checkpoints.files import read_shapes, read_state, write_state
from safelight.checkpoints.pickle_machine import Unknown
from safelight.checkpoints.pickles import read_pickle
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8]


class _Evil:
    """What a hostile file would have run."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def _content():
    shared = torch.arange(12.0)
    return {
        "state_dict": OrderedDict(
            [
                (f"part.{i}", torch.arange(6).reshape(2, 3).to(dtype))
                for i, dtype in enumerate(DTYPES)
            ]
            + [
                ("turned", shared.reshape(3, 4).T),
                ("within", shared[2:5]),
                ("one", torch.tensor(3)),
            ]
        ),
        "step": 7,
        "empty": torch.empty(0, 4),
        "list": [1, 2.5, "text", None, True, (1, 2)],
        "set": {3},
        "parameter": nn.Parameter(torch.ones(2)),
        "many": 2**70,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_comes_back(zipped, tmp_path):
    path = tmp_path / "file"
    torch.save(_content(), path, _use_new_zipfile_serialization=zipped)
    back = read_pickle(path)
    wanted = _content()
    for name, tensor in wanted["state_dict"].items():
        assert back["state_dict"][name].dtype == tensor.dtype
        assert torch.equal(back["state_dict"][name], tensor)
    assert back["list"] == wanted["list"]
    assert (back["step"], back["many"]) == (7, 2**70)
    assert isinstance(back["set"], Unknown)
    assert torch.equal(back["parameter"], torch.ones(2))
    assert back["empty"].shape == (0, 4)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_hostile_file_runs(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    content = {"state_dict": {"a": torch.ones(2)}, "callbacks": _Evil(), "kind": _Evil}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    back = read_pickle(path)
    assert back["callbacks"] == Unknown(f"{os.system.__module__}.system")
    assert torch.equal(back["state_dict"]["a"], torch.ones(2))
    assert not (tmp_path / "hacked").exists()
    assert read_weights_file(path).state.keys() == {"a"}


def _zip(path, pickled, *, compression=zipfile.ZIP_STORED, **data):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, raw in data.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def _tensor_pickle(*, count=4, offset=0, shape=(2, 2), stride=(2, 1), kind="FloatStorage"):
    """The pickle of one tensor, with whatever numbers."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, stride, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", getattr(torch, kind), "0", "cpu", count)
            return None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"a": Tensor()})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"count": 5}, "cut short"),
        ({"offset": 1}, "beyond its storage"),
        ({"offset": -1}, "before its storage"),
        ({"shape": (2, 3)}, "beyond its storage"),
        ({"shape": (2, -2)}, "broken shape"),
        ({"shape": (2,)}, "broken shape"),
        ({"shape": (1,) * 20, "stride": (1,) * 20}, "broken shape"),
        ({"shape": (2**40, 2), "stride": (0, 1)}, "larger than the file"),
        ({"kind": "Tensor"}, "unknown kind"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(numbers, told, tmp_path):
    raw = struct.pack("<4f", 1, 2, 3, 4)
    good = read_pickle(_zip(tmp_path / "good", _tensor_pickle(), **{"0": raw}))
    assert good["a"].tolist() == [[1, 2], [3, 4]]
    bad = _zip(tmp_path / "bad", _tensor_pickle(**numbers), **{"0": raw})
    with pytest.raises(SafelightError, match=told) as caught:
        read_pickle(bad)
    assert "\n" not in str(caught.value)


def test_a_compressed_archive_is_refused_unread(tmp_path):
    bomb = _zip(
        tmp_path / "bomb",
        _tensor_pickle(count=2**26, shape=(2**26,), stride=(1,)),
        compression=zipfile.ZIP_DEFLATED,
        **{"0": bytes(2**22)},
    )
    with pytest.raises(SafelightError, match="compressed"):
        read_pickle(bomb)


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02}",
        b"\x80\x02(u.",
        b"\x80\x02h\x05.",
        b"\x80\x02a.",
        b"\x80\x02\x87.",
        b"\x80\x02\x8a\xffx.",
        b"\x80\x02X\xff\xff\xff\x7fx.",
        b"\x80\x02\x82\x01.",  # an extension registry's entry
        b"\x80\x02K\x01Q.",
        b"garbage of no kind at all",
    ],
)
def test_a_broken_pickle_is_one_line(pickled, tmp_path):
    for path in (_zip(tmp_path / "zip", pickled), tmp_path / "plain"):
        if path.name == "plain":
            path.write_bytes(pickled)
        with pytest.raises(SafelightError, match="not a readable PyTorch file") as caught:
            read_pickle(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world, this is text", b"<html>not found</html>", b"PK\x03\x04 and no more"],
)
def test_what_is_no_file_of_weights_is_told_in_words(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafelightError) as caught:
        read_weights_file(path)
    assert str(caught.value).startswith(f"{path} is not a readable PyTorch file (")
    assert str(caught.value).endswith("copy or download it again.")
    assert not re.search(r"\(\W?\d+\W?\)", str(caught.value))


def test_a_key_that_is_missing_is_told_in_words(tmp_path):
    broken = _zip(tmp_path / "zip", b"\x80\x02h\x05.")
    with pytest.raises(SafelightError, match=r"file \(it is broken\)"):
        read_pickle(broken)


@pytest.mark.parametrize("read", [read_weights_file, read_state, read_shapes])
def test_a_file_that_may_not_be_read_is_one_line(read, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write_state(path, {"a": torch.ones(1)})

    def refused(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(SafelightError, match=r"Cannot read the weights file .*: Permission denied"):
        read(path)


def test_keys_that_would_be_hashed_for_ever_are_passed_over(tmp_path):
    deep = b"\x80\x02}(N" + b"2\x86" * 60 + b"K\x01u."  # a pair of the pair of the pair of ...
    pickletools.dis(deep, io.StringIO())  # a pickle of good form
    assert read_pickle(_zip(tmp_path / "deep", deep)) == {}


def test_a_storage_key_that_doubles_is_refused(tmp_path):
    key = b"(K\x01K\x01tq\x01" + b"0h\x01h\x01\x86q\x01" * 60
    deep = b"\x80\x02}X\x01\x00\x00\x00a(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    deep += key + b"X\x03\x00\x00\x00cpuK\x01tQs."
    with pytest.raises(SafelightError, match="key is no short text"):
        read_pickle(_zip(tmp_path / "deep", deep))


def test_numbers_that_share_a_hash_are_passed_over(tmp_path):
    path = tmp_path / "hashes"
    torch.save({(2**61 - 1) * n: n for n in range(1, 50)} | {7: 1}, path)
    assert read_pickle(path) == {7: 1}
    memo = b"\x80\x02Np" + str(2**61 - 1).encode() + b"\n."
    with pytest.raises(SafelightError, match="absurd memo"):
        read_pickle(_zip(tmp_path / "memo", memo))


def test_a_large_file_of_another_kind_is_not_read_whole(tmp_path):
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: as large as a film, without its bytes
    with pytest.raises(SafelightError, match="neither safetensors nor"):  # not that memory is short
        read_pickle(path)


@functools.cache  # an old file names its storages by addresses, so that two differ in length
def _whole_file(zipped: bool) -> bytes:
    stream = io.BytesIO()
    state = {"state_dict": {"a": torch.ones(3), "b": torch.ones(2, 2)}, "n": 1}
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path, data):
    path = tmp_path / "file"
    raw = bytearray(_whole_file(data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    path.write_bytes(raw)
    refusal = None
    try:
        read_weights_file(path)
    except SafelightError as error:
        refusal = str(error)
    assert refusal is None or "\n" not in refusal
