"""transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`: keys and `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import check_heads, read_known
from safelight.config import Value, to_dict
from safelight.models.clip import ClipTextConfig

CLIP_TEXT = Table(
    (
        Rule("text_projection.weight", "text_projection.weight"),
        # written by version 4, and by version 5 beside a projection; read by both
        Rule("{key}", "text_model.{key}"),
        Rule("{key}", "{key}"),  # version 5
    ),
    dropped=(
        "text_model.embeddings.position_ids",  # 0, 1, 2, ...
        "embeddings.position_ids",
        "text_model.embeddings.token_embedding.position_ids",
    ),
)

_WITH_PROJECTION = "CLIPTextModelWithProjection"
_LEGACY_EOS = 2  # wrongly in all files from before August 2023; the true one is the highest id


@dataclass(frozen=True)
class _Transformers:
    """The keys that make a difference, with transformers' own defaults."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int | None = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int | None = 49407
    architectures: tuple[str, ...] = ("CLIPTextModel",)
    model_type: Literal["clip_text_model"] = "clip_text_model"


def clip_config_from_transformers(
    values: Mapping[str, Value],
    source: str = "text_encoder/config.json",
    *,
    skip: int = 0,
    final_norm: bool = True,
) -> ClipTextConfig:
    """Translates a text tower's configuration; `skip` and `final_norm` are the pipeline's to say.

    Keys of transformers that do not concern the network are passed over; one that is null has its
    default.

    Raises `SafelightError` if it is of another kind.
    """
    theirs = read_known(_Transformers, values, source)
    check_heads(theirs.hidden_size, theirs.num_attention_heads, source)
    legacy = theirs.eos_token_id in (None, _LEGACY_EOS)
    return ClipTextConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.hidden_size,
        intermediate_size=theirs.intermediate_size,
        num_hidden_layers=theirs.num_hidden_layers,
        num_attention_heads=theirs.num_attention_heads,
        max_position_embeddings=theirs.max_position_embeddings,
        hidden_act=theirs.hidden_act,
        layer_norm_eps=theirs.layer_norm_eps,
        eos_token_id=theirs.vocab_size - 1 if legacy else theirs.eos_token_id or 0,
        projection_dim=theirs.projection_dim if _WITH_PROJECTION in theirs.architectures else None,
        skip=skip,
        final_norm=final_norm,
    )


def clip_config_to_transformers(config: ClipTextConfig) -> dict[str, Value]:
    """The `config.json` of a text tower of ours, which transformers 4 and 5 open."""
    theirs = _Transformers(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        projection_dim=config.projection_dim or config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        eos_token_id=config.eos_token_id,
        architectures=(clip_class_name(config),),
    )
    marks: dict[str, Value] = {"bos_token_id": config.eos_token_id - 1, "pad_token_id": 1}
    return {**to_dict(theirs), **marks, "dtype": "float32", "torch_dtype": "float32"}


def clip_class_name(config: ClipTextConfig) -> str:
    """transformers' class for a text tower of ours."""
    return _WITH_PROJECTION if config.projection_dim else "CLIPTextModel"
