"""Lets clips of much motion be made from noise that is more alike than the training's.

`python steady_video.py` sets the correlation of neighbouring frames' noise of the largest motion
bucket in the configuration of `work/video_alike/model`. The nearer to 1, the less flicker, and the
less motion: 0.93 was chosen by measure_video.py, see the model card.
"""

import argparse
import json
import sys
from pathlib import Path

from held_out import HERE

from safelight.checkpoints.atomic import write_text
from safelight.errors import SafelightError

CORRELATION = 0.93


def steady(model: Path, correlation: float) -> None:
    """Sets it; raises `SafelightError` for a model that knows none of clips by their motion."""
    path = model / "unet" / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = config["temporal"]["moving_correlation"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise SafelightError(f"{model} makes no clips from noise by their motion.")
    config["temporal"]["moving_correlation"] = correlation
    write_text(path, json.dumps(config, indent=2) + "\n")


def main() -> int:
    """Sets it in the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "work" / "video_alike" / "model")
    parser.add_argument("--correlation", type=float, default=CORRELATION)
    arguments = parser.parse_args()
    try:
        steady(arguments.model, arguments.correlation)
    except SafelightError as error:
        print(f"steady_video: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
