"""Tiny random networks by which hints are estimated, in files as the published ones."""

from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTHS = (2, 3, 4, 5, 6)
LAYERS = (2, 2, 3, 3, 3)
"""Of HED's five stages."""


def write_depth(folder: Path) -> Path:
    """A DPT, as transformers writes it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        readout_type="project",
        initializer_range=0.2,  # at the usual one every depth is the same
    )
    network = transformers.DPTForDepthEstimation(config)
    torch.nn.init.constant_(network.head.head[4].bias, 5.0)  # away from the ReLU at its end
    network.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    transformers.DPTImageProcessor(size=size).save_pretrained(folder)
    return folder


def hed_kernels() -> dict[str, torch.Tensor]:
    """Random kernels and biases of a narrow HED, by stage and place."""
    draws, kernels, inputs = torch.Generator().manual_seed(0), {}, 3
    for stage, (width, layers) in enumerate(zip(WIDTHS, LAYERS, strict=True)):
        for layer in range(layers):
            shape = (width, inputs, 3, 3)
            scale = (2 / (9 * inputs)) ** 0.5 / (50 if inputs == 3 and layer == 0 else 1)
            kernels[f"{stage}.{layer}.weight"] = torch.randn(shape, generator=draws) * scale
            kernels[f"{stage}.{layer}.bias"] = torch.randn(width, generator=draws) * 0.1
            inputs = width
        kernels[f"{stage}.out.weight"] = torch.randn((1, width, 1, 1), generator=draws)
        kernels[f"{stage}.out.bias"] = torch.randn(1, generator=draws)
    return kernels


def write_hed(path: Path) -> Path:
    """A HED in the layout of lllyasviel's annotators."""
    state = {"norm": torch.tensor([120.0, 110, 100]).reshape(1, 3, 1, 1)}
    for key, tensor in hed_kernels().items():
        stage, layer, kind = key.split(".")
        inside = "projection" if layer == "out" else f"convs.{layer}"
        state[f"block{int(stage) + 1}.{inside}.{kind}"] = tensor
    save_file(state, path)
    return path
