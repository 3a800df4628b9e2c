"""Training of the caption ranker on pictures with several captions each."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from safelight.eval.augment import disturb, move, random_shifts
from safelight.eval.caption_ranker import CaptionRanker
from safelight.eval.fit import fit
from safelight.rng import generator_for
from safelight.train.optim import OptimConfig

VIEWS = 8
"""How many versions of each picture the ranker sees: itself, and seven moved and disturbed ones."""

OPTIM = OptimConfig(lr=5e-3, optimizer="muon", schedule="cosine", warmup=20, weight_decay=0.1)

_VIEW, _STEP = 1, 2  # streams of random numbers under the seed


def disturbed(pixels: UInt8[Tensor, "n 3 h w"], seed: int) -> Tensor:
    """Pictures in [-1, 1], each moved a little and disturbed as `seed` says, (n, 3, h, w)."""
    generator = generator_for(seed, _VIEW)
    maps = random_shifts(len(pixels), generator, shift=0.06, zoom=0.12, flip=False)
    return disturb(move(pixels.float() / 127.5 - 1, maps), generator)


def train_caption_ranker(
    ranker: CaptionRanker,
    pixels: UInt8[Tensor, "n 3 h w"],
    captions: Sequence[Sequence[str]],
    *,
    steps: int = 200,
    batch_size: int = 256,
    optim: OptimConfig = OPTIM,
    seed: int = 0,
    on_view: Callable[[int], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Trains the ranker's two towers; the features of all views are taken once, beforehand.

    `captions[i]` are the captions of picture i, of which each step draws one. `on_view(number)` is
    called after each view, `on_step(step, loss)` after each step.
    """
    views: list[Tensor] = []
    for view in range(VIEWS):
        rows: list[Tensor] = []
        for start in range(0, len(pixels), 64):
            batch = pixels[start : start + 64]
            shown = batch.float() / 127.5 - 1 if view == 0 else disturbed(batch, view << 32 | start)
            rows.append(ranker.features_of(shown).half())
        views.append(torch.cat(rows))
        if on_view is not None:
            on_view(view)
    plain = views[0].float()
    ranker.feature_mean.copy_(plain.mean(dim=0))
    ranker.feature_deviation.copy_(plain.std(dim=0) + 1e-3)
    features = torch.stack(views)  # (views, n, f)
    ids = [ranker.tokenizer.encode(texts) for texts in captions]

    def loss_at(step: int) -> Tensor:
        generator = generator_for(seed, _STEP, step)
        picked = torch.randperm(len(pixels), generator=generator)[:batch_size]
        seen = torch.randint(VIEWS, (len(picked),), generator=generator)
        said = torch.rand(len(picked), generator=generator)
        tokens = [
            ids[int(i)][int(part * len(ids[int(i)]))] for i, part in zip(picked, said, strict=True)
        ]
        return ranker.loss(features[seen, picked].float(), torch.stack(tokens))

    fit(ranker, loss_at, optim, steps=steps, on_step=on_step)
