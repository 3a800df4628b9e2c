"""CompVis' and Stability's single files: their keys beside diffusers'.

Keys here are without the prefixes of a whole file, and beside them stand diffusers' names, so that
a file goes through these tables and then through the tables of diffusers' folders.
"""

from safelight.checkpoints.rules import Joined, Rule, Table
from safelight.models.unet import UNetConfig

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_table(config: UNetConfig) -> Table:
    """The keys of a U-Net of this shape: blocks are numbered through all levels."""
    label = "class_embedding" if config.class_dim is not None else "add_embedding"
    rows = [
        Rule("time_embedding.linear_1.{p}", "time_embed.0.{p}"),
        Rule("time_embedding.linear_2.{p}", "time_embed.2.{p}"),
        Rule("time_embedding.cond_proj.{p}", "time_embed.cond_proj.{p}"),  # ours: no public file
        Rule(f"{label}.linear_1.{{p}}", "label_emb.0.0.{p}"),
        Rule(f"{label}.linear_2.{{p}}", "label_emb.0.2.{p}"),
        Rule("class_embedding.{p}", "label_emb.{p}"),
        Rule("add_embedding.{p}", "add_embedding.{p}"),  # IF's, which no single file of theirs has
        Rule("conv_in.{p}", "input_blocks.0.0.{p}"),
        Rule("conv_norm_out.{p}", "out.0.{p}"),
        Rule("conv_out.{p}", "out.2.{p}"),
        *_resnet("mid_block.resnets.0", "middle_block.0"),
        Rule("mid_block.attentions.0.{p}", "middle_block.1.{p}"),
        *_resnet("mid_block.resnets.1", "middle_block.2"),
    ]
    number = 1
    levels = range(len(config.block_out_channels))
    for level in levels:
        for layer in range(config.layers_per_block[level]):
            rows += _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0")
            theirs = f"input_blocks.{number}.1.{{p}}"
            rows.append(Rule(f"down_blocks.{level}.attentions.{layer}.{{p}}", theirs))
            number += 1
        if level < levels[-1]:
            ours = f"down_blocks.{level}.downsamplers.0.conv.{{p}}"
            rows.append(Rule(ours, f"input_blocks.{number}.0.op.{{p}}"))
            number += 1
    number = 0
    for place, level in enumerate(reversed(levels)):
        attends = config.attention[level]
        for layer in range(config.layers_per_block[level] + 1):
            rows += _resnet(f"up_blocks.{place}.resnets.{layer}", f"output_blocks.{number}.0")
            if attends:
                theirs = f"output_blocks.{number}.1.{{p}}"
                rows.append(Rule(f"up_blocks.{place}.attentions.{layer}.{{p}}", theirs))
            number += 1
        if level > 0:
            ours = f"up_blocks.{place}.upsamplers.0.conv.{{p}}"
            rows.append(Rule(ours, f"output_blocks.{number - 1}.{1 + attends}.conv.{{p}}"))
    return Table(tuple(rows))


def _resnet(ours: str, theirs: str) -> list[Rule]:
    return [
        Rule(f"{ours}.{mine}.{{p}}", f"{theirs}.{other}.{{p}}") for mine, other in _RESNET.items()
    ]


