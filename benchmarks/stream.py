"""Pictures a second, and the time from an input to its picture, of a stream and of diffusers.

`python benchmarks/stream.py [--rounds 3] [--pictures 20] [--threads 2] [--model default]
[--engines torch openvino] [--tiny default-tiny] [--output stream.json]`. Both run the same weights,
steps and sampler (Euler) without guidance, in one process, in turn, a few pictures each time: from
noise of another seed each time, and from another picture each time (img2img); with the model's own
autoencoder and with a tiny one. The small ControlNet of edges has no peer: diffusers does not open
it, so that it is timed alone. A stream that batches its frames is
timed from the input to the picture that it is in, its delay. Prints a table in Markdown;
`--output` keeps all times as JSON.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import safelight
from safelight.engine.choosing import Engine
from safelight.pipelines.find import find_model
from safelight.pipelines.hub import find_part
from safelight.pipelines.load import load

PROMPT = "a red ball"
STEPS = (1, 2, 4)
NOISE, PICTURES, EDGES = "from noise", "from pictures", "from pictures, by edges"
WARM_UP = range(-8, -3)  # inputs that are not timed later
_SEEDS = 2**32
STRENGTH = 0.5  # of pictures begun from, for which twice as many steps are asked


@dataclass(frozen=True)
class Way:
    """One way to make pictures.

    Attributes:
        make: gives a picture of input number i, and how many inputs ago that was given.
    """

    name: str
    make: Callable[[int], tuple[np.ndarray, int]]


def frames(count: int = 256) -> list[np.ndarray]:
    """Pictures of a ball that goes round, (64, 64, 3) each."""
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    made: list[np.ndarray] = []
    for i in range(count):
        x, y = 32 + 14 * np.cos(i / 5), 32 + 14 * np.sin(i / 5)
        levels = np.full((64, 64, 3), 235, np.uint8)
        levels[(across - x) ** 2 + (down - y) ** 2 < 150] = (200, 40, 40)
        made.append(levels)
    return made


def ours(
    model: str, steps: int, what: str, engine: Engine, *, batched: bool = False, tiny: str = ""
) -> Way:
    """A stream, whose networks that engine computes; `tiny` names another autoencoder."""
    given, pictured = frames(), what != NOISE
    opened = safelight.stream(
        load(model, device="cpu", vae=tiny or None),
        prompt=PROMPT,
        steps=2 * steps if pictured else steps,
        sampler="euler",
        strength=STRENGTH if pictured else None,
        controls=["canny"] if what == EDGES else [],
        batched=batched,
        engine=engine,
    )

    def make(i: int) -> tuple[np.ndarray, int]:
        if pictured:
            number = opened.update(picture=given[i % len(given)])
        else:
            number = opened.update(seed=i % _SEEDS)
        picture = opened.next()
        return picture.levels, number - picture.number

    assert opened.engine == engine
    also = [word for word, given in (("tiny", tiny), ("batched", batched)) if given]
    return Way(", ".join(["safelight", engine, *also]), make)


def theirs(model: str, steps: int, *, pictured: bool, tiny: str = "") -> Way:
    """A pipeline of diffusers on the same folder, its prompt read once."""
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    path, given = find_model(model), frames()
    name = "StableDiffusionImg2ImgPipeline" if pictured else "StableDiffusionPipeline"
    upon = path / "base.json"  # a student that is a LoRA for another model
    folder = path / json.loads(upon.read_text("utf-8"))["base"] if upon.is_file() else path
    pipeline = getattr(diffusers, name).from_pretrained(folder, torch_dtype=torch.float32)
    if upon.is_file():
        pipeline.load_lora_weights(path)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        scheduler = path / "scheduler"
        pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(scheduler)
    if tiny:
        pipeline.vae = diffusers.AutoencoderTiny.from_pretrained(
            find_part(tiny), torch_dtype=torch.float32
        )
    config = pipeline.scheduler.config
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    words, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, False)

    def make(i: int) -> tuple[np.ndarray, int]:
        common = {
            "prompt_embeds": words,
            "guidance_scale": 1.0,
            "generator": torch.Generator().manual_seed(0 if pictured else i % _SEEDS),
            "output_type": "np",
        }
        if not pictured:
            made = pipeline(num_inference_steps=steps, height=64, width=64, **common)
        else:
            image = Image.fromarray(given[i % len(given)])
            made = pipeline(num_inference_steps=2 * steps, strength=STRENGTH, image=image, **common)
        return (made.images[0] * 255).round().astype(np.uint8), 0

    return Way("diffusers, tiny" if tiny else "diffusers", make)


@dataclass(frozen=True)
class Timing:
    """Seconds between pictures, and from inputs to their pictures."""

    between: list[float]
    delays: list[float]


def timed(way: Way, numbers: range) -> Timing:
    """Makes pictures of inputs one after the other."""
    given: list[float] = []
    between: list[float] = []
    delays: list[float] = []
    for i in numbers:
        given.append(time.perf_counter())
        _, ago = way.make(i)
        now = time.perf_counter()
        between.append(now - given[-1])
        if ago < len(given):
            delays.append(now - given[-1 - ago])
    return Timing(between, delays)


def compared(
    model: str, steps: int, what: str, engines: list[Engine], rounds: int, pictures: int, tiny: str
) -> dict[str, Timing]:
    """All ways in turn, a few pictures each time."""
    ways: list[Way] = []
    for vae in dict.fromkeys(("", tiny)):
        own = [ours(model, steps, what, engine, tiny=vae) for engine in engines]
        ways += own
        if what != EDGES:
            peer = theirs(model, steps, pictured=what == PICTURES, tiny=vae)
            for way in own:
                check_alike(way, peer)
            ways.append(peer)
        if steps > 1:
            ways += [ours(model, steps, what, engine, batched=True, tiny=vae) for engine in engines]
    whole: dict[str, Timing] = {way.name: Timing([], []) for way in ways}
    for way in ways:
        timed(way, WARM_UP)
    for number in range(rounds):
        for way in ways:
            timing = timed(way, range(number * pictures, (number + 1) * pictures))
            whole[way.name].between.extend(timing.between)
            whole[way.name].delays.extend(timing.delays)
    return whole


def check_alike(way: Way, other: Way) -> None:
    """Raises `SystemExit` if the two do not make the same picture of an input."""
    pictures = [one.make(WARM_UP.start)[0].astype(int) for one in (way, other)]
    apart = int(np.abs(pictures[0] - pictures[1]).max())
    if apart > 2:
        raise SystemExit(f"{way.name} and {other.name} differ by {apart} levels.")


def processor() -> str:
    """The processor's name, which Linux tells in a file alone."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--what", nargs="+", default=[NOISE, PICTURES, EDGES])
    parser.add_argument("--tiny", default="default-tiny", help="autoencoder; '' for the own alone")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| pictures | steps | by | a second | delay, p50 | delay, p95 | times diffusers |")
    print("|---|---:|---|---:|---:|---:|---:|")
    kept: list[dict[str, object]] = []
    for what in given.what:
        for steps in given.steps:
            whole = compared(
                given.model, steps, what, given.engines, given.rounds, given.pictures, given.tiny
            )
            for name, timing in whole.items():
                middle = statistics.median(timing.between)
                ratio = "-"
                if "diffusers" in whole:
                    ratio = f"{statistics.median(whole['diffusers'].between) / middle:.2f}"
                p50, p95 = (1000 * float(np.quantile(timing.delays, q)) for q in (0.5, 0.95))
                print(
                    f"| {what} | {steps} | {name} | {1 / middle:.1f} | {p50:.0f} ms | {p95:.0f} ms "
                    f"| {ratio} |",
                    flush=True,
                )
                kept.append({"pictures": what, "steps": steps, "by": name, **vars(timing)})
    if given.output is not None:
        about = {"machine": processor(), "torch": torch.__version__}
        told = about | {"threads": given.threads, "measured": kept}
        given.output.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
