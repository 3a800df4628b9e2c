"""The first half of a U-Net, which a control network copies: embeddings, and the way down.

Source: Rombach et al. 2022 (arXiv 2112.10752), sections 3.2 and 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import PictureAttention, SpatialTransformer
from safelight.nn.blocks import Downsample, Picture, ResBlock
from safelight.nn.embeddings import ContextEmbedding, Embedding, OneHotEmbedding, sinusoidal
from safelight.nn.recompute import recomputed
from safelight.types import Conditioning

Emb = Float[Tensor, "*rows d"]  # over clips with an axis of frames: (b, f, d)
ClassKind = Literal["embedding", "projection", "identity"]


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net. Tuples hold one entry a level, from the finest to the coarsest.

    With `context_heads` the pooled `cond.context` joins the time embedding, as DeepFloyd IF has it.
    `cond.vector` is split into up to three parts, in this order: `class_dim` entries (one-hot for
    `class_kind="embedding"`, features for "projection", an embedding itself for "identity"),
    `added_dim` entries (SDXL's pooled text and sizes) and `guidance_dim` entries (LCM's guidance).
    """

    in_channels: int = 4
    out_channels: int = 4
    sample_size: int | None = 64  # latent height and width it was trained at
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (True, True, True, False)
    transformer_layers: tuple[int, ...] = (1, 1, 1, 1)
    attention_heads: tuple[int, ...] = (8, 8, 8, 8)
    only_cross_attention: tuple[bool, ...] = (False, False, False, False)
    mid_block: bool = True
    mid_attention: bool = True
    cross_attention_dim: int | None = 768
    self_attention: bool = False  # without context, as in the autoencoders
    use_linear_projection: bool = False
    upcast_attention: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    resnet_scale_shift: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    class_kind: ClassKind = "embedding"
    class_dim: int | None = None
    added_dim: int | None = None
    added_time_dim: int | None = None  # width of the features of each number in the added part
    guidance_dim: int | None = None
    context_heads: int | None = None  # of the attention that pools the context into the embedding

    def __post_init__(self):
        levels = len(self.block_out_channels)
        for name in (
            "layers_per_block",
            "attention",
            "transformer_layers",
            "attention_heads",
            "only_cross_attention",
        ):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries for {levels} levels of "
                    "block_out_channels; give one a level."
                )
        if self.self_attention and self.cross_attention_dim is not None:
            raise ValueError("self_attention looks at no context; leave out cross_attention_dim.")
        if self.context_heads is not None:
            if self.cross_attention_dim is None or self.context_heads < 1:
                raise ValueError("context_heads needs a cross_attention_dim and one head or more.")
            if self.cross_attention_dim % self.context_heads:
                raise ValueError(
                    f"cross_attention_dim {self.cross_attention_dim} does not split into "
                    f"{self.context_heads} context_heads."
                )

    @property
    def emb_dim(self) -> int:
        """Width of the time embedding."""
        return self.block_out_channels[0] * 4


class UNetEncoder(nn.Module):
    """The embeddings of a U-Net and its way down to the middle."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        channels, emb_dim = config.block_out_channels, config.emb_dim

        self.time_embedding = Embedding(channels[0], emb_dim, config.guidance_dim)
        self.class_embedding = _class_embedding(config)
        self.add_embedding = Embedding(config.added_dim, emb_dim) if config.added_dim else None

        self.context_embedding = _context_embedding(config)

        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise((channels[0], *channels))):
            inputs = [before] + [after] * (config.layers_per_block[level] - 1)
            downsample = level < len(channels) - 1
            self.down_blocks.append(_DownBlock(config, level, inputs, downsample=downsample))

        self.mid_block = _MidBlock(config) if config.mid_block else None

    def descend(self, x: Picture, emb: Emb, cond: Conditioning) -> tuple[Picture, list[Tensor]]:
        """From the first layer's output to the middle's, with the skips on the way.

        Each of `cond.features`, if any, is added within its level, and one more to the middle.
        Raises `ValueError` for another number of them.
        """
        levels, features = len(self.down_blocks), cond.features
        if features and len(features) not in (levels, levels + 1):
            raise ValueError(
                f"Expected features for {levels} levels, and at most one more for the middle, got "
                f"{len(features)}."
            )
        recompute = self.gradient_checkpointing
        skips: list[Tensor] = [x]
        for block in self.down_blocks:
            x, outputs = recomputed(block, recompute)(x, emb, cond)
            skips += outputs
        if self.mid_block is not None:
            x = recomputed(self.mid_block, recompute)(x, emb, cond)
        if len(features) > levels:
            x = x + features[-1]
        return x, skips

    def embed(self, t: Float[Tensor, " b"], cond: Conditioning) -> Emb:
        """The sum of the time's, class's, added, guidance and context embeddings, (b, emb_dim)."""
        emb = self.embed_features(self.time_features(t), cond.vector)
        pooled = self.pool(cond)
        return emb if pooled is None else emb + pooled

    def time_features(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """The sinusoidal features of the time."""
        config = self.config
        features = sinusoidal(
            t,
            config.block_out_channels[0],
            flip_sin_to_cos=config.flip_sin_to_cos,
            freq_shift=config.freq_shift,
        )
        return features.to(self.conv_in.weight.dtype)

    def embed_features(
        self, features: Float[Tensor, "b c"], vector: Float[Tensor, "b v"] | None
    ) -> Emb:
        """`embed` of `time_features(t)` and a conditioning's vector, without its context."""
        config = self.config
        widths = [config.class_dim or 0, config.added_dim or 0, config.guidance_dim or 0]
        width = 0 if vector is None else vector.shape[1]
        if width != sum(widths):
            raise ValueError(
                f"This U-Net expects a conditioning vector of width {sum(widths)} "
                f"(class {widths[0]}, added {widths[1]}, guidance {widths[2]}), got {width}."
            )
        if vector is None:
            return self.time_embedding(features)
        classes, added, guidance = vector.tensor_split([widths[0], sum(widths[:2])], dim=1)
        emb = self.time_embedding(features, guidance if config.guidance_dim else None)
        if self.class_embedding is not None:
            emb = emb + self.class_embedding(classes)
        if self.add_embedding is not None:
            emb = emb + self.add_embedding(added)
        return emb

    def pool(self, cond: Conditioning) -> Emb | None:
        """What a conditioning's context adds to the embedding, if anything."""
        if self.context_embedding is None:
            return None
        if cond.context is None:
            raise ValueError("This U-Net expects a context to pool, got none.")
        return self.context_embedding(cond.context)


