"""A small image-text model that tells which of many captions is a picture's own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from safelight.eval.pixel_network import at_size
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.features import EfficientNetLite0
from safelight.models.tokenizer import ClipTokenizer
from safelight.rng import generator_for

AMONG = 100
"""How many captions a picture's own is ranked among, itself included."""

Pixels = Float[Tensor, "b 3 h w"]


@dataclass(frozen=True)
class CaptionRankerConfig:
    """The text tower's shape, and the side of the pictures that are looked at.

    Pictures and captions meet in the `projection_dim` dimensions of the text tower.
    """

    text: ClipTextConfig
    size: int = 64


class CaptionRanker(nn.Module):
    """Two towers trained by contrast (Radford et al. 2021, figure 3): a linear map of a frozen
    network's features for pictures, a small CLIP text tower for captions.

    `features` maps pixels (b, 3, size, size) in [-1, 1] to rows (b, f), such as `PlacedFeatures`;
    its weights are not among the ranker's.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(
        self,
        config: CaptionRankerConfig,
        tokenizer: ClipTokenizer,
        features: Callable[[Tensor], Tensor],
        num_features: int,
    ):
        super().__init__()
        width = config.text.projection_dim
        if width is None:
            raise ValueError("The ranker's text tower needs a projection_dim.")
        self.config = config
        self.tokenizer = tokenizer
        self._features = (features,)  # in a tuple, so that it is no submodule
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_deviation", torch.ones(num_features))
        self.image = nn.Linear(num_features, width)
        self.text = ClipText(config.text)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @torch.inference_mode()
    def features_of(self, pixels: Pixels) -> Float[Tensor, "b f"]:
        """The frozen network's features of pictures in [-1, 1], of any size."""
        return self._features[0](at_size(pixels, self.config.size).clamp(-1, 1))

    def embed_features(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures, from their features."""
        normed = (features - self.feature_mean) / self.feature_deviation
        return F.normalize(self.image(normed), dim=1)

    def embed_ids(self, ids: Int64[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        """Unit vectors of captions, from the tokenizer's ids."""
        return F.normalize(self.text(ids).pooled, dim=1)

    def loss(self, features: Float[Tensor, "b f"], ids: Int64[Tensor, "b n"]) -> Float[Tensor, ""]:
        """How badly pictures find their captions in the batch, and captions their pictures."""
        cosines = self.embed_features(features) @ self.embed_ids(ids).T  # (b, b)
        scores = self.log_scale.exp().clamp(max=100) * cosines
        own = torch.arange(len(scores))
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    @torch.inference_mode()
    def ranks(
        self,
        pixels: Pixels,
        captions: Sequence[str],
        others: Sequence[str],
        *,
        among: int = AMONG,
        seed: int = 0,
        batch_size: int = 50,
    ) -> Int64[Tensor, " b"]:
        """How many of `among - 1` other captions fit each picture better than its own; 0 is first.

        The others are drawn for each picture from `others`, which must hold that many besides the
        picture's own caption.
        """
        known = list(dict.fromkeys([*others, *captions]))
        places = {caption: place for place, caption in enumerate(known)}
        texts = torch.cat(
            [
                self.embed_ids(self.tokenizer.encode(known[start : start + 256]))
                for start in range(0, len(known), 256)
            ]
        )
        pool = torch.tensor(sorted({places[caption] for caption in others}))
        ranks: list[int] = []
        for start in range(0, len(pixels), batch_size):
            batch = self.features_of(pixels[start : start + batch_size].float())
            for row in self.embed_features(batch) @ texts.T:
                own = places[captions[len(ranks)]]
                rivals = pool[pool != own]
                if len(rivals) < among - 1:
                    raise ValueError(f"Needs {among - 1} other captions, got {len(rivals)}.")
                order = torch.randperm(len(rivals), generator=generator_for(seed, len(ranks)))
                ranks.append(int((row[rivals[order[: among - 1]]] >= row[own]).sum()))
        return torch.tensor(ranks, dtype=torch.int64)


class PlacedFeatures:
    """EfficientNet-Lite0's maps at strides 8, 16 and 32, flattened: they keep where things are."""

    SIZE = 64
    COUNT = 4 * 4 * 40 + 4 * 4 * 112 + 2 * 2 * 320

    def __init__(self, network: EfficientNetLite0):
        self._network = network

    def __call__(self, pixels: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b f"]:
        """Rows of 3,712 features."""
        eighth, sixteenth, last = self._network(pixels)[2:]
        maps = (F.avg_pool2d(eighth, 2), sixteenth, last)
        return torch.cat([level.flatten(1) for level in maps], dim=1)
