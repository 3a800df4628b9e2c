"""What a model can be conditioned on beside its prompt: the kinds, as its `conditions.json` names
them.

A recipe chooses among them, a finished model lists those that it has learned. Each takes part in
one field of `Conditioning` alone. All of them are null where nothing is given.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from safelight.config import Value, from_dict, near, to_dict
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Class:
    """One of the classes `names`, embedded beside the time (Ho and Salimans 2022, arXiv 2207.12598;
    Peebles and Xie 2023, arXiv 2212.09748, section 3.1, for the null as a class of its own).
    """

    names: tuple[str, ...]
    kind: Literal["class"] = "class"

    def __post_init__(self):
        if not self.names or len(set(self.names)) < len(self.names):
            raise SafelightError("A class condition should have names, each once.")


@dataclass(frozen=True)
class Depth:
    """A map of one number a pixel, in channels beside the latent, as Stable Diffusion 2's
    depth-to-image has it; each latent cell sees `detail` x `detail` numbers of it.
    """

    detail: int = 1
    kind: Literal["depth"] = "depth"


@dataclass(frozen=True)
class Semantic:
    """Classes painted in colours, a name to a colour such as "#ff0000"; a pixel is of the nearest.

    They are channels beside the latent, one a class (Rombach et al. 2022, section 4.3.2); each
    latent cell sees `detail` x `detail` places of the map.
    """

    palette: Mapping[str, str]
    detail: int = 1
    kind: Literal["semantic"] = "semantic"

    def __post_init__(self):
        if len(self.palette) < 2:
            raise SafelightError("A semantic condition should have a palette of two or more.")
        for name, colour in self.palette.items():
            if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
                raise SafelightError(
                    f'The colour of {name} should be such as "#ff8000", got {colour!r}.'
                )


@dataclass(frozen=True)
class LowResolution:
    """The picture `factor` times smaller, in channels beside the latent: super-resolution (Rombach
    et al. 2022, section 4.4).

    With `encoded` it is enlarged, and its latents are the channels. A network learns sooner what to
    do with these where a latent cell is many pixels wide; each step costs an encoding.
    """

    factor: int = 4
    encoded: bool = False
    kind: Literal["low_resolution"] = "low_resolution"

    def __post_init__(self):
        if self.factor < 2:
            raise SafelightError(f"low_resolution's factor should be 2 or more, got {self.factor}.")


@dataclass(frozen=True)
class Inpainting:
    """A mask and the picture without what is under it, in channels beside the latent (Rombach et
    al. 2022, section 4.5), laid out as Stable Diffusion's inpainting models have them.
    """

    kind: Literal["inpainting"] = "inpainting"


@dataclass(frozen=True)
class Layout:
    """Up to `most` boxes, each a token beside the prompt's: where a thing is and, through the text
    tower, what (Rombach et al. 2022, section 4.3.1; the token as in GLIGEN, Li et al. 2023, arXiv
    2301.07093, section 3.2).
    """

    most: int = 8
    kind: Literal["layout"] = "layout"

    def __post_init__(self):
        if self.most < 1:
            raise SafelightError(f"layout's most should be 1 or more, got {self.most}.")


@dataclass(frozen=True)
class Image:
    """Another picture, seen by `encoder` and told as `tokens` tokens to attention of their own: an
    IP-Adapter (Ye et al. 2023, arXiv 2308.06721).

    `encoder` is "efficientnet-lite0", or a folder with CLIP's image tower.
    """

    encoder: str
    tokens: int = 4
    kind: Literal["image"] = "image"

    def __post_init__(self):
        if self.tokens < 1:
            raise SafelightError(f"image's tokens should be 1 or more, got {self.tokens}.")


AnyCondition: TypeAlias = Class | Depth | Semantic | LowResolution | Inpainting | Layout | Image
KINDS: Mapping[str, type[AnyCondition]] = {
    "inpainting": Inpainting,
    "depth": Depth,
    "semantic": Semantic,
    "low_resolution": LowResolution,
    "class": Class,
    "layout": Layout,
    "image": Image,
}
"""The kinds, in the order in which they are put in, whatever the order they are named in."""

CONCATENATED = frozenset({"inpainting", "depth", "semantic", "low_resolution"})
"""Those in channels beside the latent, which say how the picture is laid out."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of a model, in the order of `KINDS`."""

    conditions: tuple[AnyCondition, ...] = ()

    def to_values(self) -> dict[str, Value]:
        """As JSON has it."""
        return {"conditions": [to_dict(condition) for condition in self.conditions]}

    @staticmethod
    def from_values(values: Mapping[str, Value], source: str) -> "Conditions":
        """From JSON; `SafelightError` for what is none."""
        rows = values.get("conditions")
        if not isinstance(rows, Sequence) or isinstance(rows, str) or len(values) > 1:
            raise SafelightError(f"{source} should hold one list, conditions.")
        return Conditions(in_order([condition_of(row, source) for row in rows]))


def condition_of(row: Value, source: str) -> AnyCondition:
    """A condition of plain values; `SafelightError` for what is none."""
    kind = row.get("kind") if isinstance(row, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise SafelightError(f"{source}: no condition {kind!r}. {near(str(kind), KINDS)}")
    return from_dict(KINDS[kind], cast(Mapping[str, Value], row), f"{source}: {kind}")


def in_order(conditions: Sequence[AnyCondition]) -> tuple[AnyCondition, ...]:
    """Conditions in the order of `KINDS`; `SafelightError` for a kind that is there twice."""
    kinds = [condition.kind for condition in conditions]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise SafelightError(f"There are {kinds.count(kind)} conditions {kind}; name it once.")
    return tuple(sorted(conditions, key=lambda condition: list(KINDS).index(condition.kind)))


def cell_detail(condition: AnyCondition, factor: int) -> int:
    """How many places of a map a latent cell of `factor` pixels sees in each direction.

    Raises `SafelightError` if there are not as many in it.
    """
    if isinstance(condition, LowResolution):
        return max(1, factor // condition.factor)
    detail = condition.detail if isinstance(condition, (Depth, Semantic)) else 1
    if detail < 1 or factor % detail:
        raise SafelightError(
            f"{condition.kind}'s detail should divide the {factor} pixels of a latent cell, got "
            f"{detail}."
        )
    return detail


def channels_of(condition: AnyCondition, latents: int, factor: int) -> int:
    """The channels that a condition takes beside latents of so many channels, `factor` pixels a
    cell; errors as `cell_detail`.
    """
    cells = cell_detail(condition, factor) ** 2
    if isinstance(condition, Depth):
        return cells
    if isinstance(condition, Semantic):
        return len(condition.palette) * cells
    if isinstance(condition, LowResolution):
        return latents if condition.encoded else 3 * cells
    return 1 + latents if isinstance(condition, Inpainting) else 0


def classes_of(conditions: Sequence[AnyCondition]) -> int:
    """How many classes a model of these is told, the null among them; 0 for none."""
    return sum(len(c.names) + 1 for c in conditions if isinstance(c, Class))
