import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.config import (
    from_dict,
    near,
    override,
    parse_value,
    read_json,
    read_toml,
    to_dict,
    to_toml,
)
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    several: tuple[Inner, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["eps", "v"] = "eps"
    path: Path | None = None
    flag: bool = False
    either: int | str = 0
    table: dict[str, int] = field(default_factory=dict)
    listed: list[int] = field(default_factory=list)
    read_only: Mapping[str, Sequence[float]] = field(default_factory=dict)
    derived: int = field(default=7, init=False)


def test_every_kind_of_field():
    values = {
        "steps": 3,
        "inner": {"rate": 2, "names": ["a", "b"]},
        "several": [{"rate": 0.5}, {}],
        "pair": [4, 5],
        "kind": "v",
        "path": "some/where",
        "flag": True,
        "either": "x",
        "table": {"a": 1},
        "listed": [1, 2],
        "read_only": {"r": [1, 2.5]},
    }
    built = from_dict(Outer, values)
    assert built == Outer(
        steps=3,
        inner=Inner(2.0, ("a", "b")),
        several=(Inner(0.5), Inner()),
        pair=(4, 5.0),
        kind="v",
        path=Path("some/where"),
        flag=True,
        either="x",
        table={"a": 1},
        listed=[1, 2],
        read_only={"r": (1.0, 2.5)},
    )
    assert isinstance(built.inner.rate, float)
    assert isinstance(built.pair[1], float)
    assert from_dict(Outer, to_dict(built)) == built
    assert from_dict(Outer, tomllib.loads(to_toml(to_dict(built)))) == built
    assert from_dict(Outer, {"steps": 1}) == Outer(1)
    assert from_dict(Outer, {"steps": 1, "path": None}).path is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "Missing key 'steps'."),
        ({"step": 1}, "Unknown key 'step'. Did you mean 'steps'"),
        ({"steps": 1, "zzz": 1}, "Unknown key 'zzz'. Known: either, flag, inner,"),
        ({"steps": 1, "derived": 1}, "Unknown key 'derived'"),
        ({"steps": 1, "inner": {"ratte": 1}}, "Unknown key 'inner.ratte'. Did you mean 'rate'?"),
        ({"steps": 1.5}, "steps should be int, got 1.5"),
        ({"steps": True}, "steps should be int, got True"),
        ({"steps": None}, "steps should be int, got None"),
        ({"steps": "3"}, "steps should be int, got '3'"),
        ({"steps": 1, "inner": {"rate": True}}, "inner.rate should be float, got True"),
        ({"steps": 1, "inner": {"rate": 10**400}}, "inner.rate is a whole number beyond"),
        ({"steps": 1, "inner": 3}, "inner should be a table, got 3"),
        ({"steps": 1, "inner": {"names": "ab"}}, "inner.names should be a list, got 'ab'"),
        ({"steps": 1, "inner": {"names": ["a", 1]}}, "inner.names[1] should be str, got 1"),
        ({"steps": 1, "several": [{}, {"rate": "x"}]}, "several[1].rate should be float"),
        ({"steps": 1, "several": {"rate": 1}}, "several should be a list"),
        ({"steps": 1, "pair": [1]}, "pair should hold 2 values, got 1"),
        ({"steps": 1, "kind": "epps"}, "kind = 'epps': Did you mean 'eps'?"),
        ({"steps": 1, "flag": 1}, "flag should be bool, got 1"),
        ({"steps": 1, "either": 1.5}, "either should be str, got 1.5"),
        ({"steps": 1, "path": 3}, "path should be Path, got 3"),
        ({"steps": 1, "table": [1]}, "table should be a table, got [1]"),
        ({"steps": 1, "table": {"a": "b"}}, "table.a should be int, got 'b'"),
    ],
)
def test_mistakes_name_the_key_and_the_remedy(values: dict[str, object], told: str):
    with pytest.raises(SafelightError) as caught:
        from_dict(Outer, values)  # type: ignore[arg-type]
    assert told in str(caught.value)


def test_the_source_is_named():
    with pytest.raises(SafelightError, match=r"Unknown key 'unet\.stepps'"):
        from_dict(Outer, {"stepps": 1}, "unet")


numbers = st.integers() | st.floats(allow_nan=False) | st.booleans()
text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = numbers | text
flat = st.dictionaries(text, scalars | st.lists(scalars, max_size=3), max_size=3)
tables = st.recursive(
    flat,
    lambda inner: st.dictionaries(text, scalars | inner | st.lists(inner, max_size=2), max_size=3),
    max_leaves=4,
)


