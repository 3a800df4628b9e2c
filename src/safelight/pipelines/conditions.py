"""The conditions of a request, read and seen to fit the model, and put into what it is told."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from safelight.checkpoints.conditions import conditioners_of
from safelight.checkpoints.folder import Folder
from safelight.conditioners.beside import laid_out
from safelight.conditioners.conditions import (
    CONCATENATED,
    AnyCondition,
    Class,
    Layout,
    LowResolution,
)
from safelight.config import near
from safelight.errors import SafelightError
from safelight.models.tokenizer import ClipTokenizer
from safelight.pictures import to_pixels
from safelight.pipelines.condition_settings import Condition, Value
from safelight.pipelines.given import GivenPicture, give, resized
from safelight.pipelines.hint_pictures import Size
from safelight.pipelines.manifest import UsedCondition, UsedPicture
from safelight.pipelines.request import Request
from safelight.types import Box, Conditioning, Inputs


@dataclass(frozen=True)
class ReadCondition:
    """A condition with its inputs.

    Attributes:
        condition: as it was asked for.
        picture: the picture of it, if it is one.
        inputs_at: the inputs for what is made at a width and height, of one row or of as many as
            are made.
    """

    condition: Condition
    picture: GivenPicture | None
    inputs_at: Callable[[Size], Inputs]

    @property
    def own_scale(self) -> float | None:
        """The scale of the guidance by it; None for the prompt's."""
        if self.condition.scale is None and self.condition.kind in CONCATENATED:
            return 1.0
        return self.condition.scale

    @property
    def used(self) -> UsedCondition:
        """What a manifest says of it."""
        value, picture = self.condition.value, self.picture
        return UsedCondition(
            self.condition.kind,
            picture=None if picture is None else UsedPicture(picture.file, picture.sha256),
            name=value if isinstance(value, str) and picture is None else "",
            boxes=value if isinstance(value, tuple) else (),
            scale=self.condition.scale,
        )


def read_condition(asked: Condition, folder: Folder, name: str) -> ReadCondition:
    """A condition with what it needs, for the model `name`.

    Raises `SafelightError` for a kind that the model has not learned, a class that it does not
    know, a picture that cannot be read, or more boxes than it takes.
    """
    asked.check()
    known = {condition.kind: condition for condition in folder.beside.of_its_own.conditions}
    if asked.kind not in known:
        has = f"it has {', '.join(known)}." if known else "it has none."
        also = " Inpainting is asked for by an image and a mask." * (asked.kind == "inpainting")
        raise SafelightError(f"{name} has not learned a condition {asked.kind!r}; {has}{also}")
    condition, value = known[asked.kind], asked.value
    if isinstance(condition, Class):
        return ReadCondition(asked, None, _always((torch.tensor([_class(condition, value)]),)))
    if isinstance(condition, Layout):
        return ReadCondition(asked, None, _always(_boxes(condition, value, folder)))
    if isinstance(value, tuple):
        raise SafelightError(f"The condition {asked.kind} is a picture, not boxes.")
    picture = give("image", value)
    assert picture is not None
    return ReadCondition(asked, picture, _pictured(condition, picture.picture))


def joined(rows: Sequence[Sequence[ReadCondition]]) -> tuple[ReadCondition, ...]:
    """The conditions of several pictures, each of the same kinds, as those of one batch."""
    columns = zip(*rows, strict=True)
    return tuple(replace(column[0], inputs_at=_all(column)) for column in columns)


def sized(request: Request, conditions: Sequence[ReadCondition], folder: Folder) -> Request:
    """The request with the width and height of a small picture, where it leaves them open."""
    for condition in folder.beside.conditions:
        for read in conditions:
            if isinstance(condition, LowResolution) and read.condition.kind == condition.kind:
                assert read.picture is not None
                width, height = (side * condition.factor for side in read.picture.picture.size)
                width, height = request.width or width, request.height or height
                return replace(request, width=width, height=height)
    return request


