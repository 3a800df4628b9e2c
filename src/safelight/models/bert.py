"""The text tower of CompVis' first text-to-image model: a transformer trained with its U-Net.

Source: Rombach et al. 2022, appendix E.2.1 (table 17); parameter names as in diffusers'
`LDMBertModel`, without its `model.` prefix and its unused logits.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from safelight.nn.attention import attend
from safelight.nn.recompute import recomputed
from safelight.types import TextFeatures

Tokens = Float[Tensor, "b n d"]


@dataclass(frozen=True)
class BertTextConfig:
    """The shape of the tower. Heads may be narrower together than `hidden_size`.

    Raises `ValueError` for a size below 1.
    """

    vocab_size: int = 30522
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 8
    head_dim: int = 64
    max_position_embeddings: int = 77

    def __post_init__(self):
        for name, size in vars(self).items():
            if size < 1:
                raise ValueError(f"{name} should be 1 or more, got {size}.")

    @property
    def projection_dim(self) -> None:
        """There is no projection, which other towers have."""
        return None


class BertText(nn.Module):
    """Token ids (b, n) to tokens (b, n, hidden_size); the first of them, the class token's, is the
    pooled vector.
    """

    def __init__(self, config: BertTextConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, ids: Int64[Tensor, "b n"]) -> TextFeatures:
        """Encodes ids of at most `max_position_embeddings` tokens; padding is seen as any other."""
        length, longest = ids.shape[1], self.config.max_position_embeddings
        if length > longest:
            raise ValueError(f"This text tower takes at most {longest} tokens, got {length}.")
        x = self.embed_tokens(ids) + self.embed_positions.weight[:length]  # (b, n, d)
        for layer in self.layers:
            x = recomputed(layer, self.gradient_checkpointing)(x)
        x = self.layer_norm(x)
        return TextFeatures(tokens=x, pooled=x[:, 0])


class _Layer(nn.Module):
    """Self-attention in both directions and a two-layer perceptron, each after a norm and with a
    skip.
    """

    def __init__(self, config: BertTextConfig):
        super().__init__()
        width = config.hidden_size
        self.self_attn = _Attention(width, config.num_attention_heads, config.head_dim)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tokens) -> Tokens:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(dim, heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, heads * head_dim, bias=False)
        self.out_proj = nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))
