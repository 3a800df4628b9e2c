"""The nouns that every layer shares: conditioning, scalings, batches, and the protocols between
pieces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safelight.errors import SafelightError


@dataclass(frozen=True)
class Conditioning:
    """Everything that steers a network, whatever it means; a network takes the parts that it has
    layers for.

    Every tensor's first axis is the batch. With `num_frames` its rows are the frames of clip after
    clip, and `context` and `vector` may have a row a clip. A part that is absent is `None` (or an
    empty tuple).
    """

    context: Float[Tensor, "*rows n d"] | None = None  # tokens for cross-attention
    pictures: tuple[Tensor, ...] = ()  # tokens of pictures for attention of their own, (b, m, d)
    vector: Float[Tensor, "k v"] | None = None  # added to the time embedding
    concat: Float[Tensor, "b c h w"] | None = None  # channels beside x
    hints: tuple[Tensor, ...] = ()  # pixel-space control images, each (b, c, h, w)
    hint_masks: tuple[Tensor, ...] = ()  # where each works, 0 to 1, (b, 1, h, w); none: everywhere
    residuals: tuple[Tensor, ...] = ()  # what control networks add, each (b, c, h, w)
    features: tuple[Tensor, ...] = ()  # what T2I-Adapters add on the way down, one a level
    num_frames: int | None = None  # of a clip, whose frames are rows that follow each other

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Joins conditionings along the batch; all must carry the same parts."""

        def join(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            present = [tensor for tensor in tensors if tensor is not None]
            if present and len(present) != len(tensors):
                raise ValueError(f"Cannot join conditionings of which only some carry {name!r}.")
            return torch.cat(present) if present else None

        def join_each(name: str) -> tuple[Tensor, ...]:
            columns = [getattr(part, name) for part in parts]
            if len({len(column) for column in columns}) > 1:
                raise ValueError(f"Cannot join conditionings with different numbers of {name}.")
            return tuple(torch.cat(column) for column in zip(*columns, strict=True))

        if len({part.num_frames for part in parts}) > 1:
            raise ValueError("Cannot join conditionings with different num_frames.")
        return Conditioning(
            context=join("context"),
            pictures=join_each("pictures"),
            vector=join("vector"),
            concat=join("concat"),
            hints=join_each("hints"),
            hint_masks=join_each("hint_masks"),
            residuals=join_each("residuals"),
            features=join_each("features"),
            num_frames=parts[0].num_frames,
        )

    def chunk(self, n: int) -> list["Conditioning"]:
        """Splits along the batch into `n` equal conditionings, the inverse of `cat`.

        Raises `ValueError` if the batch does not divide by `n`.
        """

        def part(i: int) -> Callable[[Tensor], Tensor]:
            return lambda tensor: _equal_parts(tensor, n)[i]

        return [self._map(part(i)) for i in range(n)]

    def drop(self, mask: Bool[Tensor, " b"], null: "Conditioning") -> "Conditioning":
        """Replaces the rows where `mask` is true by the rows of `null` (batch 1 or b)."""

        def pick(kept: Tensor | None, other: Tensor | None, name: str) -> Tensor | None:
            if kept is None and other is None:
                return None
            if kept is None or other is None:
                raise ValueError(f"Conditioning and its null must both carry {name!r}, or neither.")
            rows = mask.to(kept.device).reshape(-1, *[1] * (kept.ndim - 1))
            return torch.where(rows, other.to(kept), kept)

        def pick_each(name: str) -> tuple[Tensor, ...]:
            ours, others = getattr(self, name), getattr(null, name)
            if len(ours) != len(others):
                raise ValueError(f"Conditioning and its null must carry equally many {name}.")
            return tuple(
                kept
                for a, b in zip(ours, others, strict=True)
                if (kept := pick(a, b, name)) is not None
            )

        return replace(
            self,
            context=pick(self.context, null.context, "context"),
            pictures=pick_each("pictures"),
            vector=pick(self.vector, null.vector, "vector"),
            concat=pick(self.concat, null.concat, "concat"),
            hints=pick_each("hints"),
            hint_masks=pick_each("hint_masks"),
            residuals=pick_each("residuals"),
            features=pick_each("features"),
        )

    def take(self, rows: Bool[Tensor, " b"]) -> "Conditioning":
        """The rows where `rows` is true."""
        return self._map(lambda tensor: tensor[rows])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Conditioning":
        """Moves every tensor to a device, a dtype, or both."""
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def _map(self, f: Callable[[Tensor], Tensor]) -> "Conditioning":
        def each(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else f(tensor)

        return Conditioning(
            context=each(self.context),
            pictures=tuple(f(tokens) for tokens in self.pictures),
            vector=each(self.vector),
            concat=each(self.concat),
            hints=tuple(f(hint) for hint in self.hints),
            hint_masks=tuple(f(mask) for mask in self.hint_masks),
            residuals=tuple(f(residual) for residual in self.residuals),
            features=tuple(f(feature) for feature in self.features),
            num_frames=self.num_frames,
        )


def _equal_parts(tensor: Tensor, n: int) -> tuple[Tensor, ...]:
    if tensor.shape[0] % n:
        raise ValueError(f"Cannot split a batch of {tensor.shape[0]} into {n} equal parts.")
    return tensor.chunk(n)


@dataclass(frozen=True)
class Scalings:
    """How an output becomes x0: `c_skip * x + c_out * network(c_in * x, t)` (EDM, eq. 7)."""

    c_skip: Float[Tensor, " b"]
    c_out: Float[Tensor, " b"]
    c_in: Float[Tensor, " b"]


@dataclass(frozen=True)
class Box:
    """Where a thing is to be: what it is, and its edges (left, top, right, bottom) as parts of the
    picture's width and height.

    Raises `SafelightError` for edges that are no box in the picture.
    """

    label: str
    edges: tuple[float, float, float, float]

    def __post_init__(self):
        left, top, right, bottom = self.edges
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise SafelightError(
                f"The box of {self.label!r} should be left, top, right and bottom as parts of the "
                f"picture, such as 0.1, 0.2, 0.5, 0.6; got {', '.join(map(str, self.edges))}."
            )


Inputs: TypeAlias = tuple[Tensor, ...]
"""What a user gives for one condition, as tensors whose first axis is the batch: a map, a class's
number, boxes and their labels.
"""


@dataclass(frozen=True)
class Batch:
    """What one training step sees: pictures or their latents, with captions and whatever else they
    are conditioned on.

    Pixels are (b, 3, h, w) in [-1, 1]; latents are (b, c, h/f, w/f), scaled to about unit variance;
    clips are latents of several frames each.
    """

    captions: tuple[str, ...]
    pixels: Float[Tensor, "b c h w"] | None = None
    latents: Float[Tensor, "b c h w"] | None = None
    clips: Float[Tensor, "b frames c h w"] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    beside: dict[str, Inputs] = field(default_factory=dict[str, Inputs])  # by the condition's kind


@runtime_checkable
class Conditioner(Protocol):
    """Turns what is given for one condition into a part of a conditioning, and has a null for it.

    Rows of `inputs` that are not `kept` count as not given: they get the null.
    """

    def __call__(
        self, cond: Conditioning, inputs: Inputs, kept: Bool[Tensor, " b"]
    ) -> Conditioning: ...


@runtime_checkable
class Network(Protocol):
    """Layers that know nothing of diffusion: noised input, network time and conditioning to an
    output.
    """

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]: ...


@runtime_checkable
class Denoise(Protocol):
    """What a sampler sees: x at noise level sigma to the expected clean x0."""

    def __call__(
        self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]: ...


@runtime_checkable
class ConditionalDenoise(Protocol):
    """A denoiser before guidance binds the conditioning."""

    def __call__(
        self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]: ...


@runtime_checkable
class Noise(Protocol):
    """Injected randomness: draw `index` of standard normal noise, the same whatever the batch."""

    def __call__(self, shape: Sequence[int], index: int) -> Tensor: ...


@runtime_checkable
class OnStep(Protocol):
    """Called after each sampler step with the step's number (from 0), its sigma, x and the denoised
    x0.
    """

    def __call__(self, step: int, sigma: float, x: Tensor, denoised: Tensor) -> None: ...


@runtime_checkable
class TextTower(Protocol):
    """Token ids to context tokens."""

    def __call__(self, ids: Int64[Tensor, "b n"]) -> "TextFeatures": ...


@dataclass(frozen=True)
class TextFeatures:
    """What a text tower gives: per-token states, and one pooled (projected, if it has a projection)
    vector.
    """

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b p"]
