"""Memory and processor time of a big picture's decoding, whole and in tiles.

`python benchmarks/tiled_decode.py [--side 2048] [--precision float32]`. Stable Diffusion's
autoencoder with random weights; each way in a process of its own, whose peak memory the system
tells. What the networks and libraries take without a picture is printed too.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.tiling import decode_tiled, tile_of
from safelight.pipelines.load import PRECISIONS

WAYS = ("whole", "tiled")


def measure(way: str, side: int, precision: str) -> None:
    """Prints one line of what decoding a picture of side x side pixels takes."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig()).eval().to(PRECISIONS[precision])
    places = side // autoencoder.factor
    z = torch.randn(1, 4, places, places, dtype=PRECISIONS[precision])
    before, began = _peak(), time.process_time()
    with torch.inference_mode():
        if way == "whole":
            autoencoder.decode(z)
        else:
            decode_tiled(autoencoder, z, *tile_of(autoencoder))
    seconds = time.process_time() - began
    print(f"{way}: {_peak():.1f} GiB at most ({before:.1f} before), {seconds:.0f} s", flush=True)


def _peak() -> float:
    """The most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measures one way, or each in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--way", choices=WAYS)
    wanted = parser.parse_args()
    if wanted.way is not None:
        measure(wanted.way, wanted.side, wanted.precision)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {wanted.precision}")
    for way in WAYS:
        options = ["--side", str(wanted.side), "--precision", wanted.precision]
        subprocess.run([sys.executable, __file__, "--way", way, *options], check=True)


if __name__ == "__main__":
    main()