class _DownBlock(nn.Module):
    """Residual blocks, each followed by a transformer where the level has attention; then a
    halving. A T2I-Adapter's features are added before the halving where the level has attention,
    else after it, as diffusers does.
    """

    def __init__(self, config: UNetConfig, level: int, inputs: list[int], *, downsample: bool):
        super().__init__()
        self.level = level
        channels = config.block_out_channels[level]
        self.resnets = nn.ModuleList(residual_block(config, width, channels) for width in inputs)
        self.attentions = transformers_of(config, level, len(inputs))
        self.downsampler = Downsample(channels, padding=1) if downsample else None

    def forward(self, x: Picture, emb: Emb, cond: Conditioning) -> tuple[Picture, list[Tensor]]:
        outputs: list[Tensor] = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, emb)
            if self.attentions is not None:
                x = self.attentions[i](x, cond.context)
            outputs.append(x)
        if cond.features and self.attentions is not None:
            x = outputs[-1] = x + cond.features[self.level]
        if self.downsampler is not None:
            x = self.downsampler(x)
            outputs.append(x)
        if cond.features and self.attentions is None:
            x = outputs[-1] = x + cond.features[self.level]
        return x, outputs


class _MidBlock(nn.Module):
    """Residual block, transformer, residual block at the coarsest level; else one block alone."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        channels, level = config.block_out_channels[-1], len(config.block_out_channels) - 1
        attend = config.mid_attention
        blocks = 2 if attend else 1  # as diffusers has it
        self.resnets = nn.ModuleList(
            residual_block(config, channels, channels) for _ in range(blocks)
        )
        self.attentions = (
            nn.ModuleList([_transformer(config, level, self_context=False)]) if attend else None
        )

    def forward(self, x: Picture, emb: Emb, cond: Conditioning) -> Picture:
        x = self.resnets[0](x, emb)
        if self.attentions is None:
            return x
        x = self.attentions[0](x, cond.context)
        return self.resnets[1](x, emb)


def skip_channels(config: UNetConfig) -> list[int]:
    """The channels of each skip, from the first layer's on."""
    channels, last = config.block_out_channels, len(config.block_out_channels) - 1
    skips = [channels[0]]
    for level, layers in enumerate(config.layers_per_block):
        skips += [channels[level]] * (layers if level == last else layers + 1)
    return skips


def residual_block(config: UNetConfig, in_channels: int, out_channels: int) -> ResBlock:
    """A residual block of such a U-Net."""
    return ResBlock(
        in_channels,
        out_channels,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
        emb_dim=config.emb_dim,
        scale_shift=config.resnet_scale_shift,
    )


def transformers_of(config: UNetConfig, level: int, count: int) -> nn.ModuleList | None:
    """The transformers of a level, None where it does not attend."""
    if not config.attention[level]:
        return None
    self_context = config.only_cross_attention[level]
    return nn.ModuleList(
        _transformer(config, level, self_context=self_context) for _ in range(count)
    )


class _SelfAttention(PictureAttention):
    """Attention of a U-Net that takes no context."""

    def forward(self, x: Picture, context: Tensor | None = None) -> Picture:
        return super().forward(x)


def _transformer(config: UNetConfig, level: int, *, self_context: bool) -> nn.Module:
    if config.self_attention:
        return _SelfAttention(
            config.block_out_channels[level],
            groups=config.norm_num_groups,
            eps=config.norm_eps,
            heads=config.attention_heads[level],
        )
    return SpatialTransformer(
        config.block_out_channels[level],
        config.attention_heads[level],
        config.transformer_layers[level],
        config.cross_attention_dim,
        groups=config.norm_num_groups,
        linear=config.use_linear_projection,
        self_context=self_context,
        upcast=config.upcast_attention,
    )


def _class_embedding(config: UNetConfig) -> nn.Module | None:
    if config.class_dim is None:
        return None
    build: dict[str, Callable[[int, int], nn.Module]] = {
        "embedding": OneHotEmbedding,
        "projection": Embedding,
        "identity": lambda _in, _out: nn.Identity(),
    }
    return build[config.class_kind](config.class_dim, config.emb_dim)


def _context_embedding(config: UNetConfig) -> ContextEmbedding | None:
    if config.context_heads is None or config.cross_attention_dim is None:
        return None
    return ContextEmbedding(config.cross_attention_dim, config.emb_dim, config.context_heads)
