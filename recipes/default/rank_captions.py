"""The judge of emoji: an image-text model that ranks captions.

`python rank_captions.py` writes `work/judges/captions/`. It learns every emoji picture with its
captions, the held-out ones too, since it must know what the model is asked for; it is tested on new
disturbed versions of them. With `--without-held-out` it writes nothing, and says how well it does
on pictures that it has never seen in any version.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import HERE

from safelight.eval.caption_ranker import CaptionRanker, CaptionRankerConfig
from safelight.eval.judge_files import new_caption_ranker, save_caption_ranker
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.eval.ranker_training import disturbed, train_caption_ranker
from safelight.models.clip import ClipTextConfig
from safelight.models.tokenizer import EOS, ClipTokenizer

SIZE = 64
VOCABULARY, LENGTH = 3000, 32
STEPS = 200
TESTED = 500
TEST_SEED = 1 << 40  # far from the seeds of the versions that are learned


def new_ranker(captions: list[str]) -> CaptionRanker:
    """An untrained ranker with a vocabulary of its own."""
    tokenizer = ClipTokenizer.train(captions, vocab_size=VOCABULARY, length=LENGTH)
    text = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.id_of(EOS),
        projection_dim=256,
    )
    return new_caption_ranker(CaptionRankerConfig(text, SIZE), tokenizer)


def test(ranker: CaptionRanker, sets: dict[str, PictureSet]) -> dict[str, float]:
    """The part of pictures whose own caption is first of 100, as they are and disturbed anew."""
    pool = [prompt for pictures in sets.values() for prompt in pictures.prompts]
    parts = {}
    for name, pictures in sets.items():
        some = pictures.sample(TESTED)
        for kind, pixels in (
            ("as they are", some.pixels),
            ("disturbed", disturbed(to_levels(some.pixels), TEST_SEED)),
        ):
            ranks = ranker.ranks(pixels, some.prompts, pool)
            parts[f"{name}, {kind}"] = round(float((ranks == 0).float().mean()), 4)
    return parts


def to_levels(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1] as bytes."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8)


def main() -> None:
    """Trains, tests and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--pictures", type=int, help="of each split, at most; by default all")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-held-out", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    emoji = arguments.work / "pictures" / "emoji"
    sets = {
        split: read_pictures(emoji / split, SIZE, most=arguments.pictures)
        for split in ("train", "held_out")
    }
    learned = [sets["train"]] if arguments.without_held_out else list(sets.values())
    items = [item for pictures in learned for item in pictures.items]
    ranker = new_ranker([text for item in items for text in item.captions])
    start = time.monotonic()

    def on_view(view: int) -> None:
        print(f"judge of emoji: version {view + 1}, {time.monotonic() - start:.0f} s", flush=True)

    def on_step(step: int, loss: float) -> None:
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - start
            print(f"judge of emoji: step {step + 1}, {loss:.3f}, {seconds:.0f} s", flush=True)

    train_caption_ranker(
        ranker,
        to_levels(torch.cat([pictures.pixels for pictures in learned])),
        [item.captions for item in items],
        steps=arguments.steps,
        on_view=on_view,
        on_step=on_step,
    )
    parts = test(ranker, sets)
    if not arguments.without_held_out:
        folder = arguments.work / "judges" / "captions"
        save_caption_ranker(ranker, folder)
        (folder / "real.json").write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    print(f"judge of emoji, own caption first of 100: {json.dumps(parts)}")


if __name__ == "__main__":
    main()
