"""The transformer of both of CLIP's towers.

Source: Radford et al. 2021, section 2.4; parameter names as in transformers.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import attend

Tokens = Float[Tensor, "b n d"]
Activation = Literal["quick_gelu", "gelu"]


@runtime_checkable
class TowerShape(Protocol):
    """What the layers of a tower need of its configuration."""

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        ...

    @property
    def intermediate_size(self) -> int:
        """Channels inside a perceptron."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""
        ...

    @property
    def num_attention_heads(self) -> int:
        """Heads of each attention."""
        ...

    @property
    def hidden_act(self) -> Activation:
        """What bends the perceptron."""
        ...

    @property
    def layer_norm_eps(self) -> float:
        """What keeps a norm from dividing by nothing."""
        ...


class ClipLayers(nn.Module):
    """The layers of a tower; with `causal` a token sees only those before it."""

    def __init__(self, config: TowerShape, *, causal: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(config, causal=causal) for _ in range(config.num_hidden_layers)
        )


class _Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each after a norm and with a skip."""

    def __init__(self, config: TowerShape, *, causal: bool):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = _Attention(config.hidden_size, config.num_attention_heads, causal=causal)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = _Perceptron(config)

    def forward(self, x: Tokens) -> Tokens:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, *, causal: bool):
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.heads, causal=self.causal))


class _Perceptron(nn.Module):
    def __init__(self, config: TowerShape):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act = F.gelu if config.hidden_act == "gelu" else _quick_gelu

    def forward(self, x: Tokens) -> Tokens:
        return self.fc2(self.act(self.fc1(x)))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def initialise_layers(layers: ClipLayers, config: TowerShape) -> None:
    """Radford et al.'s initial weights: width and depth set the standard deviations."""
    width, depth = config.hidden_size, config.num_hidden_layers
    residual = width**-0.5 * (2 * depth) ** -0.5
    for name, parameter in layers.named_parameters():
        if parameter.ndim < 2:
            continue
        if "out_proj" in name or "fc2" in name:
            nn.init.normal_(parameter, std=residual)
        elif "fc1" in name:
            nn.init.normal_(parameter, std=(2 * width) ** -0.5)
        else:
            nn.init.normal_(parameter, std=width**-0.5)
