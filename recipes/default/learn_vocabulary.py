"""The byte-pair vocabulary of the default model, learned from the training captions.

`python learn_vocabulary.py` writes CLIP's tokenizer files to `work/tokenizer/`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from held_out import HERE

from safelight.models.tokenizer import ClipTokenizer

VOCABULARY = 3000
LENGTH = 32
FOLDERS = ("emoji/train", "scenes/train")


def read_captions(pictures: Path) -> Iterator[str]:
    """Every caption of the training folders, once each: scenes repeat theirs, emoji do not."""
    seen: set[str] = set()
    for folder in FOLDERS:
        with (pictures / folder / "metadata.jsonl").open(encoding="utf-8") as rows:
            for row in rows:
                for text in json.loads(row)["texts"]:
                    if text not in seen:
                        seen.add(text)
                        yield text


def main() -> None:
    """Learns the vocabulary, and says how long captions are in its tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work
    captions = list(read_captions(work / "pictures"))
    tokenizer = ClipTokenizer.train(captions, vocab_size=VOCABULARY, length=LENGTH)
    folder = work / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    ids = tokenizer.encode(captions)
    full = int((ids[:, -2] != tokenizer.id_of(tokenizer.pad)).sum())
    print(
        f"tokenizer: {tokenizer.vocab_size} tokens from {len(captions)} captions, "
        f"{full} of which fill all {LENGTH} places"
    )


if __name__ == "__main__":
    main()
