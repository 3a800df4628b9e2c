"""Words that a request takes, and the command line too, which imports nothing heavy for them."""

from typing import Literal

Upscaler = Literal["latent", "lanczos"]
"""What is enlarged before a second pass: the latents (bilinear) or the pixels."""

PromptSyntax = Literal["a1111", "plain"]
"""How prompts are read: by `safelight.conditioners.prompt_grammar`, or as they stand, in which case
what is too long for the model is cut, as in diffusers.
"""

MaskFill = Literal["original", "noise", "nothing"]
"""What the latents of a given picture are under its mask before they are noised: its own, the
seed's noise, or zeros; AUTOMATIC1111's `inpainting_fill` 1, 2 and 3.
"""

Quality = Literal["exact", "fast", "fastest"]
"""Whether a picture may be an approximation that is sooner made, see `pipelines.quality`."""

MOST_MERGED = 0.75
"""The largest part of tokens that can be merged, see `nn.merged_attention`."""

RngName = Literal["cpu", "a1111-gpu"]
"""Where noise comes from: torch's CPU generator, as in diffusers, or what CUDA's would draw."""
