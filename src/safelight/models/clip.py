"""The text tower of CLIP, in the shapes of OpenAI's CLIP-L and of OpenCLIP's H and bigG.

Source: Radford et al. 2021, section 2.4; parameter names as in transformers' `CLIPTextModel`,
without its `text_model.` prefix.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from safelight.models.clip_layers import Activation, ClipLayers, Tokens, initialise_layers
from safelight.nn.recompute import recomputed
from safelight.types import TextFeatures


@dataclass(frozen=True)
class ClipTextConfig:
    """The shape of a text tower, and which of its states become the tokens.

    `skip` leaves that many last layers out of the tokens (SDXL: 1); `final_norm` says whether the
    tokens pass the final norm (SDXL: no). The pooled vector always comes from the last layer.
    `projection_dim` is None for towers without a projection.
    """

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407
    projection_dim: int | None = None
    skip: int = 0
    final_norm: bool = True


class ClipText(nn.Module):
    """Token ids (b, n) to tokens (b, n, hidden_size) and a pooled vector at the end of text."""

    def __init__(self, config: ClipTextConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embeddings = _Embeddings(config)
        self.encoder = ClipLayers(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        project = config.projection_dim
        self.text_projection = (
            nn.Linear(config.hidden_size, project, bias=False) if project else None
        )
        _initialise(self, config)

    def forward(
        self, ids: Int64[Tensor, "b n"], learned: Float[Tensor, "k d"] | None = None, skip: int = 0
    ) -> TextFeatures:
        """Encodes ids of at most `max_position_embeddings` tokens.

        Ids from `vocab_size` on stand for the rows of `learned`, which are not in the vocabulary.
        `skip` leaves that many more layers out of the tokens than the configuration does. Raises
        `ValueError` if no layer is left.
        """
        last = len(self.encoder.layers)
        if skip and not self.config.skip < skip + self.config.skip < last:
            raise ValueError(f"Of {last} layers {skip + self.config.skip} cannot be left out.")
        skip += self.config.skip
        x = self.embeddings(ids, learned)
        chosen = x
        for i, layer in enumerate(self.encoder.layers, start=1):
            x = recomputed(layer, self.gradient_checkpointing)(x)
            if i == last - skip:
                chosen = x
        normed = self.final_layer_norm(x)  # (b, n, d)
        ends = (ids == self.config.eos_token_id).int().argmax(dim=1)  # (b,), the first end of text
        pooled = normed[torch.arange(len(ids), device=ids.device), ends]
        if self.text_projection is not None:
            pooled = self.text_projection(pooled)
        if self.config.final_norm:
            chosen = self.final_layer_norm(chosen) if skip else normed
        return TextFeatures(tokens=chosen, pooled=pooled)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(
        self, ids: Int64[Tensor, "b n"], learned: Float[Tensor, "k d"] | None = None
    ) -> Tokens:
        length, longest = ids.shape[1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(f"This text tower takes at most {longest} tokens, got {length}.")
        positions = self.position_embedding.weight[:length]
        if learned is None:
            return self.token_embedding(ids) + positions
        known = self.token_embedding.num_embeddings
        words = self.token_embedding(ids.clamp(max=known - 1))
        rows = learned.to(words.dtype)[(ids - known).clamp(min=0)]
        return torch.where((ids >= known)[..., None], rows, words) + positions


def _initialise(tower: ClipText, config: ClipTextConfig) -> None:
    """Radford et al.'s initial weights."""
    nn.init.normal_(tower.embeddings.token_embedding.weight, std=0.02)
    nn.init.normal_(tower.embeddings.position_embedding.weight, std=0.01)
    initialise_layers(tower.encoder, config)
    if tower.text_projection is not None:
        nn.init.normal_(tower.text_projection.weight, std=config.hidden_size**-0.5)
