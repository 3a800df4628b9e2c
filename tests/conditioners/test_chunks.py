"""Prompts in chunks, with weights, against what AUTOMATIC1111 does."""

from dataclasses import replace

import pytest
import torch

from safelight.conditioners.chunks import Unit, chunked, emphasised
from safelight.conditioners.inversion import Inversion
from safelight.conditioners.prompt_grammar import parse_one
from safelight.conditioners.prompt_reading import at_step
from safelight.conditioners.text import TextConditioner
from safelight.models.bert import BertText, BertTextConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer

LENGTH = 12
COMMA = 0


@pytest.fixture(scope="module")
def text():
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(["a red cube , ball"] * 3, vocab_size=540, length=LENGTH)
    config = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.vocab_size - 1,
    )
    towers = ClipText(config), ClipText(replace(config, projection_dim=8))
    return TextConditioner((tokenizer, tokenizer), towers, pooled=True)


def reading(prompt):
    return at_step(parse_one(prompt), 0, 1)


def context(text, prompt, chunks=1):
    with torch.no_grad():
        return text.read([reading(prompt)], chunks).context[0]


def units(*ids):
    return [Unit((token,)) for token in ids]


@pytest.mark.parametrize(
    ("sections", "room", "sizes"),
    [
        ([units()], 5, [0]),
        ([units(*range(1, 6))], 5, [5]),
        ([units(*range(1, 7))], 5, [5, 1]),
        ([units(1, COMMA, 2, 3, 4, 5)], 5, [2, 4]),  # what follows the comma moves along
        ([units(1, 2, 3, 4, COMMA, 5)], 5, [5, 1]),
        ([units(1, 2, 3, 4, 5, COMMA, 6)], 5, [5, 2]),
        ([units(1, COMMA, *range(2, 30))], 25, [25, 5]),  # the comma is too far back
        ([units(1), units(), units(2, 3)], 5, [1, 0, 2]),
        ([[*units(1, 2, 3), Unit((7, 8, 9))]], 5, [3, 3]),  # a word stays whole
        ([[*units(1), Unit(tuple(range(1, 13)))]], 5, [1, 5, 5, 2]),
    ],
)
def test_where_chunks_end(sections, room, sizes):
    chunks = chunked(sections, room, COMMA)
    assert [sum(len(unit.ids) for unit in chunk) for chunk in chunks] == sizes
    flat = [token for section in sections for unit in section for token in unit.ids]
    assert [token for chunk in chunks for unit in chunk for token in unit.ids] == flat


def test_weights_multiply_the_towers_output_and_the_mean_stays():
    torch.manual_seed(1)
    tokens, weights = torch.randn(2, 5, 4) + 1, torch.ones(2, 5)
    weights[1, 2] = 1.5
    made = emphasised(tokens, weights)
    assert torch.equal(made[0], tokens[0])
    weighed = tokens[1] * weights[1, :, None]
    torch.testing.assert_close(made[1], weighed * tokens[1].mean() / weighed.mean())
    torch.testing.assert_close(made[1].mean(), tokens[1].mean())
    centred = tokens - tokens.mean(dim=(1, 2), keepdim=True)  # no mean to restore
    torch.testing.assert_close(emphasised(centred, weights)[1], centred[1] * weights[1, :, None])


@pytest.mark.parametrize(
    "prompt", ["", "a red cube", "A red  cube, ball", "((a red cube):0.82644)"]
)
def test_a_prompt_that_fits_gives_the_bits_of_the_plain_text(text, prompt):
    weights = [span.weight for section in reading(prompt) for span in section]
    with torch.no_grad():
        plain, made = (
            text(["a red cube" if "(" in prompt else prompt]),
            text.read([reading(prompt)]),
        )
    same = torch.equal(plain.context, made.context)
    assert same == all(weight == 1 for weight in weights)
    assert torch.equal(plain.vector, made.vector)


def test_each_chunk_is_read_alone_and_the_first_is_pooled(text):
    words = ["red"] * (LENGTH - 2), ["cube"] * 3
    long = " ".join(words[0] + words[1])
    assert text.chunks(reading(long)) == 2
    with torch.no_grad():
        made = text.read([reading(long), reading("ball")], 2)
        first, second = (text([" ".join(part)]) for part in words)
        alone, null = text(["ball"]), text.null(1)
    torch.testing.assert_close(made.context[0], torch.cat([first.context, second.context], 1)[0])
    torch.testing.assert_close(made.context[1], torch.cat([alone.context, null.context], 1)[0])
    torch.testing.assert_close(made.vector, torch.cat([first.vector, alone.vector]))
    assert torch.equal(text.null(1, 2).context[:, LENGTH:], null.context)


def test_a_break_begins_a_chunk(text):
    assert text.chunks(reading("red BREAK cube BREAK")) == 2
    joined = context(text, "(red BREAK cube)", 2)
    assert torch.equal(joined[:LENGTH], context(text, "(red)"))
    torch.testing.assert_close(joined[LENGTH:], context(text, "(cube)"))


def test_a_learned_word_is_weighed_and_stays_whole(text):
    vectors = tuple(torch.randn(4, 16) for _ in range(2))
    taught = replace(text, inversions=(Inversion("<snail>", vectors),))
    long = " ".join(["red"] * (LENGTH - 4)) + " <snail>"
    assert taught.chunks(reading(long)) == 2
    made = context(taught, long, 2)
    torch.testing.assert_close(made[LENGTH:], context(taught, "<snail>"))
    strong, plain = context(taught, "a (<snail>:2)"), context(taught, "a <snail>")
    ratios = (strong[:, :16] / plain[:, :16]).mean(dim=1)
    weights = torch.tensor([1.0, 1, 2, 2, 2, 2, *[1] * (LENGTH - 6)])
    torch.testing.assert_close(ratios / ratios[0], weights)


def test_other_towers_read_chunks_too(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", "red", "cube"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    tokenizer = WordPieceTokenizer.from_vocabulary(tmp_path / "vocab.txt", length=6)
    tower = BertText(BertTextConfig(len(tokens), 16, 32, 1, 2, 8, 6))
    text = TextConditioner((tokenizer,), (tower,))
    assert torch.equal(context(text, "red cube"), text(["red cube"]).context[0])
    assert text.chunks(reading("red, cube red cube")) == 2
    assert context(text, "red, cube red cube", 2).shape == (12, 16)


def test_layers_that_are_left_out(text):
    first = text.towers[0]
    ids = text.tokenizers[0].encode(["a red cube"])
    skipping = ClipText(replace(first.config, skip=1))
    skipping.load_state_dict(first.state_dict())
    assert torch.equal(first(ids, skip=1).tokens, skipping(ids).tokens)
    with pytest.raises(ValueError, match="Of 2 layers 2 cannot be left out"):
        first(ids, skip=2)
