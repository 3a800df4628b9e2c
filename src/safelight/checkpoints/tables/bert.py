"""diffusers' `LDMBertModel`: keys and `config.json`; and the keys of CompVis' own tower."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from torch import Tensor

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import fitting, without_nulls
from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError
from safelight.models.bert import BertTextConfig

BERT_TEXT = Table(
    (Rule("{key}", "model.{key}"), Rule("{key}", "{key}")),
    dropped=("to_logits.{rest}",),  # of the tower's own training, which no picture needs
)

_HEADS = 8  # x-transformers' default, which leaves no trace in a file


@dataclass(frozen=True)
class _Transformers:
    """The keys that make a difference, with diffusers' own defaults."""

    vocab_size: int = 30522
    max_position_embeddings: int = 77
    encoder_layers: int = 32
    encoder_ffn_dim: int = 5120
    encoder_attention_heads: int = 8
    head_dim: int = 64
    d_model: int = 1280
    activation_function: Literal["gelu"] = "gelu"
    scale_embedding: Literal[False] = False
    model_type: Literal["ldmbert"] = "ldmbert"


def bert_config_from_transformers(
    values: Mapping[str, Value], source: str = "bert/config.json"
) -> BertTextConfig:
    """Translates an `LDMBertModel` configuration; `SafelightError` if it is of another kind.

    Keys of transformers that do not concern the network are passed over.
    """
    known = {field.name for field in fields(_Transformers)}
    taken = {key: value for key, value in values.items() if key in known}
    theirs = from_dict(_Transformers, without_nulls(_Transformers, taken), source)
    with fitting(source):
        return BertTextConfig(
            vocab_size=theirs.vocab_size,
            hidden_size=theirs.d_model,
            intermediate_size=theirs.encoder_ffn_dim,
            num_hidden_layers=theirs.encoder_layers,
            num_attention_heads=theirs.encoder_attention_heads,
            head_dim=theirs.head_dim,
            max_position_embeddings=theirs.max_position_embeddings,
        )


def bert_config_to_transformers(config: BertTextConfig) -> dict[str, Value]:
    """The `config.json` of a tower of ours, which diffusers opens."""
    theirs = _Transformers(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        encoder_layers=config.num_hidden_layers,
        encoder_ffn_dim=config.intermediate_size,
        encoder_attention_heads=config.num_attention_heads,
        head_dim=config.head_dim,
        d_model=config.hidden_size,
    )
    return {**to_dict(theirs), "architectures": ["LDMBertModel"], "pad_token_id": 0}


def x_transformers_table(layers: int) -> Table:
    """The keys of CompVis' tower: its attentions and its perceptrons are numbered in one row."""
    rows = [
        Rule("embed_tokens.weight", "token_emb.weight"),
        Rule("embed_positions.weight", "pos_emb.emb.weight"),
        Rule("layer_norm.{p}", "norm.{p}"),
    ]
    for layer in range(layers):
        ours = f"layers.{layer}"
        attention, perceptron = (f"attn_layers.layers.{2 * layer + half}" for half in (0, 1))
        rows += [
            Rule(f"{ours}.self_attn_layer_norm.{{p}}", f"{attention}.0.{{p}}"),
            *(
                Rule(f"{ours}.self_attn.{part}_proj.weight", f"{attention}.1.to_{part}.weight")
                for part in "qkv"
            ),
            Rule(f"{ours}.self_attn.out_proj.{{p}}", f"{attention}.1.to_out.{{p}}"),
            Rule(f"{ours}.final_layer_norm.{{p}}", f"{perceptron}.0.{{p}}"),
            Rule(f"{ours}.fc1.{{p}}", f"{perceptron}.1.net.0.0.{{p}}"),
            Rule(f"{ours}.fc2.{{p}}", f"{perceptron}.1.net.2.{{p}}"),
        ]
    return Table(tuple(rows), dropped=BERT_TEXT.dropped)


def bert_config_of(state: Mapping[str, Tensor], source: str) -> BertTextConfig:
    """The shape of the tower whose tensors, in CompVis' names, these are.

    Heads leave no trace: there are 8, as in both that were published. Raises `SafelightError` for
    anything but such a tower.
    """
    try:
        words = state["token_emb.weight"]
        layers = 0
        while f"attn_layers.layers.{2 * layers}.1.to_q.weight" in state:
            layers += 1
        return BertTextConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            intermediate_size=state["attn_layers.layers.1.1.net.0.0.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=_HEADS,
            head_dim=state["attn_layers.layers.0.1.to_q.weight"].shape[0] // _HEADS,
            max_position_embeddings=state["pos_emb.emb.weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(f"{source} holds no text tower that is whole ({error}).") from error
