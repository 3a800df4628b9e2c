"""One call of Stable Diffusion 1.5's U-Net by each way that `unet.py` measures.

A way is made ready once and then called with noise of a seed, at another time each, under the same
prompt, as the steps of a picture call it. Libraries are imported where they are used: each process
has those of its own way alone.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from turns import Made, timed

from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    read_unet,
    write_autoencoder,
    write_text_tower,
    write_unet,
)
from safelight.engine.compiled_networks import CompiledUNet
from safelight.engine.exporting import in_silence
from safelight.engine.names import Chosen
from safelight.engine.networks import wrapping
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.prepared import prepared
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.models.unet import UNet, UNetConfig
from safelight.types import Conditioning

TOKENS, WIDTH = 77, 768  # of a prompt
INPUTS = ["sample", "timestep", "encoder_hidden_states"]
Run = Callable[[Tensor, Tensor, Tensor], Tensor]
Call = Callable[[int], Made]


@dataclass(frozen=True)
class Task:
    """What is to be computed, and where the weights are."""

    weights: Path  # a folder of diffusers
    exports: Path  # a folder for what a way exports
    side: int  # of latents
    batch: int
    dtype: torch.dtype

    def x(self, seed: int) -> Tensor:
        """Latents of a seed, (batch, 4, side, side)."""
        shape = (self.batch, 4, self.side, self.side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.dtype)

    def t(self, seed: int) -> Tensor:
        """Another time for each seed, (batch,)."""
        return torch.full((self.batch,), float(981 - 20 * seed % 981))

    def context(self) -> Tensor:
        """What a text tower would say, (batch, 77, 768)."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, TOKENS, WIDTH)
        return torch.randn(shape, generator=generator).to(self.dtype)

    def calling(self, run: Run) -> Call:
        """What `run` makes of a seed."""
        context = self.context()

        def make(seed: int) -> np.ndarray:
            with torch.inference_mode():
                made = run(self.x(seed), self.t(seed), context)
            return made.float().contiguous().numpy()

        return timed(make)

    def arrays(self, run: Callable[[list[np.ndarray]], np.ndarray]) -> Call:
        """What `run` makes of a seed, of arrays of float32."""
        context = self.context().float().numpy()
        return timed(
            lambda seed: run([self.x(seed).float().numpy(), self.t(seed).numpy(), context])
        )


@dataclass(frozen=True)
class Way:
    """How a way is made ready, and what it takes."""

    ready: Callable[[Task], Call]
    needs: tuple[str, ...] = ()  # packages
    compiles: bool = False  # by a C++ compiler
    exports: bool = False  # what the next process finds ready
    bfloat16: bool = True
    any_shape: bool = True  # beside the published one, and more than one picture at a time

    def missing(self, *, bfloat16: bool, published: bool) -> str | None:
        """What it takes and is not there; None if that is nothing."""
        absent = [name for name in self.needs if find_spec(name) is None]
        if bfloat16 and not self.bfloat16:
            absent.append("bfloat16")
        if not (published or self.any_shape):
            absent.append("such shape")
        if self.compiles and not any(map(shutil.which, ("g++", "clang++"))):
            absent.append("a C++ compiler")
        return ", ".join(absent) or None


def write_weights(folder: Path, narrow: int) -> None:
    """Random weights of the published architecture, or of one so many times narrower."""
    torch.manual_seed(0)
    widths = tuple(width // narrow for width in UNetConfig().block_out_channels)
    write_unet(folder, UNet(UNetConfig(block_out_channels=widths)))


class Plain(nn.Module):
    """Diffusers' U-Net, of tensors alone."""

    def __init__(self, task: Task, dtype: torch.dtype):
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel.from_pretrained(task.weights, torch_dtype=dtype)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=context, return_dict=False)[0]


def channels_last(module: nn.Module, run: Run) -> Run:
    """The same with weights and latents in that order."""
    module.to(memory_format=torch.channels_last)
    return lambda x, t, context: run(x.contiguous(memory_format=torch.channels_last), t, context)


def diffusers_eager(task: Task) -> Call:
    return task.calling(Plain(task, task.dtype).eval())


def diffusers_channels_last(task: Task) -> Call:
    plain = Plain(task, task.dtype).eval()
    return task.calling(channels_last(plain, plain))


def diffusers_compiled(task: Task) -> Call:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return task.calling(torch.compile(Plain(task, task.dtype).eval(), fullgraph=True))


def own(task: Task) -> UNet:
    return read_unet(task.weights, Reading(task.dtype))


