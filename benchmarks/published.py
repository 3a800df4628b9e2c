"""Published architectures with random weights, as folders that diffusers opens too:
`python benchmarks/published.py sd15 FOLDER float16`.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from safelight.checkpoints.folder import Defaults, Folder, write_folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.unet import UNet, UNetConfig

M = TypeVar("M", bound=nn.Module)
_EULER = SchedulerConfig(class_name="EulerDiscreteScheduler", timestep_spacing="leading")
_BIG_G = ClipTextConfig(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    projection_dim=1280,
    skip=1,
    final_norm=False,
)
_XL_UNET = UNetConfig(
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    layers_per_block=(2, 2, 2),
    attention=(False, True, True),
    transformer_layers=(1, 2, 10),
    attention_heads=(5, 10, 20),
    only_cross_attention=(False, False, False),
    cross_attention_dim=2048,
    use_linear_projection=True,
    added_dim=2816,
    added_time_dim=256,
)


def stable_diffusion(dtype: torch.dtype) -> Folder:
    """Stable Diffusion 1.5."""
    return Folder(
        unet=drawn(lambda: UNet(UNetConfig()), dtype),
        autoencoder=drawn(lambda: Autoencoder(AutoencoderConfig()), dtype),
        text_towers=(drawn(lambda: ClipText(ClipTextConfig()), dtype),),
        tokenizers=(ClipTokenizer.bundled(),),
        scheduler=_EULER,
        defaults=Defaults("euler", 20, 7.5, 512, 512),
    )


def stable_diffusion_xl(dtype: torch.dtype) -> Folder:
    """Stable Diffusion XL's base."""
    small = ClipTextConfig(skip=1, final_norm=False)
    vae = AutoencoderConfig(scaling_factor=0.13025, sample_size=1024)
    return Folder(
        unet=drawn(lambda: UNet(_XL_UNET), dtype),
        autoencoder=drawn(lambda: Autoencoder(vae), dtype),
        text_towers=(
            drawn(lambda: ClipText(small), dtype),
            drawn(lambda: ClipText(_BIG_G), dtype),
        ),
        tokenizers=(ClipTokenizer.bundled(), ClipTokenizer.bundled(pad="!")),
        scheduler=_EULER,
        pipeline_class="StableDiffusionXLPipeline",
        defaults=Defaults("euler", 20, 5.0, 1024, 1024),
        settings={"force_zeros_for_empty_prompt": True},
    )


MODELS: dict[str, Callable[[torch.dtype], Folder]] = {
    "sd15": stable_diffusion,
    "sdxl": stable_diffusion_xl,
}


def write_random(name: str, path: Path, dtype: torch.dtype) -> None:
    """Writes one of `MODELS` in a precision."""
    write_folder(path, MODELS[name](dtype), dtype=dtype)


def drawn(build: Callable[[], M], dtype: torch.dtype) -> M:
    """A network with kernels drawn as torch draws a layer's, in a precision; norms do nothing."""
    with torch.device("meta"):
        network = build().to(dtype)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                bound = 1 / math.sqrt(parameter[0].numel())
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.fill_(float(name.endswith("weight")))
    return network.eval()


if __name__ == "__main__":
    write_random(sys.argv[1], Path(sys.argv[2]), getattr(torch, sys.argv[3]))