def autoencoder_table(levels: int) -> Table:
    """The keys of an autoencoder, KL or VQ, of that many levels; its decoder counts backwards."""
    rows: list[Rule] = []
    for level in range(levels):
        up = levels - 1 - level
        for half, ours, theirs in (
            ("encoder", f"down_blocks.{level}", f"down.{level}"),
            ("decoder", f"up_blocks.{level}", f"up.{up}"),
        ):
            way = "down" if half == "encoder" else "up"
            block, other = f"{half}.{ours}", f"{half}.{theirs}"
            rows += [
                Rule(
                    f"{block}.resnets.{{j}}.conv_shortcut.{{p}}",
                    f"{other}.block.{{j}}.nin_shortcut.{{p}}",
                ),
                Rule(f"{block}.resnets.{{rest}}", f"{other}.block.{{rest}}"),
                *_attention(f"{block}.attentions.{{j}}", f"{other}.attn.{{j}}"),
                Rule(f"{block}.{way}samplers.0.{{rest}}", f"{other}.{way}sample.{{rest}}"),
            ]
    for half in ("encoder", "decoder"):
        rows += [
            Rule(f"{half}.mid_block.resnets.0.{{rest}}", f"{half}.mid.block_1.{{rest}}"),
            Rule(f"{half}.mid_block.resnets.1.{{rest}}", f"{half}.mid.block_2.{{rest}}"),
            *_attention(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"),
            Rule(f"{half}.conv_norm_out.{{p}}", f"{half}.norm_out.{{p}}"),
            Rule(f"{half}.conv_in.{{p}}", f"{half}.conv_in.{{p}}"),
            Rule(f"{half}.conv_out.{{p}}", f"{half}.conv_out.{{p}}"),
        ]
    rows += [
        Rule(f"{name}.{{p}}", f"{name}.{{p}}")
        for name in ("quant_conv", "post_quant_conv", "quantize.embedding")
    ]
    return Table(tuple(rows), dropped=("loss.{rest}", "model_ema.{rest}"))


def _attention(ours: str, theirs: str) -> list[Rule]:
    layers = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    return [
        Rule(f"{ours}.group_norm.{{p}}", f"{theirs}.norm.{{p}}"),
        *(
            Rule(f"{ours}.{mine}.weight", f"{theirs}.{other}.weight", "pointwise")
            for mine, other in layers.items()
        ),
        *(Rule(f"{ours}.{mine}.bias", f"{theirs}.{other}.bias") for mine, other in layers.items()),
    ]


_CLIP_LAYERS = (
    Rule("encoder.layers.{i}.layer_norm1.{p}", "transformer.resblocks.{i}.ln_1.{p}"),
    Rule("encoder.layers.{i}.layer_norm2.{p}", "transformer.resblocks.{i}.ln_2.{p}"),
    Rule("encoder.layers.{i}.mlp.fc1.{p}", "transformer.resblocks.{i}.mlp.c_fc.{p}"),
    Rule("encoder.layers.{i}.mlp.fc2.{p}", "transformer.resblocks.{i}.mlp.c_proj.{p}"),
    Rule(
        "encoder.layers.{i}.self_attn.out_proj.{p}", "transformer.resblocks.{i}.attn.out_proj.{p}"
    ),
)
_CLIP_JOINED = tuple(
    Joined(
        tuple(f"encoder.layers.{{i}}.self_attn.{part}_proj.{kind}" for part in "qkv"),
        f"transformer.resblocks.{{i}}.attn.in_proj_{kind}",
    )
    for kind in ("weight", "bias")
)
OPEN_CLIP = Table(
    (
        Rule("embeddings.token_embedding.weight", "token_embedding.weight"),
        Rule("embeddings.position_embedding.weight", "positional_embedding"),
        *_CLIP_LAYERS,
        Rule("final_layer_norm.{p}", "ln_final.{p}"),
        Rule("text_projection.weight", "text_projection", "transposed"),
    ),
    dropped=("logit_scale", "attn_mask"),
    joined=_CLIP_JOINED,
)
"""OpenCLIP's text tower beside ours, which has transformers' names."""

OPEN_CLIP_VISION = Table(
    (
        Rule("embeddings.class_embedding", "class_embedding"),
        Rule("embeddings.patch_embedding.weight", "conv1.weight"),
        Rule("embeddings.position_embedding.weight", "positional_embedding"),
        Rule("pre_layrnorm.{p}", "ln_pre.{p}"),
        *_CLIP_LAYERS,
        Rule("post_layernorm.{p}", "ln_post.{p}"),
        Rule("visual_projection.weight", "proj", "transposed"),
    ),
    joined=_CLIP_JOINED,
)
"""The image tower of OpenCLIP, and of OpenAI's CLIP, beside ours."""
