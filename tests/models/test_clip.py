"""The text tower and its tokenizer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safelight.conditioners.text import TextConditioner
from safelight.errors import SafelightError
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import BOS, EOS, ClipTokenizer

SMALL = ClipTextConfig(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=8,
    eos_token_id=59,
)


def test_the_public_tower_has_the_published_number_of_weights():
    with torch.device("meta"):
        tower = ClipText(ClipTextConfig())
    assert sum(p.numel() for p in tower.parameters()) == 123_060_480


def test_tokens_do_not_see_later_ones():
    torch.manual_seed(0)
    tower = ClipText(SMALL)
    ids = torch.tensor([[1, 2, 3, 59, 59]])
    changed = torch.tensor([[1, 2, 3, 4, 59]])
    before, after = tower(ids).tokens, tower(changed).tokens
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_pooled_is_the_first_end_of_text():
    torch.manual_seed(0)
    tower = ClipText(SMALL)
    features = tower(torch.tensor([[1, 2, 59, 59, 59], [1, 2, 3, 4, 59]]))
    torch.testing.assert_close(features.pooled[0], features.tokens[0, 2])
    torch.testing.assert_close(features.pooled[1], features.tokens[1, 4])


def test_skipped_layers_and_the_final_norm():
    torch.manual_seed(0)
    last = ClipText(SMALL)
    skipping = ClipText(replace(SMALL, skip=1, final_norm=False))
    skipping.load_state_dict(last.state_dict())
    ids = torch.tensor([[1, 2, 59]])
    tokens = skipping(ids).tokens
    continued = last.final_layer_norm(last.encoder.layers[-1](tokens))
    torch.testing.assert_close(continued, last(ids).tokens)
    torch.testing.assert_close(skipping(ids).pooled, last(ids).pooled)


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="at most 8 tokens, got 9"):
        ClipText(SMALL)(torch.zeros(1, 9, dtype=torch.int64))


def test_known_ids_of_the_public_vocabulary():
    tokenizer = ClipTokenizer.bundled()
    assert tokenizer.vocab_size == 49408
    ids = tokenizer.encode(["a photo of a cat", ""])
    assert ids.shape == (2, 77)
    assert ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert ids[1, :3].tolist() == [49406, 49407, 49407]


def test_long_texts_keep_their_end_mark():
    ids = ClipTokenizer.bundled(length=6).encode(["one two three four five six seven"])
    assert ids.shape == (1, 6)
    assert ids[0, -1] == 49407


def test_padding_of_the_second_generation():
    ids = ClipTokenizer.bundled(pad="!").encode(["a cat"])
    assert ids[0, :6].tolist() == [49406, 320, 2368, 49407, 0, 0]


def test_case_and_space_do_not_matter():
    tokenizer = ClipTokenizer.bundled()
    assert torch.equal(tokenizer.encode(["A  Cat\n"]), tokenizer.encode(["a cat"]))


def test_a_trained_vocabulary_comes_back_from_both_kinds_of_files(tmp_path: Path):
    captions = ["a red cube left of a blue ball", "a green cone"] * 5
    tokenizer = ClipTokenizer.train(captions, vocab_size=600, length=12)
    assert tokenizer.vocab_size <= 600
    tokenizer.save(tmp_path)
    texts = ["a red cube", "something never seen: žluťoučký 🐍", ""]
    expected = tokenizer.encode(texts)
    assert expected.max() < tokenizer.vocab_size
    old = ClipTokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt", length=12)
    new = ClipTokenizer.from_tokenizer_json(tmp_path / "tokenizer.json", length=12)
    assert torch.equal(old.encode(texts), expected)
    assert torch.equal(new.encode(texts), expected)
    words = tokenizer.encode(["a red cube"])[0].tolist()
    assert words[0] == tokenizer.id_of(BOS)
    assert words[4] == tokenizer.id_of(EOS)  # each word learned whole


def test_captions_in_any_order_give_the_same_vocabulary():
    captions = ["a" + letter for letter in "bcdefghijk"]  # ten merges of equal count
    learned = [
        ClipTokenizer.train(captions[turn:] + captions[:turn], vocab_size=600, length=8).to_json()
        for turn in range(4)
    ]
    assert len(set(learned)) == 1


@pytest.mark.parametrize("text", ['{"model": {"type": "WordPiece"}}', "[]", '{"model": 3}'])
def test_other_tokenizers_are_refused_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(SafelightError) as error:
        ClipTokenizer.from_tokenizer_json(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_merges_that_are_not_pairs_are_refused(tmp_path: Path):
    (tmp_path / "vocab.json").write_text(f'{{"a": 0, "{BOS}": 1, "{EOS}": 2}}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(SafelightError, match="two tokens on a line"):
        ClipTokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_prompts_become_context():
    tokenizer = ClipTokenizer.train(["a red cube"] * 3, vocab_size=560, length=8)
    tower = ClipText(
        replace(SMALL, vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.id_of(EOS))
    )
    cond = TextConditioner((tokenizer,), (tower,))(["a red cube", ""])
    assert cond.context is not None
    assert cond.context.shape == (2, 8, 16)
    assert not torch.allclose(cond.context[0], cond.context[1])


def _files(folder: Path, vocabulary: str, merges: bytes) -> tuple[Path, Path]:
    (folder / "vocab.json").write_text(vocabulary)
    (folder / "merges.txt").write_bytes(merges)
    return folder / "vocab.json", folder / "merges.txt"


@pytest.mark.parametrize(
    ("token", "merges", "message"),
    [
        ('"ab": 3', b"a c\n", "the merge 'a c' needs 'c'"),
        ('"c": 3', b"a c\n", "the merge 'a c' needs 'ac'"),
        ('"c": 3', b"\xff\xfe a\n", "cannot be read as UTF-8"),
        ('"c": -3', b"", "token 'c' has the impossible id -3"),
        ('"c": 5000000000', b"", "impossible id 5000000000"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, token: str, merges: bytes, message: str):
    vocabulary = f'{{"a": 0, "{BOS}": 1, "{EOS}": 2, {token}}}'
    with pytest.raises(SafelightError, match=message) as error:
        ClipTokenizer.from_files(*_files(tmp_path, vocabulary, merges))
    assert "\n" not in str(error.value)
    assert str(tmp_path / "merges.txt") in str(error.value)


def test_a_tokenizer_json_of_merges_without_tokens_is_one_line(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text(
        f'{{"model": {{"vocab": {{"a": 0, "{BOS}": 1, "{EOS}": 2}}, "merges": ["a a"]}}}}'
    )
    with pytest.raises(SafelightError, match="the merge 'a a' needs 'aa'"):
        ClipTokenizer.from_tokenizer_json(path)


@pytest.mark.parametrize(
    ("size", "length", "message"),
    [
        (513, 8, "vocab_size should be 514 or more"),
        (100, 8, "got 100"),
        (520, 2, "length should be 3"),
    ],
)
def test_a_vocabulary_too_small_is_one_line(size: int, length: int, message: str):
    with pytest.raises(SafelightError, match=message):
        ClipTokenizer.train(["a red cube"], vocab_size=size, length=length)


def test_the_least_vocabulary_holds_every_byte():
    tokenizer = ClipTokenizer.train(["a red cube"], vocab_size=514, length=8)
    assert tokenizer.vocab_size == 514
    assert tokenizer.last_id == 513
