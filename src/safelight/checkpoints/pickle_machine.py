"""A pickle machine that builds tensors and plain values and nothing else.

Nothing that a pickle names is imported or called. Names are matched with the handful below; every
other object, such as a training program's callbacks, becomes an inert `Unknown`.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import cast

import torch
from torch import Tensor

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
_MOST_INSTRUCTIONS = 3_000_000  # a tensor takes some 50
_MOST_DIMENSIONS = 16
_LONGEST_KEY = 256
_LARGEST_KEY = 2**31  # ints above it can be chosen to share one hash
_COST = 64  # bytes that a tensor or a container takes, however little it holds

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


class PickleMachine:
    """The pickle machine (Python's `pickletools` describes it) with nothing dangerous in it."""

    def __init__(self, storage_of: StorageOf, most_bytes: int):
        self._storage_of = storage_of
        self._bytes_left = most_bytes
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._steps: Mapping[str, Callable[[object], None]] = {
            "MEMOIZE": self._memoize,
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._pop_mark,
            "DUP": self._dup,
            "LIST": self._make_list,
            "TUPLE": self._make_tuple,
            "DICT": self._make_dict,
            "TUPLE1": self._tuple1,
            "TUPLE2": self._tuple2,
            "TUPLE3": self._tuple3,
            "APPEND": self._append,
            "APPENDS": self._appends,
            "ADDITEMS": self._appends,
            "FROZENSET": self._make_list,
            "SETITEM": self._setitem,
            "SETITEMS": self._setitems,
            "GLOBAL": self._make_global,
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "NEWOBJ": self._newobj,
            "NEWOBJ_EX": self._newobj_ex,
            "INST": self._inst,
            "OBJ": self._obj,
            "BUILD": self._build,
            "BINPERSID": self._persistent,
        }

    def run(self, stream: BytesIO | BufferedReader) -> object:
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
            if not 0 <= cast(int, argument) <= _MOST_INSTRUCTIONS:
                raise ValueError("its pickle has an absurd memo")
            self._memo[cast(int, argument)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[cast(int, argument)])
        else:
            step = self._steps.get(name)
            if step is None:
                raise ValueError(f"its pickle has the instruction {name}, which no weights need")
            step(argument)

    def _memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[object]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: object) -> None:
        self._since_mark()

    def _dup(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def _make_list(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _make_tuple(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _make_dict(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("its pickle takes from an empty stack")
        items = self._stack[-count:]
        del self._stack[-count:]
        self._stack.append(tuple(items))

    def _tuple1(self, _: object) -> None:
        self._tuple_of(1)

    def _tuple2(self, _: object) -> None:
        self._tuple_of(2)

    def _tuple3(self, _: object) -> None:
        self._tuple_of(3)

    def _append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: object) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            cast(list[object], target).extend(items)

    def _setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _setitems(self, _: object) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[object]) -> None:
        """Keys are text and small numbers, others are passed over: the hash of tuples in tuples can
        take for ever, and numbers can be chosen so that all of them fall into one place.
        """
        target = self._stack[-1]
        if not isinstance(target, dict):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, (str, bytes)) or (isinstance(key, int) and abs(key) < _LARGEST_KEY):
                cast(dict[object, object], target)[key] = value

    def _make_global(self, argument: object) -> None:
        module, _, name = cast(str, argument).partition(" ")
        self._stack.append(_Name(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle imports what is not a name")
        self._stack.append(_Name(module, name))

    def _reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(function, arguments))

    def _newobj(self, _: object) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        self._stack.append(self._called(kind, arguments))

    def _newobj_ex(self, _: object) -> None:
        self._stack.pop()
        self._newobj(None)

    def _inst(self, argument: object) -> None:
        self._since_mark()
        self._stack.append(Unknown(cast(str, argument).replace(" ", ".")))

    def _obj(self, _: object) -> None:
        items = self._since_mark()
        kind = items[0] if items else None
        self._stack.append(Unknown(_spelled(kind)))

    def _build(self, _: object) -> None:
        self._stack.pop()  # the state of an object: what is built here has none

    def _persistent(self, _: object) -> None:
        reference = self._stack.pop()
        if not isinstance(reference, tuple) or len(cast(tuple[object, ...], reference)) < 5:
            raise ValueError("its pickle refers to something that is not a storage")
        what, kind, key, _, count = cast(tuple[object, ...], reference)[:5]
        dtype = _DTYPES.get(kind.name) if isinstance(kind, _Name) else None
        if what != "storage" or dtype is None or not isinstance(count, int) or count < 0:
            raise ValueError(f"it has a storage of an unknown kind, {_spelled(kind)[:60]}")
        self._stack.append(self._storage_of(dtype, storage_key(key), count))

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
        self._bytes_left -= count * storage.dtype.itemsize + _COST
        if self._bytes_left < 0:
            raise ValueError("its tensors are many times larger than the file")
        return torch.as_strided(storage, sizes, steps, offset if count else 0)


def storage_key(value: object) -> str:
    """The name of a storage; `ValueError` for anything but short text, which all writers use."""
    if not isinstance(value, str) or len(value) > _LONGEST_KEY:
        raise ValueError("it has a storage whose key is no short text")
    return value


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
