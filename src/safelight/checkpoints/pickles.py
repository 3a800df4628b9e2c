"""PyTorch's pickled files, read by a machine that builds tensors and plain values and nothing else.

Nothing that a file names is imported or called. Names are matched with the handful below; every
other object, such as a training program's callbacks, becomes an inert `Unknown`.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from safelight.errors import SafelightError

_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of PyTorch before 1.6
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MOST_INSTRUCTIONS = 20_000_000  # a tensor takes some 50
_MOST_PICKLE_BYTES = 256 * 1024**2
_MOST_SHARING = 4  # how many times over tensors may share the file's bytes
_MOST_DIMENSIONS = 16

StorageOf = Callable[[torch.dtype, str, int], Tensor]
"""The flat tensor (n,) of a storage by dtype, key and number of elements."""


@dataclass(frozen=True)
class Unknown:
    """An object of a kind that is not built: its name alone."""

    name: str


@dataclass(frozen=True)
class _Name:
    """Something that a pickle imports, by name."""

    module: str
    name: str


def read_pickle(path: Path) -> object:
    """What a `.ckpt`, `.pt`, `.pth` or `.bin` of PyTorch holds: tensors, numbers, text, lists,
    tuples and dictionaries, and `Unknown` for all else.

    Tensors of a file of PyTorch 1.6 or later are mapped from it, and cost memory once touched.

    Raises `SafelightError`, one line, if the file is truncated, hostile, or no such file.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return _read_zip(path) if zipped else _read_legacy(path)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        told = str(error).split("\n")[0][:200] or type(error).__name__
        raise SafelightError(f"{path} is not a readable PyTorch file ({told}).") from error


def _read_zip(path: Path) -> object:
    mapped = np.memmap(path, dtype=np.uint8, mode="c")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("a zip archive without a data.pkl of its own")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order is not None and _bytes_of(mapped, order).tobytes() != b"little":
            raise ValueError("its numbers are not little-endian")
        pickled = _bytes_of(mapped, entries[pickles[0]])

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise ValueError(f"it lacks the bytes of storage {key[:40]!r}")
        raw = _bytes_of(mapped, entry)
        if count * dtype.itemsize > len(raw):
            raise ValueError(f"storage {key[:40]!r} is cut short")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        return torch.from_numpy(raw[: count * dtype.itemsize]).view(dtype)  # pyright: ignore[reportUnknownMemberType]

    if len(pickled) > _MOST_PICKLE_BYTES:
        raise ValueError("its data.pkl is absurdly long")
    return _Machine(storage, _MOST_SHARING * len(mapped)).run(BytesIO(pickled.tobytes()))


def _bytes_of(mapped: "np.ndarray[tuple[int], np.dtype[np.uint8]]", entry: zipfile.ZipInfo):
    """The bytes of a zip archive's entry, which must be stored as they are: a view (n,)."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename[:40]!r} in it is compressed or encrypted")
    start = entry.header_offset
    header = mapped[start : start + 30].tobytes()
    if header[:4] != b"PK\x03\x04" or len(header) < 30:
        raise ValueError(f"{entry.filename[:40]!r} in it is not where its table says")
    name, extra = struct.unpack("<HH", header[26:30])
    begin = start + 30 + name + extra
    if begin + entry.file_size > len(mapped):
        raise ValueError(f"{entry.filename[:40]!r} in it is cut short")
    return mapped[begin : begin + entry.file_size]


def _read_legacy(path: Path) -> object:
    """A file of PyTorch before 1.6: five pickles, then each storage's length and bytes."""
    raw = path.read_bytes()
    stream, storages = BytesIO(raw), dict[str, Tensor]()

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        known = storages.get(key)
        if known is None:
            spent = sum(tensor.nbytes for tensor in storages.values())
            if spent + count * dtype.itemsize > len(raw):
                raise ValueError("its storages are larger than the file")
            known = storages[key] = torch.zeros(count, dtype=dtype)
        return known

    def pickled() -> object:
        return _Machine(storage, _MOST_SHARING * len(raw)).run(stream)

    if raw[:1] != b"\x80" or pickled() != _MAGIC:
        raise ValueError("neither safetensors nor a PyTorch file")
    pickled()  # the version of the protocol
    machine = pickled()
    if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:  # pyright: ignore[reportUnknownMemberType]
        raise ValueError("its numbers are not little-endian")
    root = pickled()
    for key in cast(list[object], pickled()):
        count = struct.unpack("<q", stream.read(8))[0]
        tensor = storages.get(str(key))
        if tensor is None or count != len(tensor):
            raise ValueError(f"storage {str(key)[:40]!r} is not of the length that its tensors say")
        data = stream.read(tensor.nbytes)
        if len(data) < tensor.nbytes:
            raise ValueError("its data is cut short")
        if data:
            tensor.copy_(torch.frombuffer(bytearray(data), dtype=tensor.dtype))
    return root


