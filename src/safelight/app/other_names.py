"""What other programs call the options of ours."""

from collections.abc import Collection, Mapping

_NAMES: Mapping[str, tuple[str, ...]] = {
    "--scale": ("cfg-scale", "cfg", "guidance-scale", "guidance"),
    "--steps": ("num-inference-steps", "num-steps", "sampling-steps", "ddim-steps"),
    "--output": ("output-path", "output-dir", "output-file", "out", "outdir", "save-path"),
    "--negative": ("negative-prompt", "neg-prompt"),
    "--count": ("num-images", "num-images-per-prompt", "n-samples", "n-iter", "batch-size"),
    "--image": ("init-image", "init-img", "input-image"),
    "--mask": ("mask-image",),
    "--strength": ("denoising-strength", "denoise"),
    "--sampler": ("sampler-name", "sampling-method", "scheduler"),
    "--model": ("ckpt", "checkpoint", "model-id", "model-path", "pretrained-model-name-or-path"),
    "--lora": ("lora-path", "lora-weights"),
    "--embedding": ("textual-inversion", "embeddings"),
    "--control-net": ("controlnet", "controlnet-model"),
    "--control-weight": ("controlnet-conditioning-scale", "control-strength"),
    "--precision": ("dtype", "torch-dtype"),
}
_OURS = {f"--{theirs}": ours for ours, names in _NAMES.items() for theirs in names}


def our_name(option: str, known: Collection[str]) -> str | None:
    """The option among the `known` ones that other programs call `option`; None for another."""
    ours = _OURS.get(option.lower().replace("_", "-"))
    return ours if ours in known else None
