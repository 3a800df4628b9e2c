"""The judge of scenes: a segmentation network, trained on pictures of its own.

`python judge_scenes.py` draws `work/pictures/scenes/judge/` (every colour in every shape, the
held-out pairs too, since the judge must know what the model is asked for) and writes
`work/judges/scenes/`. It then says how often real pictures that it has not seen are judged right.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import HERE
from scenes import CHUNK, draw, forget_other_versions, part_path, save
from solids import COLOURS, SHAPES

from safelight.checkpoints.atomic import write_text
from safelight.eval.judge_files import save_scene_judge
from safelight.eval.judges import SceneVerdicts, rates
from safelight.eval.pictures import read_pictures
from safelight.eval.scene_judge import SceneJudge, SceneJudgeConfig
from safelight.eval.scene_training import read_scenes, train_scene_judge

SPLIT = "judge"
KINDS = ("depth", "segmentation", "keypoints")  # of truth beside each picture
PICTURES, STEPS = 6000, 1500


def draw_pictures(folder: Path, count: int) -> Path:
    """Draws the judge's own scenes and returns their folder.

    They are drawn in chunks as all scenes are (`scenes.py`): what these same sources drew is kept.
    """
    from stage import Stage

    pictures, truth = folder / SPLIT, folder / "truth"
    for made in (pictures, *(truth / SPLIT / kind for kind in KINDS)):
        made.mkdir(parents=True, exist_ok=True)
    forget_other_versions(truth)
    chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    parts = [part_path(folder, SPLIT, start, stop) for start, stop in chunks]
    stage = None
    for part, (start, stop) in zip(parts, chunks, strict=True):
        if part.exists():
            continue
        stage = stage or Stage()
        rows = [
            json.dumps(save(draw(stage, SPLIT, number, held_out=()), folder, SPLIT, number)) + "\n"
            for number in range(start, stop)
        ]
        write_text(part, "".join(rows))
        print(f"judge of scenes: {stop} of {count} pictures drawn", flush=True)
    text = "".join(part.read_text(encoding="utf-8") for part in parts)
    write_text(pictures / "metadata.jsonl", text)
    return pictures


def train(folder: Path, steps: int) -> SceneJudge:
    """Trains a judge on the pictures of a folder."""
    config = SceneJudgeConfig(colours=tuple(COLOURS), shapes=(*SHAPES, "person"))
    examples = read_scenes(folder, config)
    start = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - start
            done = f"step {step + 1} of {steps}, {loss:.3f}, {seconds:.0f} s"
            print(f"judge of scenes: {done}", flush=True)

    return train_scene_judge(config, examples, steps=steps, on_step=on_step)


def test(judge: SceneJudge, scenes: Path) -> dict[str, dict[str, float]]:
    """How often real pictures that the judge has not seen are judged right, by split and aspect."""
    parts = {}
    for split in ("held_out_pictures", "held_out_pairs"):
        real = read_pictures(
            scenes / split, judge.config.size, keep=lambda item: bool(item.extras.get("objects"))
        )
        counts = rates(SceneVerdicts(judge)(real.pixels, real.items))
        parts[split] = {aspect: round(rate.part, 4) for aspect, rate in counts.items()}
    return parts


def main() -> None:
    """Draws, trains, tests and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scenes = arguments.work / "pictures" / "scenes"
    judge = train(draw_pictures(scenes, arguments.pictures), arguments.steps)
    folder = arguments.work / "judges" / "scenes"
    save_scene_judge(judge, folder)
    parts = test(judge, scenes)
    (folder / "real.json").write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    print(f"judge of scenes, right on real pictures: {json.dumps(parts)}")


if __name__ == "__main__":
    main()
