r"""The syntax of prompts: AUTOMATIC1111's documented examples, and properties of any text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safelight.conditioners.prompt_grammar import Emphasis, Text, escaped, parse, parse_one, plain
from safelight.conditioners.prompt_reading import Span, at_step

marked = st.lists(
    st.sampled_from([*"()[]:|\\", "BREAK", "AND", "a", "b ", "0.5", "3", ":1.2", " ", "\n"])
).map("".join)
texts = st.text() | marked


def read(prompt, step=1, steps=10):
    """The text of a step, counted from 1 as AUTOMATIC1111 does."""
    sections = at_step(parse_one(prompt), step - 1, steps)
    return " BREAK ".join("".join(span.text for span in section) for section in sections)


def weighed(prompt):
    [section] = at_step(parse_one(prompt), 0, 10)
    return [(span.text, pytest.approx(span.weight)) for span in section]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("((house:1.3)) [on]", [("house", 1.43), (" ", 1.0), ("on", 1 / 1.1)]),
        ("a (hill:0.5), sun, (((sky))).", [
            ("a ", 1.0), ("hill", 0.5), (", sun, ", 1.0), ("sky", 1.331), (".", 1.0),
        ]),
        ("(a (b:2) [c]:1.5)", [("a ", 1.5), ("b", 3.0), (" ", 1.5), ("c", 1.5 / 1.1)]),
        ("(ratio 4:3:1.2)", [("ratio 4:3", 1.2)]),
        ("(a: 1.2)", [("a: 1.2", 1.1)]),  # a space, and it is no weight
        ("(a:.5) (b:-1)", [("a", 0.5), (" ", 1.0), ("b", -1.0)]),
        ("[a:b]", [("a:b", 1 / 1.1)]),
        ("[a|b:3]", [("a|b:3", 1 / 1.1)]),
        (r"a \\ b", [(r"a \ b", 1.0)]),
    ],
)  # fmt: skip
def test_weights(prompt, spans):
    assert weighed(prompt) == [(text, weight) for text, weight in spans if text]


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        ("test", {1: "test", 10: "test"}),
        ("a [b:3]", {1: "a ", 3: "a ", 4: "a b", 10: "a b"}),
        ("a [b: 3]", {3: "a ", 4: "a b"}),
        ("a [[[b]]:2]", {2: "a ", 3: "a b"}),
        ("[(a:2):3]", {3: "", 4: "a"}),
        ("a [b : c : 1] d", {1: "a b  d", 2: "a  c  d"}),
        ("a[b:[c:d:2]:1]e", {1: "abe", 2: "ace", 3: "ade", 10: "ade"}),
        ("a [unbalanced", {1: "a [unbalanced", 10: "a [unbalanced"}),
        ("a [b:.5] c", {5: "a  c", 6: "a b c"}),
        ("a [b::.5] c", {5: "a b c", 6: "a  c"}),
        ("((a][:b:c [d:3]", {3: "((a][:b:c ", 4: "((a][:b:c d"}),
        ("[a|(b:1.1)]", {1: "a", 2: "b", 3: "a", 10: "b"}),
        ("[a||b]", {1: "a", 2: "", 3: "b", 4: "a"}),
        ("[a:b:1.0]", {10: "a"}),
        ("[a:b:1]", {1: "a", 2: "b"}),
        ("[a:b:0]", {1: "b"}),
        ("[[a|b]:c:4]", {1: "a", 2: "b", 4: "b", 5: "c"}),
        ("a BREAK b", {1: "a  BREAK  b"}),
        ("BREAK a BREAK", {1: " BREAK  a "}),
        (r"BREAKFAST \BREAK", {1: "BREAKFAST BREAK"}),
        ("a AND b", {1: "a AND b"}),  # of one prompt alone
    ],
)
def test_schedules(prompt, changes):
    assert {step: read(prompt, step) for step in changes} == changes


def test_the_documented_landscape_changes_where_it_is_said_to():
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
    )
    begin = "fantasy landscape with a"
    wanted = {
        25: f"{begin} mountain and an oak in foreground shoddy",
        50: f"{begin} lake and an oak in foreground in background shoddy",
        60: f"{begin} lake and an oak in foreground in background masterful",
        75: f"{begin} lake and an oak in background masterful",
        100: f"{begin} lake and a christmas tree in background masterful",
    }
    starts = [1, 26, 51, 61, 76]
    for (end, text), start in zip(wanted.items(), starts, strict=True):
        assert read(prompt, start, 100) == read(prompt, end, 100) == text


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("12:30", [("12:30", 1.0)]),
        ("a cat AND a dog:1.2", [("a cat ", 1.0), (" a dog", 1.2)]),
        ("a : -0.5 AND b", [("a ", -0.5), (" b", 1.0)]),
        ("(a:1.5) AND [b|c]:2 ", [("a ", 1.0), (" b", 2.0)]),
        ("a AND", [("a ", 1.0), ("", 1.0)]),
        ("(a AND b)", [("a AND b", 1.0)]),
        (r"a \AND b", [("a AND b", 1.0)]),
        ("SAND AND b", [("SAND ", 1.0), (" b", 1.0)]),
    ],
)
def test_prompts_that_and_joins(prompt, parts):
    read_parts = []
    for part in parse(prompt):
        [section] = at_step(part.body, 0, 10)
        read_parts.append(("".join(span.text for span in section), part.weight))
    assert read_parts == parts


@given(texts, st.integers(1, 30), st.data())
@example("(" * 300 + "a" + ")" * 300, 1, None)
@example("[" * 500 + "(" * 500 + "]" * 500, 1, None)
def test_every_text_is_a_prompt(text, steps, data):
    step = 0 if data is None else data.draw(st.integers(0, steps - 1))
    assert all(at_step(part.body, step, steps) for part in parse(text))
    assert at_step(parse_one(text), step, steps)


@given(texts)
def test_what_is_escaped_reads_as_it_was(text):
    prompt = escaped(text)
    assert [part.weight for part in parse(prompt)] == [1.0]
    assert parse(prompt) == plain(text)


@given(st.text(st.characters(exclude_characters="\\()[]:|")).filter(lambda t: "BREAK" not in t))
def test_a_text_without_marks_is_itself(text):
    assert at_step(parse_one(text), 0, 1) == (((Span(text),) if text else ()),)


@given(st.lists(st.floats(-9, 9).map(lambda x: round(x, 3)), min_size=1, max_size=8))
def test_weights_within_weights_multiply(weights):
    prompt, product = "a", 1.0
    for weight in weights:
        prompt, product = f"({prompt}:{weight:f})", product * weight
    assert weighed(prompt) == [("a", product)]


def test_a_tree_is_what_is_written():
    assert parse_one("a (b [c]:1.5)") == (
        Text("a "),
        Emphasis((Text("b "), Emphasis((Text("c"),), 1 / 1.1)), 1.5),
    )


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a (b", "a (b"),
        ("a) b]", "a) b]"),
        (":) ;(", ":) ;("),
        ("(a [b) c]", "a [b c]"),
        ("[a (b] c)", "a (b c)"),
        ("a | b : c", "a | b : c"),
        ("a \\", "a \\"),
    ],
)
def test_marks_without_their_partners_are_text(prompt, text):
    assert read(prompt) == text
