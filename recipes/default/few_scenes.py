"""The scenes of a trial: `python few_scenes.py` draws the first few of each split of `scenes.py`.

It stands beside `scenes.py` and not in it, because all scenes are drawn anew when that is changed.
"""

import scenes

FEW = 24
"""Pictures of each split, but of `train`, which `--train` says: enough for every distance."""


def main() -> None:
    """Draws them, with the options of `scenes.py`."""
    for counts in (scenes.COUNTS, scenes.PEOPLE):
        counts.update(dict.fromkeys(counts, FEW))
    scenes.main()


if __name__ == "__main__":
    main()
