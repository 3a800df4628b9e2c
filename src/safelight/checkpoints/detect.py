"""What a file or folder is, in plain words, by its content and never by its name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from safelight.config import read_json
from safelight.errors import SafelightError

_CONTROLS = (
    (("lora_controlnet",), "a Control-LoRA"),
    (("lllite_",), "a ControlNet-LLLite"),
    (("control_add_embedding.", "task_embedding"), "a union of ControlNets"),
    (("controlnet_cond_embedding.", "input_hint_block."), "a ControlNet"),
    (
        ("body.0.block1.weight", "body.0.body.0.block1.weight", "body.0.resnets.0.block1.weight"),
        "a T2I-Adapter",
    ),
)
"""What steers a U-Net by a picture; the first that fits."""
_MARKS = (
    (
        (
            "model.diffusion_model.",
            "first_stage_model.",
            "cond_stage_model.",
            "conditioner.embedders.",
        ),
        "a file in the layout of CompVis' models, or a part of one",
    ),
    (("emb_params", "string_to_param"), "a textual inversion embedding"),
    ((".motion_modules.",), "the motion module of AnimateDiff"),
    (("temporal_transformer_blocks.", "time_pos_embed."), "a video U-Net"),
    (("time_conv_out.",), "an autoencoder that decodes clips"),
    (("double_blocks.", "transformer_blocks.0.attn.add_k_proj"), "a diffusion transformer"),
    (("vision_model.encoder.layers.",), "a CLIP image tower"),
    (("_conv_stem.",), "an EfficientNet"),
)
_ADAPTERS = (
    (("hada_w1_a", "hada_w2_a"), "a LoHa"),
    (("lokr_w1", "lokr_w2"), "a LoKr"),
    (("lora_down.", "lora_A.", "lora.down.", "_lora.down.", "lora_linear_layer.down."), "a LoRA"),
)
"""Kinds of adapters, by the names of their parts; the first that fits."""
_MAGNITUDES = ("dora_scale", "lora_magnitude_vector")
"""What DoRA has beside them."""
_LAYOUTS = (
    (("lora_unet_", "lora_te"), "kohya's"),
    (("lycoris_",), "LyCORIS'"),
    (("base_model.model.",), "peft's"),
    (("unet.", "text_encoder"), "diffusers'"),
)
"""Layouts of adapters, by how their names begin; the first that fits."""
_SEEING = re.compile(r"ip_adapter\.[0-9]+\.to_k_ip\.weight")
"""What an IP-Adapter adds to a layer."""
_RANK_PARTS = (
    *("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight"),
    *("lora_linear_layer.down.weight", "hada_w1_b"),
)
_CROSSINGS = ("attn2.to_k.weight", "attn2.to_k.down")
_CONTEXT_WIDTHS = {
    768: "a Stable Diffusion 1.x U-Net",
    1024: "a Stable Diffusion 2.x U-Net",
    1280: "an SDXL refiner U-Net",
    2048: "an SDXL U-Net",
}
PURPOSES = {
    5: " for depth",
    7: " for upscaling",
    8: " for editing by instruction",
    9: " for inpainting",
}
"""What a U-Net is for, by its input channels."""
_TINY = (
    *("decoder.layers.0.weight", "encoder.layers.1.conv.0.weight"),  # diffusers'
    *("decoder.3.conv.0.weight", "encoder.1.conv.0.weight"),  # TAESD's own, both halves
    *("3.conv.0.weight", "1.conv.0.weight"),  # each half in its file
    *("taesd_decoder.3.conv.0.weight", "taesd_encoder.1.conv.0.weight"),
)
_TEXT_WIDTHS = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "OpenCLIP-bigG"}


def describe_state(state: Mapping[str, Tensor]) -> str:
    """What a file's tensors are, such as "an SDXL U-Net", by their names and shapes."""
    if not state:
        return "empty"
    if any(map(_SEEING.fullmatch, state)):
        return _describe_image_adapter(state)
    kind = _adapter_kind(state)
    if kind is not None:
        return _describe_adapter(state, kind)
    control = _first_mark(state, _CONTROLS)
    if control is not None:
        return control + _family(state, _CROSSINGS)
    mark = _first_mark(state, _MARKS)
    if mark is not None:
        return mark
    if "down_blocks.0.resnets.0.time_emb_proj.weight" in state and "conv_in.weight" in state:
        return _describe_unet(state)
    if "encoder.conv_in.weight" in state and "decoder.conv_in.weight" in state:
        if any(key.startswith(("quantize.", "codebook.")) for key in state):
            return "a VQ autoencoder"
        latents = _width(state["decoder.conv_in.weight"])
        return f"a KL autoencoder of {latents} latent channels"
    if any(mark in state for mark in _TINY):
        return "a tiny autoencoder, or half of one"
    tokens = [key for key in state if key.endswith("embeddings.token_embedding.weight")]
    if tokens:
        width = _width(state[tokens[0]])
        return f"a CLIP text tower of width {width} ({_TEXT_WIDTHS.get(width, 'no known family')})"
    if {"features.0.weight", "features.28.weight"} <= state.keys():
        return "a VGG16"
    names = ", ".join(repr(key) for key in list(state)[:2])
    return f"nothing known ({len(state)} tensors, such as {names})"