class _Machine:
    """The pickle machine (Python's `pickletools` describes it) with nothing dangerous in it."""

    def __init__(self, storage_of: StorageOf, most_bytes: int):
        self._storage_of = storage_of
        self._bytes_left = most_bytes
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def run(self, stream: BytesIO) -> object:
        """The value of the pickle that begins where the stream stands; it is left at its end."""
        for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if number > _MOST_INSTRUCTIONS:
                raise ValueError("its pickle has an absurd number of instructions")
            if code.name == "STOP":
                return self._stack.pop()
            self._do(code.name, argument)
        raise ValueError("its pickle has no end")

    def _do(self, name: str, argument: object) -> None:
        if name in _NOTHING:
            return
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[cast(int, argument)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[cast(int, argument)])
        else:
            step = _STEPS.get(name)
            if step is None:
                raise ValueError(f"its pickle has the instruction {name}, which no weights need")
            step(self, argument)

    def memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[object]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def pop_mark(self, _: object) -> None:
        self._since_mark()

    def dup(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def list_(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def tuple_(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def dict_(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("its pickle takes from an empty stack")
        items = self._stack[-count:]
        del self._stack[-count:]
        self._stack.append(tuple(items))

    def tuple1(self, _: object) -> None:
        self._tuple_of(1)

    def tuple2(self, _: object) -> None:
        self._tuple_of(2)

    def tuple3(self, _: object) -> None:
        self._tuple_of(3)

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            cast(list[object], target).extend(items)

    def setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def setitems(self, _: object) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[object]) -> None:
        """Keys are text and numbers: the hash of tuples in tuples can take for ever."""
        target = self._stack[-1]
        if not isinstance(target, dict):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, (str, int, float, bool, bytes)):
                cast(dict[object, object], target)[key] = value

    def global_(self, argument: object) -> None:
        module, _, name = cast(str, argument).partition(" ")
        self._stack.append(_Name(module, name))

    def stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle imports what is not a name")
        self._stack.append(_Name(module, name))

    def reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(function, arguments))

    def newobj(self, _: object) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(kind, arguments))

    def newobj_ex(self, _: object) -> None:
        self._stack.pop()
        self.newobj(None)

    def inst(self, argument: object) -> None:
        self._since_mark()
        self._stack.append(Unknown(cast(str, argument).replace(" ", ".")))

    def obj(self, _: object) -> None:
        items = self._since_mark()
        kind = items[0] if items else None
        self._stack.append(Unknown(_spelled(kind)))

    def build(self, _: object) -> None:
        self._stack.pop()  # the state of an object: what is built here has none

    def persistent(self, _: object) -> None:
        reference = self._stack.pop()
        if not isinstance(reference, tuple) or len(cast(tuple[object, ...], reference)) < 5:
            raise ValueError("its pickle refers to something that is not a storage")
        what, kind, key, _, count = cast(tuple[object, ...], reference)[:5]
        dtype = _DTYPES.get(kind.name) if isinstance(kind, _Name) else None
        if what != "storage" or dtype is None or not isinstance(count, int) or count < 0:
            raise ValueError(f"it has a storage of an unknown kind, {_spelled(kind)[:60]}")
        self._stack.append(self._storage_of(dtype, str(key), count))

    def _called(self, function: object, arguments: object) -> object:
        """What the few known calls give; of any other, its name alone."""
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            return Unknown(_spelled(function))
        given = cast(tuple[object, ...], arguments)
        match function.module, function.name:
            case "collections", "OrderedDict" if not given:
                return {}
            case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" if len(given) >= 4:
                return self._tensor(*given[:4])
            case "torch._utils", "_rebuild_parameter" if given and isinstance(given[0], Tensor):
                return given[0]
            case "torch", "Size" if len(given) == 1:
                return given[0]
            case _:
                return Unknown(_spelled(function))

    def _tensor(self, storage: object, offset: object, shape: object, stride: object) -> Tensor:
        sizes, steps = _lengths(shape), _lengths(stride)
        if not isinstance(storage, Tensor) or len(sizes) != len(steps):
            raise ValueError("it has a tensor without a storage, or of a broken shape")
        if not isinstance(offset, int) or offset < 0:
            raise ValueError("it has a tensor that begins before its storage")
        count = math.prod(sizes)
        last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if count and last >= len(storage):
            raise ValueError("it has a tensor that reaches beyond its storage")
        self._bytes_left -= count * storage.dtype.itemsize
        if self._bytes_left < 0:
            raise ValueError("its tensors are many times larger than the file")
        return torch.as_strided(storage, sizes, steps, offset if count else 0)


def _lengths(value: object) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(cast(tuple[object], value)) > _MOST_DIMENSIONS:
        raise ValueError("it has a tensor of a broken shape")
    items = cast(tuple[object, ...], value)
    lengths = tuple(item for item in items if isinstance(item, int) and 0 <= item < 2**48)
    if len(lengths) != len(items):
        raise ValueError("it has a tensor of a broken shape")
    return lengths


def _spelled(value: object) -> str:
    return f"{value.module}.{value.name}" if isinstance(value, _Name) else type(value).__name__


_NOTHING = frozenset(("PROTO", "FRAME"))
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_EMPTY: Mapping[str, Callable[[], object]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_STEPS: Mapping[str, Callable[[_Machine, object], None]] = {
    "MEMOIZE": _Machine.memoize,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    "LIST": _Machine.list_,
    "TUPLE": _Machine.tuple_,
    "DICT": _Machine.dict_,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "FROZENSET": _Machine.list_,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.newobj,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
