"""Words of a prompt and their places in the context."""

import pytest
import torch

from safelight.conditioners.inversion import Inversion
from safelight.conditioners.prompt_grammar import parse_one, plain
from safelight.conditioners.prompt_reading import at_step
from safelight.conditioners.text import TextConditioner
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer

LENGTH = 12


def conditioner(*inversions: Inversion) -> TextConditioner:
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(["a red cube , ball"] * 3, vocab_size=540, length=LENGTH)
    config = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.vocab_size - 1,
    )
    return TextConditioner((tokenizer,), (ClipText(config),), inversions=inversions)


def words(text: TextConditioner, prompt: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(word.text, word.places) for word in text.words(at_step(parse_one(prompt), 0, 1))]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a red cube", [("a", (1,)), ("red", (2,)), ("cube", (3,))]),
        ("A  (red:1.3) cube", [("A", (1,)), ("red", (2,)), ("cube", (3,))]),
        ("a zoo", [("a", (1,)), ("zoo", (2, 3, 4))]),  # letter by letter
        ("3d, 42", [("3d", (1, 2)), (",", (3,)), ("42", (4, 5))]),
        ("red BREAK cube", [("red", (1,)), ("cube", (LENGTH + 1,))]),
        ("a " * 10 + "cube", [("a", (i,)) for i in range(1, 11)] + [("cube", (LENGTH + 1,))]),
        ("", []),
    ],
)
def test_where_the_tokens_of_a_word_stand(prompt, found):
    assert words(conditioner(), prompt) == found


def test_a_place_is_that_of_the_token_which_changes_with_the_word():
    text = conditioner()
    _, word, _ = text.words(at_step(parse_one("a red cube"), 0, 1))
    one, other = (text.tokenizers[0].encode([prompt])[0] for prompt in ("a red cube", "a , cube"))
    assert (one != other).nonzero().flatten().tolist() == list(word.places)


def test_a_learned_word_is_one_word_of_all_its_places():
    text = conditioner(Inversion("<Lamp>", (torch.randn(3, 16),)))
    assert words(text, "a <lamp> cube") == [("a", (1,)), ("<lamp>", (2, 3, 4)), ("cube", (5,))]


def test_a_plain_text_ends_where_the_tower_does():
    [part] = plain("(a) " + "red " * 10)
    found = conditioner().words(at_step(part.body, 0, 1), plain=True)
    assert [word.text for word in found] == ["(", "a", ")"] + ["red"] * (LENGTH - 5)
    assert found[-1].places == (LENGTH - 2,)


def test_a_comma_ends_no_row_of_a_plain_text():
    [part] = plain("red , " + "cube " * 10)
    found = conditioner().words(at_step(part.body, 0, 1), plain=True)
    assert [place for word in found for place in word.places] == list(range(1, LENGTH - 1))
    assert [word.text for word in found] == ["red", ","] + ["cube"] * (LENGTH - 4)