def run_of(network: UNet | CompiledUNet) -> Run:
    return lambda x, t, context: network(x, t, Conditioning(context=context))


def safelight_torch(task: Task) -> Call:
    return task.calling(run_of(own(task)))


def safelight_channels_last(task: Task) -> Call:
    unet = own(task)
    return task.calling(channels_last(unet, run_of(unet)))


def safelight_prepared(task: Task) -> Call:
    return task.calling(run_of(prepared(own(task))))


def safelight_by(engine: Chosen) -> Callable[[Task], Call]:
    """By an engine; what it keeps goes where SAFELIGHT_CACHE says."""
    return lambda task: task.calling(run_of(CompiledUNet(own(task), wrapping(engine, fill=False))))


def onnx_runtime(task: Task) -> Call:
    import onnxruntime

    file = task.exports / "unet.onnx"
    if not file.is_file():
        task.exports.mkdir(parents=True, exist_ok=True)
        inputs = (task.x(0), task.t(0), task.context())
        plain = Plain(task, torch.float32).eval()
        with in_silence():
            torch.onnx.export(plain, inputs, file, input_names=INPUTS, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return task.arrays(lambda arrays: session.run(None, dict(zip(INPUTS, arrays, strict=True)))[0])


def openvino_itself(task: Task) -> Call:
    import openvino

    file = task.exports / "unet.xml"
    if not file.is_file():
        inputs = tuple(x.float() for x in (task.x(0), task.t(0), task.context()))
        plain, shapes = Plain(task, torch.float32).eval(), [tuple(x.shape) for x in inputs]
        with in_silence():
            model = openvino.convert_model(plain, example_input=inputs, input=shapes)
        openvino.save_model(model, file, compress_to_fp16=False)
        del model, plain
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if task.dtype == torch.bfloat16 else "f32",
        "ENABLE_CPU_PINNING": False,  # else two processes wait for the same core
    }
    request = openvino.compile_model(file, "CPU", settings).create_infer_request()
    return task.arrays(lambda arrays: request.infer(arrays, share_inputs=True)[0])


def stable_diffusion_cpp(task: Task) -> Call:
    """The second of two steps of a whole picture, for it gives nothing less; its outputs are not
    seen. Its convolutions have weights in float16.
    """
    from stable_diffusion_cpp import StableDiffusion

    model, tiny = task.exports / "model", task.exports / "tiny"
    if not model.is_dir():
        model.mkdir(parents=True)
        (model / "unet").symlink_to(task.weights)
        write_text_tower(model / "text_encoder", ClipText(ClipTextConfig()))
        write_autoencoder(model / "vae", Autoencoder(AutoencoderConfig()))
        write_autoencoder(tiny, TinyAutoencoder(TinyConfig()))
    made = StableDiffusion(
        model_path=str(model),
        taesd_path=str(tiny / f"{DIFFUSERS_STEM}.safetensors"),
        n_threads=torch.get_num_threads(),
        wtype="f32",
        verbose=False,
    )

    def call(seed: int) -> Made:
        clock, used = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]

        def on_step(step: int, steps: int, _: float) -> None:
            if steps == 2:
                clock[step], used[step] = time.perf_counter(), time.process_time()

        size = {"width": task.side * 8, "height": task.side * 8}
        made.generate_image(
            "a red ball",
            **size,
            cfg_scale=1.0,
            sample_method="euler",
            sample_steps=2,
            seed=seed,
            progress_callback=on_step,
        )
        return Made(np.zeros(0), clock[2] - clock[1], used[2] - used[1])

    return call


PEER = "diffusers"
_THEIRS = ("diffusers",)
WAYS = {
    PEER: Way(diffusers_eager, _THEIRS),
    "diffusers, channels last": Way(diffusers_channels_last, _THEIRS),
    "diffusers, compiled": Way(diffusers_compiled, _THEIRS, compiles=True),
    "safelight": Way(safelight_torch),
    "safelight, channels last": Way(safelight_channels_last),
    "safelight, prepared": Way(safelight_prepared),
    "safelight, compile": Way(safelight_by("compile"), compiles=True),
    "safelight, openvino": Way(safelight_by("openvino"), ("openvino",), exports=True),
    "onnxruntime": Way(
        onnx_runtime, (*_THEIRS, "onnx", "onnxruntime"), exports=True, bfloat16=False
    ),
    "openvino": Way(openvino_itself, (*_THEIRS, "openvino"), exports=True),
    "stable-diffusion.cpp": Way(
        stable_diffusion_cpp,
        ("stable_diffusion_cpp",),
        exports=True,
        bfloat16=False,
        any_shape=False,
    ),
}
