"""The shapes of networks, read off the tensors of a single file, which brings no configuration."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from safelight.errors import SafelightError
from safelight.models.autoencoder import AutoencoderConfig
from safelight.models.clip import ClipTextConfig
from safelight.models.clip_vision import ClipVisionConfig
from safelight.models.controlnet import ControlNetConfig
from safelight.models.unet import ClassKind, UNetConfig
from safelight.models.vq import VQConfig

_HEAD = 64  # channels of a head in the public towers, and in U-Nets with linear projections
_SD1_HEADS = 8
_VISION_HEADS = 16
_CLIP_L_VISION = 1024  # width of the image tower of OpenAI's CLIP-L
_OPEN_CLIP_H = 1024  # width of the context of Stable Diffusion 2.x


def unet_config_of(state: Mapping[str, Tensor], source: str) -> UNetConfig:
    """The shape of the U-Net whose tensors these are.

    All is read off the tensors but the heads, which leave no trace: with linear projections a head
    has 64 channels, else there are 8, as in every public U-Net; those that take classes by number,
    the upscalers, have 8 as well.

    Raises `SafelightError` for anything but a U-Net of this family.
    """
    try:
        return _unet_config(state)
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(
            f"{source} holds no U-Net of Stable Diffusion's family that is whole ({error})."
        ) from error


def _unet_config(state: Mapping[str, Tensor]) -> UNetConfig:
    return replace(_encoder_config(state), out_channels=state["out.2.weight"].shape[0])


def _encoder_config(state: Mapping[str, Tensor]) -> UNetConfig:
    """All of a U-Net's shape that its first half shows."""
    first = state["input_blocks.0.0.weight"]
    channels: list[int] = []
    layers: list[int] = []
    attention: list[bool] = []
    depths: list[int] = []
    self_context: list[bool] = []
    new_level = True
    numbers = {key.split(".", 2)[1] for key in state if key.startswith("input_blocks.")}
    number = 1
    while str(number) in numbers:
        block = f"input_blocks.{number}"
        number += 1
        if f"{block}.0.op.weight" in state:
            new_level = True
            continue
        if new_level:
            channels.append(state[f"{block}.0.out_layers.3.weight"].shape[0])
            attention.append(f"{block}.1.norm.weight" in state)
            depths.append(_depth(state, f"{block}.1"))
            self_context.append(attention[-1] and _self_context(state, f"{block}.1"))
            layers.append(0)
            new_level = False
        layers[-1] += 1
    mid_attention = "middle_block.1.norm.weight" in state
    if mid_attention and not attention[-1]:
        depths[-1] = _depth(state, "middle_block.1")
    projections = [tensor for key, tensor in state.items() if key.endswith(".1.proj_in.weight")]
    contexts = [tensor for key, tensor in state.items() if key.endswith("attn2.to_k.weight")]
    linear = bool(projections) and projections[0].ndim == 2
    class_kind, class_dim, added_dim = _labels(state, contexts[0].shape[1] if contexts else 0)
    by_width = linear and not (class_kind == "embedding" and class_dim)
    config = UNetConfig(
        in_channels=first.shape[1],
        sample_size=None,
        block_out_channels=tuple(channels),
        layers_per_block=tuple(layers),
        attention=tuple(attention),
        transformer_layers=tuple(max(depth, 1) for depth in depths),
        attention_heads=tuple(max(c // _HEAD, 1) if by_width else _SD1_HEADS for c in channels),
        only_cross_attention=tuple(self_context),
        mid_attention=mid_attention,
        cross_attention_dim=contexts[0].shape[1] if contexts else None,
        use_linear_projection=linear,
        upcast_attention=linear and contexts[0].shape[1] == _OPEN_CLIP_H,  # 2.1 overflows float16
        class_kind=class_kind,
        class_dim=class_dim,
        added_dim=added_dim,
        added_time_dim=256 if added_dim else None,
    )
    condition = state.get("time_embed.cond_proj.weight")
    return config if condition is None else replace(config, guidance_dim=condition.shape[1])


def controlnet_config_of(state: Mapping[str, Tensor], source: str) -> ControlNetConfig:
    """The shape of the ControlNet whose tensors, in the original names, these are.

    Heads, and what a hint's channels mean, leave no trace: heads are as in `unet_config_of`, and a
    hint has red first. Raises `SafelightError` for anything but a ControlNet of this family.
    """
    try:
        return hint_config_of(state, _encoder_config(state), source)
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(
            f"{source} holds no ControlNet of Stable Diffusion's family that is whole ({error})."
        ) from error


def hint_config_of(state: Mapping[str, Tensor], unet: UNetConfig, source: str) -> ControlNetConfig:
    """The shape of the ControlNet of such a U-Net whose tensors, in the original names, these are.

    Raises `SafelightError` if it has no layers for a hint.
    """
    try:
        hint = state["input_hint_block.0.weight"]
        widths = (hint.shape[0], *_hint_widths(state))
        return ControlNetConfig(unet, hint_channels=hint.shape[1], hint_block_channels=widths)
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(f"{source} holds no ControlNet that is whole ({error}).") from error


def _hint_widths(state: Mapping[str, Tensor]) -> list[int]:
    """What each halving of a hint gives: every second layer but the first and the last."""
    widths: list[int] = []
    while f"input_hint_block.{4 * len(widths) + 6}.weight" in state:
        widths.append(state[f"input_hint_block.{4 * len(widths) + 4}.weight"].shape[0])
    return widths


def _depth(state: Mapping[str, Tensor], block: str) -> int:
    depth = 0
    while f"{block}.transformer_blocks.{depth}.norm1.weight" in state:
        depth += 1
    return depth


def _self_context(state: Mapping[str, Tensor], block: str) -> bool:
    keys = state.get(f"{block}.transformer_blocks.0.attn1.to_k.weight")
    return keys is not None and keys.shape[1] != keys.shape[0]


def _labels(state: Mapping[str, Tensor], context: int) -> tuple[ClassKind, int | None, int | None]:
    """The kind and width of the classes, and the width of SDXL's added vector."""
    if "label_emb.weight" in state:
        return "embedding", state["label_emb.weight"].shape[0], None
    projection = state.get("label_emb.0.0.weight")
    if projection is None:
        return "embedding", None, None
    if (
        context == _OPEN_CLIP_H
    ):  # Stable Diffusion 2.x unCLIP: the picture's embedding and its noise
        return "projection", projection.shape[1], None
    return "embedding", None, projection.shape[1]


def autoencoder_config_of(
    state: Mapping[str, Tensor], scale: float, source: str
) -> AutoencoderConfig:
    """The shape of the KL autoencoder whose tensors, in CompVis' names, these are.

    Raises `SafelightError` for anything but one of this family.
    """
    try:
        return _autoencoder_config(state, scale)
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(
            f"{source} holds no autoencoder of Stable Diffusion's family that is whole ({error})."
        ) from error


def vq_config_of(state: Mapping[str, Tensor], scale: float, source: str) -> VQConfig:
    """The shape of the VQ autoencoder whose tensors, in CompVis' names, these are.

    Raises `SafelightError` for anything but one of this family.
    """
    try:
        shape = _autoencoder_config(state, scale)
        codebook = state["quantize.embedding.weight"]
        return VQConfig(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            latent_channels=shape.latent_channels,
            codebook_size=codebook.shape[0],
            codebook_dim=codebook.shape[1],
            block_out_channels=shape.block_out_channels,
            layers_per_block=shape.layers_per_block,
            attention=shape.attention,
            mid_attention=shape.mid_attention,
            sample_size=None,
            scaling_factor=scale,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(
            f"{source} holds no VQ autoencoder that is whole ({error})."
        ) from error


def _autoencoder_config(state: Mapping[str, Tensor], scale: float) -> AutoencoderConfig:
    channels: list[int] = []
    attention: list[bool] = []
    while f"encoder.down.{len(channels)}.block.0.conv2.weight" in state:
        level = f"encoder.down.{len(channels)}"
        channels.append(state[f"{level}.block.0.conv2.weight"].shape[0])
        attention.append(f"{level}.attn.0.norm.weight" in state)
    layers = 0
    while f"encoder.down.0.block.{layers}.conv1.weight" in state:
        layers += 1
    return AutoencoderConfig(
        in_channels=state["encoder.conv_in.weight"].shape[1],
        out_channels=state["decoder.conv_out.weight"].shape[0],
        latent_channels=state["decoder.conv_in.weight"].shape[1],
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        attention=tuple(attention),
        mid_attention="encoder.mid.attn_1.norm.weight" in state,
        quant_conv="quant_conv.weight" in state,
        post_quant_conv="post_quant_conv.weight" in state,
        sample_size=None,
        scaling_factor=scale,
    )


def clip_config_of(state: Mapping[str, Tensor], source: str) -> ClipTextConfig:
    """The shape of the text tower whose tensors, in our names, these are.

    Heads leave no trace: they have 64 channels, as in every public tower. Raises `SafelightError`
    for anything but a text tower.
    """
    try:
        words = state["embeddings.token_embedding.weight"]
        layers = 0
        while f"encoder.layers.{layers}.layer_norm1.weight" in state:
            layers += 1
        projection = state.get("text_projection.weight")
        return ClipTextConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=max(words.shape[1] // _HEAD, 1),
            max_position_embeddings=state["embeddings.position_embedding.weight"].shape[0],
            eos_token_id=words.shape[0] - 1,
            projection_dim=None if projection is None else projection.shape[0],
        )
    except (KeyError, IndexError) as error:
        raise SafelightError(f"{source} holds no text tower that is whole ({error}).") from error


def vision_config_of(state: Mapping[str, Tensor], source: str) -> ClipVisionConfig:
    """The shape of the image tower whose tensors, in our names, these are.

    Heads and the activation leave no trace: the public towers have 16 heads, and OpenCLIP's, which
    are wider than OpenAI's CLIP-L, the exact gelu. Raises `SafelightError` for anything but an
    image tower.
    """
    try:
        patches = state["embeddings.patch_embedding.weight"]
        width, patch = patches.shape[0], patches.shape[2]
        positions = state["embeddings.position_embedding.weight"].shape[0]
        layers = 0
        while f"encoder.layers.{layers}.layer_norm1.weight" in state:
            layers += 1
        return ClipVisionConfig(
            hidden_size=width,
            intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=_VISION_HEADS if width % _VISION_HEADS == 0 else 1,
            image_size=math.isqrt(positions - 1) * patch,
            patch_size=patch,
            hidden_act="gelu" if width > _CLIP_L_VISION else "quick_gelu",
            projection_dim=state["visual_projection.weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(f"{source} holds no image tower that is whole ({error}).") from error