@given(tables)
def test_whatever_toml_can_hold_reads_back_as_it_was(values: dict[str, object]):
    written = to_toml(values)  # type: ignore[arg-type]
    read = tomllib.loads(written)
    assert read == values
    assert repr(read) == repr(in_order(values))  # 1 is not 1.0, nor True


def in_order(values: dict[str, object]) -> dict[str, object]:
    """Tables after scalars, as they are written."""
    scalars = {k: v for k, v in values.items() if not isinstance(v, dict)}
    return scalars | {k: in_order(v) for k, v in values.items() if isinstance(v, dict)}


def test_toml_leaves_out_none_at_any_depth_but_not_in_lists():
    values = {"a": None, "b": {"c": None}, "d": [{"e": None, "f": 1}]}
    assert tomllib.loads(to_toml(values)) == {"b": {}, "d": [{"f": 1}]}
    with pytest.raises(TypeError, match="None within a list"):
        to_toml({"a": [1, None]})


def test_nan_and_infinities():
    values = {"a": float("nan"), "b": float("-inf"), "c": [float("inf")]}
    read = tomllib.loads(to_toml(values))
    assert str(read) == "{'a': nan, 'b': -inf, 'c': [inf]}"


def test_what_is_no_plain_value_cannot_be_written():
    @dataclass
    class Odd:
        value: object

    with pytest.raises(TypeError, match="complex"):
        to_dict(Odd(1j))


@pytest.mark.parametrize(
    ("read", "content", "told"),
    [
        (read_json, b"{", "is not valid JSON"),
        (read_json, b"[1]", "should hold a JSON object, not list"),
        (read_json, b"\xff", "is not valid JSON"),
        (read_json, b"[" * 100_000, "is not valid JSON"),
        (read_json, b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (read_toml, b"a =", "is not valid TOML"),
        (read_toml, b"a = 1\na = 2", "is not valid TOML"),
        (read_toml, b"\xff", "is not valid TOML"),
        (read_toml, b"a = " + b"[" * 100_000, "is not valid TOML"),
        (read_toml, b"a = " + b"1" * 5000, "is not valid TOML"),
    ],
)
def test_broken_files_are_told_in_one_line(tmp_path: Path, read: object, content: bytes, told: str):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(SafelightError) as caught:
        read(path)  # type: ignore[operator]
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_absent_files_are_told_in_one_line(tmp_path: Path, read: object):
    with pytest.raises(SafelightError, match=r"Cannot read .*absent: No such file"):
        read(tmp_path / "absent")  # type: ignore[operator]
    with pytest.raises(SafelightError, match="Cannot read"):
        read(tmp_path)  # type: ignore[operator]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes("\ufeffa = 'ä'".encode())
    assert read_toml(path) == {"a": "ä"}
    path.write_bytes('\ufeff{"a": "ä"}'.encode())
    assert read_json(path) == {"a": "ä"}


def test_override():
    values = {"a": {"b": 1}, "c": 2}
    override(values, "a.b", 3)
    override(values, "d.e.f", "new")
    override(values, "c", None)
    assert values == {"a": {"b": 3}, "c": None, "d": {"e": {"f": "new"}}}
    with pytest.raises(SafelightError, match=r"Cannot set 'a\.b\.x': 'b' is a value"):
        override(values, "a.b.x", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-4", 1e-4),
        ("true", True),
        ("True", "True"),
        ("[1, 2]", [1, 2]),
        ('"1"', "1"),
        ("{a = 1}", {"a": 1}),
        ("runs/a b.toml", "runs/a b.toml"),
        ("", ""),
        ("2024-01-02", "2024-01-02"),
        ("10:30:00", "10:30:00"),
        ("1" * 5000, "1" * 5000),
        ("[" * 10_000, "[" * 10_000),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_values_from_the_command_line(text: str, value: object):
    assert parse_value(text) == value


def test_near_names_what_is_near_or_all():
    names = ["euler", "euler_a", "ddim", "heun"]
    assert near("eular", names).startswith("Did you mean 'euler' or 'euler_a'")
    assert near("zzzz", names) == "Known: ddim, euler, euler_a, heun."
    assert near("ddmi", iter(names)) == "Did you mean 'ddim'?"