def describe_folder(folder: Path) -> str:
    """What a model folder says that it is, such as "a StableDiffusionPipeline folder"."""
    for name in ("model_index.json", "config.json"):
        if (folder / name).is_file():
            try:
                values = read_json(folder / name)
            except SafelightError:
                return f"a folder whose {name} is broken"
            kind = values.get("_class_name") or values.get("model_type")
            what = "folder" if name == "model_index.json" else "component"
            return f"a {kind} {what}" if kind else f"a folder whose {name} names no class"
    if (folder / "base.json").is_file():
        return "a LoRA that stands on another model"
    if not folder.is_dir():
        return "a file" if folder.exists() else "not there"
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    return f"a folder without model_index.json or config.json (it holds {present})"


def _first_mark(
    state: Mapping[str, Tensor], table: Sequence[tuple[tuple[str, ...], str]]
) -> str | None:
    for marks, description in table:
        if any(mark in key for key in state for mark in marks):
            return description
    return None


def _adapter_kind(state: Mapping[str, Tensor]) -> str | None:
    kind = _first_mark(state, _ADAPTERS)
    if not any(mark in key for key in state for mark in _MAGNITUDES):
        return kind
    return "a DoRA" if kind in (None, "a LoRA") else f"{kind} with DoRA"


def _describe_adapter(state: Mapping[str, Tensor], kind: str) -> str:
    """Such as "a LoRA of rank 8 in kohya's layout, for a Stable Diffusion 1.x U-Net"."""
    ranks = {
        part.shape[0] for key, part in state.items() if key.endswith(_RANK_PARTS) and part.ndim > 1
    }
    rank = "" if not ranks else f" of rank {min(ranks)}"
    rank += f" to {max(ranks)}" if len(ranks) > 1 else ""
    begins = next(
        (
            layout
            for marks, layout in _LAYOUTS
            if any(key.startswith(mark) for key in state for mark in marks)
        ),
        None,
    )
    layout = "" if begins is None else f" in {begins} layout"
    return f"{kind}{rank}{layout}{_family(state, _RANK_PARTS)}"


def _describe_image_adapter(state: Mapping[str, Tensor]) -> str:
    """Such as "an IP-Adapter, plus, for a Stable Diffusion 1.x U-Net"."""
    deep = "image_proj.proj.0.weight" in state
    if deep and ("image_proj.norm.weight" in state or any("_lora." in key for key in state)):
        kind = ", of faces (FaceID), which is not read"
    elif "image_proj.latents" in state:
        kind = ", plus"
    else:
        kind = ", full" if deep else ""
    widths = {_width(part) for key, part in state.items() if _SEEING.fullmatch(key)}
    name = _CONTEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None
    return f"an IP-Adapter{kind}" + ("" if name is None else f", for {name}")


def _family(state: Mapping[str, Tensor], endings: tuple[str, ...]) -> str:
    """Which U-Net it is for, by the context's width in the names that end so."""
    widths = {
        _width(part)
        for key, part in state.items()
        if "attn2" in key and "to_k" in key and key.endswith(endings)
    }
    found = {width for width in widths if width in _CONTEXT_WIDTHS}
    return f", for {_CONTEXT_WIDTHS[found.pop()]}" if len(found) == 1 else ""


def _describe_unet(state: Mapping[str, Tensor]) -> str:
    channels = _width(state["conv_in.weight"])
    crossings = [key for key in state if key.endswith("attn2.to_k.weight")]
    width = _width(state[crossings[0]]) if crossings else 0
    purpose = PURPOSES.get(channels, "" if channels == 4 else f" of {channels} input channels")
    if width in _CONTEXT_WIDTHS:
        return _CONTEXT_WIDTHS[width] + purpose
    context = f"context width {width}" if crossings else "no context"
    return f"a U-Net of {channels} input channels and {context}"


def _width(tensor: Tensor) -> int:
    """What a layer takes; 0 for a tensor that is no layer's weight."""
    return tensor.shape[1] if tensor.ndim > 1 else 0
