"""The image tower of CLIP, in the shapes of OpenAI's CLIP-L and of OpenCLIP's H and bigG.

Source: Radford et al. 2021, section 2.4, and Dosovitskiy et al. 2021 (arXiv 2010.11929); parameter
names as in transformers' `CLIPVisionModelWithProjection`, without its `vision_model.` prefix.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.clip_layers import Activation, ClipLayers, Tokens, initialise_layers


@dataclass(frozen=True)
class ClipVisionConfig:
    """The shape of an image tower: pictures of `image_size` pixels a side, in square patches.

    Raises `ValueError` if the picture is not a whole number of patches.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 768

    def __post_init__(self):
        if self.patch_size < 1 or self.image_size < self.patch_size:
            raise ValueError(
                f"An image_size of {self.image_size} does not hold a patch of {self.patch_size}."
            )

    @property
    def positions(self) -> int:
        """How many tokens there are: the patches and one for the whole picture."""
        return (self.image_size // self.patch_size) ** 2 + 1


class ClipVision(nn.Module):
    """Pictures to vectors in the space that CLIP shares with text."""

    def __init__(self, config: ClipVisionConfig):
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)  # their name
        self.encoder = ClipLayers(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        initialise_layers(self.encoder, config)
        nn.init.normal_(self.visual_projection.weight, std=config.hidden_size**-0.5)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b p"]:
        """Encodes pictures of `image_size` pixels a side, normalised as the tower was trained.

        Raises `ValueError` for pictures of another size.
        """
        x = self.tokens(pixels, skip=0)
        return self.visual_projection(self.post_layernorm(x[:, 0]))

    def tokens(self, pixels: Float[Tensor, "b 3 s s"], skip: int = 1) -> Tokens:
        """The tokens of the whole picture and of its patches as the layers leave them, without the
        last `skip` of these; errors as the call.
        """
        x = self.pre_layrnorm(self.embeddings(pixels))  # (b, n, d)
        layers = list(self.encoder.layers)
        for layer in layers[: len(layers) - skip]:
            x = layer(x)
        return x


class _Embeddings(nn.Module):
    def __init__(self, config: ClipVisionConfig):
        super().__init__()
        self.image_size = config.image_size
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(config.positions, width)
        nn.init.normal_(self.class_embedding, std=width**-0.5)
        nn.init.normal_(self.position_embedding.weight, std=width**-0.5)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tokens:
        if tuple(pixels.shape[-2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"This image tower takes {self.image_size} x {self.image_size} pixels, got "
                f"{pixels.shape[-1]} x {pixels.shape[-2]}."
            )
        patches = rearrange(self.patch_embedding(pixels), "b d h w -> b (h w) d")
        whole = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([whole, patches], dim=1) + self.position_embedding.weight
