from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from safelight.data.folders import PictureItem
from safelight.errors import SafelightError
from safelight.eval import judge_files
from safelight.eval.caption_ranker import CaptionRanker, CaptionRankerConfig, PlacedFeatures
from safelight.eval.judge_files import load_caption_ranker, save_caption_ranker
from safelight.eval.judges import CaptionVerdicts, rates
from safelight.eval.ranker_training import disturbed, train_caption_ranker
from safelight.models.clip import ClipTextConfig
from safelight.models.features import EfficientNetLite0
from safelight.models.tokenizer import EOS, ClipTokenizer
from safelight.train.optim import OptimConfig

QUICK = OptimConfig(lr=1e-2, optimizer="muon", schedule="cosine", warmup=10)
COLOURS = {
    "red": (1.0, -1.0, -1.0),
    "green": (-1.0, 1.0, -1.0),
    "blue": (-1.0, -1.0, 1.0),
    "yellow": (1.0, 1.0, -1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (-1.0, -1.0, -1.0),
}
PLACES = {"top": (0, 0), "bottom": (1, 0), "left": (0, 1), "right": (1, 1)}


def _features(pixels: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(pixels, 4).flatten(1)


def _pictures() -> tuple[torch.Tensor, list[tuple[str, ...]]]:
    """A square of one of six colours in one of four quarters of a grey picture."""
    pixels, captions = [], []
    for colour, rgb in COLOURS.items():
        for place, (down, across) in PLACES.items():
            picture = torch.zeros(3, 16, 16)
            top, left = 8 * down, 8 * across
            picture[:, top : top + 8, left : left + 8] = torch.tensor(rgb)[:, None, None]
            pixels.append(picture)
            captions.append((f"a {colour} square at {place}", f"{place}: {colour} square"))
    return torch.stack(pixels), captions


def _ranker(captions: list[tuple[str, ...]], width: int = 32, size: int = 16) -> CaptionRanker:
    tokenizer = ClipTokenizer.train([t for texts in captions for t in texts], 600, 16)
    text = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=tokenizer.id_of(EOS),
        projection_dim=width,
    )
    return CaptionRanker(CaptionRankerConfig(text, size), tokenizer, _features, 48)


@pytest.fixture(scope="module")
def ranker() -> CaptionRanker:
    torch.manual_seed(0)
    pixels, captions = _pictures()
    ranker = _ranker(captions)
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8)
    train_caption_ranker(ranker, levels, captions, steps=60, batch_size=24, optim=QUICK)
    return ranker


def test_a_trained_ranker_puts_a_pictures_own_caption_first(ranker: CaptionRanker):
    pixels, captions = _pictures()
    own = [texts[0] for texts in captions]
    anew = disturbed(((pixels + 1) * 127.5).round().to(torch.uint8), seed=77)
    ranks = ranker.ranks(anew, own, own, among=20)
    assert (ranks == 0).float().mean() >= 0.85
    turned = own[5:] + own[:5]
    assert (ranker.ranks(anew, turned, own, among=20) == 0).float().mean() < 0.2


def test_ranks_are_those_of_the_cosines(ranker: CaptionRanker):
    pixels, captions = _pictures()
    own = [texts[0] for texts in captions]
    ranks = ranker.ranks(pixels, own[::-1], own, among=len(own), batch_size=7)
    with torch.no_grad():
        pictures = ranker.embed_features(ranker.features_of(pixels))
        texts = ranker.embed_ids(ranker.tokenizer.encode(own))
    scores = pictures @ texts.T
    for i in range(len(own)):
        wanted = len(own) - 1 - i
        assert ranks[i] == (scores[i] > scores[i, wanted]).sum()


def test_ranks_depend_on_the_seed_and_not_on_the_batch(ranker: CaptionRanker):
    pixels, captions = _pictures()
    own = [texts[1] for texts in captions]
    others = [texts[0] for texts in captions]
    one = ranker.ranks(pixels, own, others, among=10, seed=3, batch_size=5)
    assert one.equal(ranker.ranks(pixels, own, others, among=10, seed=3, batch_size=50))
    assert one.max() <= 9
    with pytest.raises(ValueError, match="Needs 99 other captions, got 24"):
        ranker.ranks(pixels, own, others)


def test_verdicts_count_first_places(ranker: CaptionRanker, monkeypatch: pytest.MonkeyPatch):
    pixels, captions = _pictures()
    own = [texts[0] for texts in captions]
    monkeypatch.setattr(ranker, "ranks", lambda *_: torch.tensor([0, 4, 5] * 8))
    items = [PictureItem(Path(), (16, 16), (caption,)) for caption in own]
    counts = rates(CaptionVerdicts(ranker, own)(pixels, items))
    assert (counts["own caption first of 100"].right, counts["own caption in first 5"].right) == (
        8,
        16,
    )


def test_training_is_repeatable():
    pixels, captions = _pictures()
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8)
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        ranker = _ranker(captions, width=8)
        train_caption_ranker(ranker, levels, captions, steps=3, batch_size=8)
        states.append(ranker.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_ranker_is_read_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = EfficientNetLite0().requires_grad_(False).eval()
    monkeypatch.setattr(judge_files, "load_features", lambda: network)
    pixels, captions = _pictures()
    plain = _ranker(captions, size=64)
    saved = judge_files.new_caption_ranker(plain.config, plain.tokenizer)
    save_caption_ranker(saved, tmp_path / "ranker")
    again = load_caption_ranker(tmp_path / "ranker")
    assert not any(name.startswith("_features") for name in saved.state_dict())
    own = [texts[0] for texts in captions]
    assert again.ranks(pixels, own, own, among=9).equal(saved.ranks(pixels, own, own, among=9))
    with pytest.raises(SafelightError, match="64 pixels, got size = 16"):
        judge_files.new_caption_ranker(_ranker(captions).config, plain.tokenizer)
    with pytest.raises(SafelightError, match="No judge in"):
        load_caption_ranker(tmp_path)


def test_placed_features_are_three_levels_of_the_network():
    network = EfficientNetLite0().requires_grad_(False)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    features = PlacedFeatures(network)(pixels)
    assert features.shape == (2, PlacedFeatures.COUNT)
    maps = network(pixels)
    torch.testing.assert_close(features[:, -1280:], maps[4].flatten(1))
    torch.testing.assert_close(features[:, 0], maps[2][:, 0, :2, :2].mean(dim=(1, 2)))
