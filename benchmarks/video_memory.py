"""The memory that a clip of Stable Video Diffusion takes: `python benchmarks/video_memory.py`.

Builds the published architecture with random weights, makes one clip by `VideoPipeline.animate` and
prints the time of each part and the most memory that the process has held (the GPU's on one). The
weights are random, so that the clip shows nothing; sizes and work are those of the published model.

    python benchmarks/video_memory.py --steps 2                        # on a CPU, float32
    python benchmarks/video_memory.py --steps 2 --precision bfloat16 --low-memory
    python benchmarks/video_memory.py --device cuda --precision float16 --offload --steps 25
    python benchmarks/video_memory.py --width 128 --height 64 --frames 4 --steps 1 --narrow 10
"""

import argparse
import resource
import time
from dataclasses import replace

import torch
from PIL import Image
from torch import nn

from safelight.checkpoints.families import SVD
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.tables.video import SVD_TEMPORAL
from safelight.checkpoints.vision import Vision
from safelight.conditioners.image import Preparation
from safelight.models.autoencoder import AutoencoderConfig
from safelight.models.clip_vision import ClipVision, ClipVisionConfig
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.unet import UNetConfig
from safelight.models.video import VideoUNet
from safelight.pipelines.precisions import precision_named
from safelight.pipelines.video import VideoPipeline

GIB = 2**30


def unet_config(narrow: int) -> UNetConfig:
    """The U-Net's published shape, or one so many times narrower, for a trial."""
    return UNetConfig(
        in_channels=8,
        sample_size=96,
        block_out_channels=tuple(width // narrow for width in (320, 640, 1280, 1280)),
        attention_heads=tuple(max(heads // narrow, 1) for heads in (5, 10, 20, 20)),
        cross_attention_dim=1024,
        use_linear_projection=True,
        added_dim=768,
        added_time_dim=256,
    )


def svd(narrow: int, dtype: torch.dtype, device: str) -> Folder:
    """The published architecture, with weights drawn in its precision, part by part."""
    torch.set_default_dtype(dtype)
    try:
        unet = VideoUNet(unet_config(narrow), replace(SVD_TEMPORAL, num_frames=14))
        autoencoder = TemporalAutoencoder(AutoencoderConfig(post_quant_conv=False, sample_size=768))
        tower = ClipVision(
            ClipVisionConfig(
                hidden_size=1280 // narrow,
                intermediate_size=5120 // narrow,
                num_hidden_layers=max(32 // narrow, 1),
                num_attention_heads=16,
                hidden_act="gelu",
                projection_dim=1024,
            )
        )
    finally:
        torch.set_default_dtype(torch.float32)
    return Folder(
        unet=unet.eval().to(device),
        autoencoder=autoencoder.eval().to(device),
        text_towers=(),
        tokenizers=(),
        scheduler=SVD.scheduler,
        pipeline_class=SVD.pipeline,
        vision=Vision(tower.eval().to(device), Preparation()),
    )


def weights(module: nn.Module) -> tuple[float, float]:
    """How many weights a network has, in millions, and what they take, in GiB."""
    count = sum(parameter.numel() for parameter in module.parameters())
    size = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    return count / 1e6, size / GIB


def most_held(device: str) -> float:
    """The most memory held so far, in GiB: the process's, or that of torch on a GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--decode", type=int, default=None)
    parser.add_argument("--narrow", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--low-memory", action="store_true")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--limit", type=float, default=20.0, help="GiB, beyond which it fails")
    asked = parser.parse_args()

    dtype = precision_named(asked.precision)
    folder = svd(asked.narrow, dtype, "cpu" if asked.offload else asked.device)
    towers = {"U-Net": folder.unet, "autoencoder": folder.autoencoder}
    assert folder.vision is not None
    for name, module in {**towers, "image tower": folder.vision.tower}.items():
        count, size = weights(module)
        print(f"{name}: {count:,.0f} M weights, {size:.2f} GiB")
    pipeline = VideoPipeline(
        folder, "random", dtype=dtype, device=asked.device, offload=asked.offload
    )
    print(f"built: {most_held(asked.device):.2f} GiB held at most so far")
    start, last = time.perf_counter(), [0]

    def on_frames(done: int, total: int) -> None:
        if done // asked.frames != last[0] or done == total:
            last[0] = done // asked.frames
            held, passed = most_held(asked.device), time.perf_counter() - start
            print(f"{done} of {total} frames: {passed:.1f} s, {held:.2f} GiB", flush=True)

    pipeline.animate(
        Image.new("RGB", (asked.width, asked.height), "orange"),
        frames=asked.frames,
        window=asked.frames,
        width=asked.width,
        height=asked.height,
        steps=asked.steps,
        decode=asked.decode,
        low_memory=asked.low_memory,
        on_frames=on_frames,
    )
    held = most_held(asked.device)
    print(f"{asked.frames} frames of {asked.width} x {asked.height}: {held:.2f} GiB at most")
    if held > asked.limit:
        raise SystemExit(f"That is more than {asked.limit} GiB.")


if __name__ == "__main__":
    main()