def with_conditions(
    folder: Folder, asked: Sequence[ReadCondition], size: Size, count: int, device: str
) -> Callable[[Conditioning, Collection[str]], Conditioning]:
    """What puts a model's conditions into a conditioning: the asked ones of the kinds that it is
    told, and the nulls of all others.
    """
    factor = folder.autoencoder.factor
    whole = (-(-size[0] // factor) * factor, -(-size[1] // factor) * factor)
    own = folder.beside.of_its_own
    given = {read.condition.kind: read.inputs_at(whole) for read in asked}
    rows = {
        condition.kind: _rows(given.get(condition.kind, _nothing(condition, whole, folder)), count)
        for condition in own.conditions
    }
    put_in = conditioners_of(own, folder.autoencoder, folder.text_towers)

    def told(cond: Conditioning, kinds: Collection[str]) -> Conditioning:
        for kind, put in put_in.items():
            kept = torch.full((count,), kind in kinds and kind in given, device=device)
            cond = put(cond, tuple(tensor.to(device) for tensor in rows[kind]), kept)
        return cond

    return told


def _class(condition: Class, value: Value) -> int:
    if not isinstance(value, str) or value not in condition.names:
        raise SafelightError(
            f"This model knows no class {value!r}. {near(str(value), condition.names)}"
        )
    return condition.names.index(value)


def _boxes(condition: Layout, value: Value, folder: Folder) -> Inputs:
    if not isinstance(value, tuple):
        raise SafelightError("A layout is told by boxes, each with a label and its edges.")
    if len(value) > condition.most:
        raise SafelightError(
            f"This model takes {condition.most} boxes at most, got {len(value)}; leave some out."
        )
    return _as_batch(_laid_out(condition, value, folder))


def _laid_out(condition: Layout, boxes: Sequence[Box], folder: Folder) -> Inputs:
    tokenizer = folder.tokenizers[-1]
    assert isinstance(tokenizer, ClipTokenizer)  # which `conditioners_of` sees to
    labels = list(dict.fromkeys([*(box.label for box in boxes), ""]))
    ids = dict(zip(labels, tokenizer.encode(labels), strict=True))
    return laid_out(boxes, condition.most, ids)


def _pictured(condition: AnyCondition, picture: Image.Image) -> Callable[[Size], Inputs]:
    shrink = condition.factor if isinstance(condition, LowResolution) else 1
    painted = condition.kind == "semantic"  # whose colours are names

    def inputs_at(size: Size) -> Inputs:
        small = (max(1, size[0] // shrink), max(1, size[1] // shrink))
        if painted:
            return (to_pixels(picture.resize(small, Image.Resampling.NEAREST))[None],)
        return (to_pixels(resized(picture, small))[None],)

    return inputs_at


def _nothing(condition: AnyCondition, size: Size, folder: Folder) -> Inputs:
    """Inputs in the shape of what was not given."""
    if isinstance(condition, Class):
        return (torch.zeros(1, dtype=torch.int64),)
    if isinstance(condition, Layout):
        return _as_batch(_laid_out(condition, (), folder))
    return _pictured(condition, Image.new("RGB", size))(size)


def _as_batch(inputs: Inputs) -> Inputs:
    return tuple(tensor[None] for tensor in inputs)


def _rows(inputs: Inputs, count: int) -> Inputs:
    """Inputs of one row for all, or of a row each."""

    def each(tensor: Tensor) -> Tensor:
        return tensor.expand(count, *tensor.shape[1:]) if len(tensor) == 1 else tensor

    return tuple(map(each, inputs))


def _always(inputs: Inputs) -> Callable[[Size], Inputs]:
    return lambda _: inputs


def _all(column: Sequence[ReadCondition]) -> Callable[[Size], Inputs]:
    def inputs_at(size: Size) -> Inputs:
        each = [read.inputs_at(size) for read in column]
        return tuple(torch.cat(tensors) for tensors in zip(*each, strict=True))

    return inputs_at
