"""Two-way key tables between our parameter names and a file's, and strict loading by them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.files import State
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Rule:
    """One row of a key table: a name of ours beside the name in the file.

    A placeholder such as `{rest}` stands for any text, the same on both sides. `transform` names
    how the file keeps the tensor otherwise, an entry of `TRANSFORMS`.
    """

    ours: str
    theirs: str
    transform: str | None = None


@dataclass(frozen=True)
class Joined:
    """One row of a key table whose one tensor in the file is several of ours, one below the other.

    The parts are equally long along their first axis.
    """

    ours: tuple[str, ...]
    theirs: str


@dataclass(frozen=True)
class Transform:
    """How a tensor is kept in a file, and its inverse."""

    to_theirs: Callable[[Tensor], Tensor]
    to_ours: Callable[[Tensor], Tensor]


def _without_window(tensor: Tensor) -> Tensor:
    return tensor[:, :, 0, 0] if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous() if tensor.ndim == 2 else tensor


TRANSFORMS = {
    # a linear layer as a convolution of one pixel; files of later tools have it linear too
    "pointwise": Transform(lambda t: t[:, :, None, None] if t.ndim == 2 else t, _without_window),
    "transposed": Transform(_transposed, _transposed),
}


@dataclass(frozen=True)
class Table:
    """Rows in the order they are tried, and the file's keys that carry nothing and are dropped.

    Where several rows have the same `ours`, the first is how it is written and the others are older
    spellings that are read as well.
    """

    rules: tuple[Rule, ...]
    dropped: tuple[str, ...] = ()
    joined: tuple[Joined, ...] = ()

    @cached_property
    def by_ours(self) -> "Templates":
        """Our side of the rules."""
        return Templates([rule.ours for rule in self.rules])

    @cached_property
    def by_theirs(self) -> "Templates":
        """The file's side of the rules."""
        return Templates([rule.theirs for rule in self.rules])


class Templates:
    """Templates by the whole words that they begin with, so that a key is tried with a few alone.

    There are as many as a network has layers, and a file may have a layer for each of its keys.
    """

    def __init__(self, templates: Sequence[str]):
        self._templates = templates
        self._places: dict[str, list[int]] = {}
        for place, template in enumerate(templates):
            head = template.partition("{")[0].rpartition(".")[0]
            self._places.setdefault(head, []).append(place)
        self._longest = max((1 + head.count(".") for head in self._places), default=0)

    def first(self, key: str) -> tuple[int, dict[str, str]] | None:
        """The place of the first template that fits, and the text of its placeholders."""
        words = key.split(".", self._longest)
        heads = (".".join(words[:count]) for count in range(len(words)))
        for place in sorted(place for head in heads for place in self._places.get(head, ())):
            found = _match(self._templates[place], key)
            if found is not None:
                return place, found
        return None


def to_ours(table: Table, state: Mapping[str, Tensor], source: str) -> State:
    """Renames a file's tensors to our names; `source` names the file in errors.

    Raises `SafelightError` for a key that no row covers, or for two keys that mean the same tensor.
    """
    renamed: State = {}
    spelled: dict[str, str] = {}
    for key, tensor in state.items():
        if any(_match(template, key) is not None for template in table.dropped):
            continue
        for name, part in _named_ours(table, key, tensor, source):
            if name in renamed:
                raise SafelightError(
                    f"{source} holds {key!r} and {spelled[name]!r}: one tensor twice."
                )
            renamed[name] = part
            spelled[name] = key
    return renamed


def from_ours(table: Table, state: Mapping[str, Tensor]) -> State:
    """Renames our tensors to the file's names: the inverse of `to_ours`.

    Raises `KeyError` for a name that no row covers, or for a part whose fellows are not there.
    """
    named: State = {}
    parts: dict[tuple[str, int], dict[int, Tensor]] = {}
    for name, tensor in state.items():
        joined = _place(table, name)
        if joined is not None:
            theirs, place, count = joined
            parts.setdefault((theirs, count), {})[place] = tensor
            continue
        rule, theirs = _theirs(table, name)
        named[theirs] = TRANSFORMS[rule.transform].to_theirs(tensor) if rule.transform else tensor
    for (theirs, count), members in parts.items():
        named[theirs] = torch.cat([members[place] for place in range(count)])
    return named


