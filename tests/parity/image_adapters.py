"""IP-Adapters of each public kind, small and of random weights, under their authors' names."""

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .conftest import shaken

VECTOR, TOKENS_WIDTH = 32, 64  # of the small image tower: of a picture, and of its tokens
SIDE = 28  # of its pictures, in pixels
_HIDDEN, _INNER, _QUERIES, _DEPTH = 48, 128, 6, 4  # of the resampler; diffusers' has 4 layers


def small_image_tower(**options):
    """An image tower of 17 tokens, whose last layers differ."""
    config = CLIPVisionConfig(
        hidden_size=TOKENS_WIDTH,
        intermediate_size=96,
        projection_dim=VECTOR,
        num_hidden_layers=3,
        num_attention_heads=16,
        image_size=SIDE,
        patch_size=7,
        **options,
    )
    return shaken(CLIPVisionModelWithProjection(config))


def published_shapes(kind, context, widths, *, vector, tokens, hidden, inner, queries):
    """The names and shapes of a file; `vector` and `tokens` are widths of what it looks at."""
    shapes = {}
    if kind == "plain":
        shapes |= {"proj.weight": (4 * context, vector), "proj.bias": (4 * context,)}
        shapes |= {"norm.weight": (context,), "norm.bias": (context,)}
    elif kind == "full":
        shapes |= {"proj.0.weight": (tokens, tokens), "proj.0.bias": (tokens,)}
        shapes |= {"proj.2.weight": (context, tokens), "proj.2.bias": (context,)}
        shapes |= {"proj.3.weight": (context,), "proj.3.bias": (context,)}
    else:
        shapes |= {"latents": (1, queries, hidden)}
        shapes |= {"proj_in.weight": (hidden, tokens), "proj_in.bias": (hidden,)}
        shapes |= {"proj_out.weight": (context, hidden), "proj_out.bias": (context,)}
        shapes |= {"norm_out.weight": (context,), "norm_out.bias": (context,)}
        for i in range(_DEPTH):
            look, feed = f"layers.{i}.0", f"layers.{i}.1"
            for norm in (f"{look}.norm1", f"{look}.norm2", f"{feed}.0"):
                shapes |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
            shapes |= {f"{look}.to_q.weight": (inner, hidden)}
            shapes |= {f"{look}.to_kv.weight": (2 * inner, hidden)}
            shapes |= {f"{look}.to_out.weight": (hidden, inner)}
            shapes |= {f"{feed}.1.weight": (4 * hidden, hidden)}
            shapes |= {f"{feed}.3.weight": (hidden, 4 * hidden)}
    shapes = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    for place, width in enumerate(widths):
        for part in "kv":
            shapes[f"ip_adapter.{2 * place + 1}.to_{part}_ip.weight"] = (width, context)
    return shapes


def layer_widths(unet):
    """Of diffusers' layers of cross-attention, in the order in which its processors stand."""
    paths = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    return [unet.get_submodule(path).to_k.out_features for path in paths]


def small_adapter(unet, kind):
    """The tensors of a file for diffusers' U-Net, flat."""
    shapes = published_shapes(
        kind,
        unet.config.cross_attention_dim,
        layer_widths(unet),
        vector=VECTOR,
        tokens=TOKENS_WIDTH,
        hidden=_HIDDEN,
        inner=_INNER,
        queries=_QUERIES,
    )
    state = {}
    for name, shape in shapes.items():
        state[name] = torch.randn(shape) * (1.0 if len(shape) == 1 else 2 / shape[-1] ** 0.5)
    return state


def nested(state):
    """The same as the authors' pickles hold it: a table for each part."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


def save_adapter(path, state):
    """As the suffix says: safetensors, or a pickle."""
    if path.suffix == ".bin":
        torch.save(nested(state), path)
    else:
        save_file(state, path)
    return path
