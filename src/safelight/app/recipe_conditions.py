"""The conditions of a recipe: what else than its caption a picture is learned under."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safelight.conditioners.conditions import AnyCondition, condition_of
from safelight.config import Value
from safelight.errors import SafelightError

_COLUMNS = {"class": "class", "layout": "boxes", "semantic": "semantic"}
"""The column of the metadata that holds what a condition needs, where the recipe does not say."""
_FROM_PICTURES = ("depth", "semantic")
_FROM_ITSELF = ("low_resolution", "inpainting", "image")


@dataclass(frozen=True)
class ConditionConfig:
    """One condition, which joins the caption.

    `kind` is one of `safelight.conditioners.conditions.KINDS`, and `names`, `palette`, `detail`,
    `factor`, `encoded`, `most`, `encoder` and `tokens` are the fields that they have there; without
    `names` the classes are those of the data. What is needed of each picture stands in `column` of
    the metadata (the name of its class; the path of a map; a list of boxes), or, for a depth map,
    is what `annotator` makes of it. Super-resolution, inpainting and variation need the picture
    alone. `dropout` is how often the condition is left out in training, whatever becomes of the
    others.
    """

    kind: Literal["inpainting", "depth", "semantic", "low_resolution", "class", "layout", "image"]
    dropout: float = 0.1
    column: str | None = None
    annotator: str | None = None
    weights: Path | None = None  # of the annotator
    names: tuple[str, ...] | None = None
    palette: Mapping[str, str] | None = None
    detail: int | None = None
    factor: int | None = None
    encoded: bool | None = None
    most: int | None = None
    encoder: str | None = None
    tokens: int | None = None

    def __post_init__(self):
        if not 0 <= self.dropout <= 1:
            raise SafelightError(
                f"dropout of condition {self.kind} should be between 0 and 1, got {self.dropout}."
            )
        if self.kind in _FROM_ITSELF and (self.column is not None or self.annotator is not None):
            raise SafelightError(
                f"The condition {self.kind} is made of the picture itself; leave column and "
                "annotator out."
            )
        if self.annotator is not None and (self.kind != "depth" or self.column is not None):
            raise SafelightError(
                f"The condition {self.kind} takes no annotator here; a depth map is made by one, "
                "or stands in a column of the metadata."
            )
        if self.kind == "depth" and self.annotator is None and self.column is None:
            raise SafelightError(
                "The condition depth needs an annotator, or a column of the metadata that names "
                "the maps."
            )
        if self.weights is not None and self.annotator is None:
            raise SafelightError("weights are those of an annotator; name that too.")

    @property
    def of_column(self) -> str:
        """The column of the metadata that it reads."""
        return self.column or _COLUMNS.get(self.kind, "")

    def condition(self, names: Sequence[str] = ()) -> AnyCondition:
        """What a model that has learned it says of it; `names` are the classes of the data.

        Raises `SafelightError` for a field that this kind does not have, or cannot be.
        """
        fields: dict[str, Value] = {
            "names": list(self.names or names) if self.kind == "class" else self.names,
            "palette": self.palette,
            "detail": self.detail,
            "factor": self.factor,
            "encoded": self.encoded,
            "most": self.most,
            "encoder": self.encoder,
            "tokens": self.tokens,
        }
        said = {name: value for name, value in fields.items() if value is not None}
        return condition_of({"kind": self.kind, **said}, "conditions")
