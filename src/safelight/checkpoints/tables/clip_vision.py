"""transformers' `CLIPVisionModelWithProjection` and `CLIPImageProcessor`, and diffusers'
`StableUnCLIPImageNormalizer`: keys and configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import check_heads, read_known
from safelight.conditioners.image import Preparation
from safelight.config import Value, to_dict
from safelight.errors import SafelightError
from safelight.models.clip_vision import ClipVisionConfig

CLIP_VISION = Table(
    (
        Rule("visual_projection.weight", "visual_projection.weight"),
        Rule("{key}", "vision_model.{key}"),
        Rule("{key}", "{key}"),  # single files, once renamed
    ),
    dropped=("vision_model.embeddings.position_ids",),  # 0, 1, 2, ...
)
NORMALIZER_KEYS = Table((Rule("{key}", "{key}"),))
NORMALIZER_CLASS = "StableUnCLIPImageNormalizer"

_BICUBIC = 3  # Pillow's number


@dataclass(frozen=True)
class _Transformers:
    """The keys that make a difference, with transformers' own defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: Literal[3] = 3
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    model_type: Literal["clip_vision_model"] = "clip_vision_model"
    architectures: tuple[str, ...] = ("CLIPVisionModelWithProjection",)


def vision_config_from_transformers(
    values: Mapping[str, Value], source: str = "image_encoder/config.json"
) -> ClipVisionConfig:
    """Translates an image tower's configuration; keys that do not concern the network are passed
    over.

    Raises `SafelightError` if it is of another kind.
    """
    theirs = read_known(_Transformers, values, source)
    check_heads(theirs.hidden_size, theirs.num_attention_heads, source)
    try:
        return ClipVisionConfig(
            hidden_size=theirs.hidden_size,
            intermediate_size=theirs.intermediate_size,
            num_hidden_layers=theirs.num_hidden_layers,
            num_attention_heads=theirs.num_attention_heads,
            image_size=theirs.image_size,
            patch_size=theirs.patch_size,
            hidden_act=theirs.hidden_act,
            layer_norm_eps=theirs.layer_norm_eps,
            projection_dim=theirs.projection_dim,
        )
    except ValueError as error:
        raise SafelightError(f"{source}: {error}") from error


def vision_config_to_transformers(config: ClipVisionConfig) -> dict[str, Value]:
    """The `config.json` of an image tower of ours, which transformers opens."""
    theirs = _Transformers(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        projection_dim=config.projection_dim,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    return to_dict(theirs)


def preparation_from_transformers(
    values: Mapping[str, Value], source: str = "feature_extractor/preprocessor_config.json"
) -> Preparation:
    """Translates how pictures are prepared for the tower.

    Raises `SafelightError` for a step that CLIP's preparation does not have.
    """
    for step in ("do_resize", "do_center_crop", "do_normalize", "do_rescale"):
        if values.get(step, True) is not True:
            raise SafelightError(f"{source} has {step} = false, which is not supported.")
    if values.get("resample", _BICUBIC) != _BICUBIC:
        raise SafelightError(
            f"{source} has resample = {values['resample']!r}; expected {_BICUBIC}, bicubic."
        )
    usual = Preparation()
    return Preparation(
        shortest=_side(values.get("size", usual.shortest), source),
        side=_side(values.get("crop_size", usual.side), source),
        mean=_three(values.get("image_mean", list(usual.mean)), source),
        std=_three(values.get("image_std", list(usual.std)), source),
    )


def preparation_to_transformers(preparation: Preparation) -> dict[str, Value]:
    """The `preprocessor_config.json` of a preparation of ours."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": preparation.shortest},
        "crop_size": {"height": preparation.side, "width": preparation.side},
        "do_resize": True,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "image_mean": list(preparation.mean),
        "image_std": list(preparation.std),
    }


def _side(value: Value, source: str) -> int:
    """A number of pixels, alone or in one of transformers' tables."""
    sides = list(value.values()) if isinstance(value, Mapping) else [value]
    side = sides[0] if sides else None
    same = all(other == side for other in sides)
    if not same or not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= 4096:
        raise SafelightError(f"{source}: expected one side of 1 to 4096 pixels, got {value!r}.")
    return side


def _three(value: Value, source: str) -> tuple[float, float, float]:
    numbers = [n for n in value if isinstance(n, (int, float))] if isinstance(value, list) else []
    if len(numbers) != 3 or not isinstance(value, list) or len(value) != 3:
        raise SafelightError(f"{source}: expected three numbers, one a colour, got {value!r}.")
    red, green, blue = map(float, numbers)
    return red, green, blue