def their_name(table: Table, name: str) -> str:
    """The file's name of one of our tensors; `KeyError` if no row covers it."""
    joined = _place(table, name)
    if joined is not None:
        return joined[0]
    return _theirs(table, name)[1]


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    table: Table,
    *,
    what: str,
    source: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Gives a module, which may be on the meta device, exactly a file's tensors, in `dtype`.

    `what` says what the file should hold ("an autoencoder of 4 levels"), `source` names it.

    Raises `SafelightError`, one message, if any tensor is missing, left over, of another shape, or
    of whole numbers where floating point is expected; the module is then untouched.
    """
    renamed = to_ours(table, state, source)
    expected = module.state_dict()
    complaints = [
        _complaint("missing", [their_name(table, name) for name in expected.keys() - renamed]),
        _complaint("left over", [their_name(table, name) for name in renamed.keys() - expected]),
        _complaint(
            "misshapen",
            [
                f"{their_name(table, name)} is {_shape(renamed[name])}, not {_shape(tensor)}"
                for name, tensor in expected.items()
                if name in renamed and renamed[name].shape != tensor.shape
            ],
        ),
        _complaint(
            "of the wrong kind",
            [
                f"{their_name(table, name)} is {renamed[name].dtype}"
                for name, tensor in expected.items()
                if name in renamed
                and renamed[name].is_floating_point() != tensor.is_floating_point()
            ],
        ),
    ]
    if any(complaints):
        raise SafelightError(
            f"{source} does not hold {what}: {'; '.join(filter(None, complaints))}. "
            f"By its keys it is {describe_state(state)}."
        )
    module.load_state_dict(
        {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in renamed.items()
        },
        assign=True,
    )


def _complaint(kind: str, items: Iterable[str]) -> str:
    listed = sorted(items)
    if not listed:
        return ""
    more = f" and {len(listed) - 2} more" if len(listed) > 2 else ""
    return f"{kind}: {', '.join(listed[:2])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _named_ours(
    table: Table, key: str, tensor: Tensor, source: str
) -> Iterable[tuple[str, Tensor]]:
    """A file's tensor under our name, or its parts under theirs."""
    for row in table.joined:
        found = _match(row.theirs, key)
        if found is not None:
            count = len(row.ours)
            if tensor.ndim < 1 or tensor.shape[0] % count:
                raise SafelightError(
                    f"{source} holds {key!r} of shape {_shape(tensor)}, which should split into "
                    f"{count} equal parts."
                )
            names = [ours.format_map(found) for ours in row.ours]
            return zip(names, tensor.chunk(count), strict=True)
    fitting = table.by_theirs.first(key)
    if fitting is None:
        raise SafelightError(f"{source} holds {key!r}, which no row of its key table covers.")
    rule = table.rules[fitting[0]]
    name = rule.ours.format_map(fitting[1])
    return [(name, TRANSFORMS[rule.transform].to_ours(tensor) if rule.transform else tensor)]


def _place(table: Table, name: str) -> tuple[str, int, int] | None:
    """The file's tensor that one of ours is a part of, which part, and of how many."""
    for row in table.joined:
        for place, ours in enumerate(row.ours):
            found = _match(ours, name)
            if found is not None:
                return row.theirs.format_map(found), place, len(row.ours)
    return None


def _theirs(table: Table, name: str) -> tuple[Rule, str]:
    """The first rule that fits one of our names, and the file's name by it."""
    fitting = table.by_ours.first(name)
    if fitting is None:
        raise KeyError(name)
    rule = table.rules[fitting[0]]
    return rule, rule.theirs.format_map(fitting[1])


def _match(template: str, key: str) -> dict[str, str] | None:
    found = _pattern(template).fullmatch(key)
    return None if found is None else found.groupdict()


@lru_cache(maxsize=10_000)
def _pattern(template: str) -> re.Pattern[str]:
    literals_and_names = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            f"(?P<{piece}>.+)" if index % 2 else re.escape(piece)
            for index, piece in enumerate(literals_and_names)
        )
    )
