from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safelight.types import Batch, Conditioning


def conditioning(
    batch: int, seed: int = 0, *, parts: frozenset[str] = frozenset({"context", "vector"})
) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)

    def part(name: str, *shape: int) -> Tensor | None:
        return torch.randn(batch, *shape, generator=generator) if name in parts else None

    def each(name: str) -> tuple[Tensor, ...]:
        one = part(name, 3, 8, 8)
        return () if one is None else (one, one * 2)

    return Conditioning(
        context=part("context", 5, 4),
        vector=part("vector", 6),
        concat=part("concat", 1, 2, 2),
        hints=each("hints"),
        hint_masks=each("hint_masks"),
        residuals=each("residuals"),
        num_frames=2 if "num_frames" in parts else None,
    )


def tensors(cond: Conditioning) -> list[Tensor]:
    single = [cond.context, cond.vector, cond.concat]
    return [t for t in single if t is not None] + [
        *cond.hints,
        *cond.hint_masks,
        *cond.residuals,
    ]


def assert_same(one: Conditioning, other: Conditioning) -> None:
    assert one.num_frames == other.num_frames
    assert len(tensors(one)) == len(tensors(other))
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


every_part = ["context", "vector", "concat", "hints", "hint_masks", "residuals", "num_frames"]
some_parts = st.frozensets(st.sampled_from(every_part))


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), some_parts)
def test_chunk_undoes_cat(n: int, batch: int, parts: frozenset[str]):
    several = [conditioning(batch, seed, parts=parts) for seed in range(n)]
    joined = Conditioning.cat(several)
    assert all(t.shape[0] == n * batch for t in tensors(joined))
    for part, original in zip(joined.chunk(n), several, strict=True):
        assert_same(part, original)


def test_chunk_of_nothing():
    assert Conditioning().chunk(3) == [Conditioning()] * 3


@pytest.mark.parametrize(("batch", "n"), [(5, 2), (4, 3), (2, 3)])
def test_unequal_parts_are_an_error(batch: int, n: int):
    with pytest.raises(ValueError, match=f"batch of {batch} into {n} equal parts"):
        conditioning(batch).chunk(n)


def test_only_alike_conditionings_join():
    full = conditioning(2, parts=frozenset(every_part))
    with pytest.raises(ValueError, match="only some carry 'vector'"):
        Conditioning.cat([full, replace(full, vector=None)])
    with pytest.raises(ValueError, match="different numbers of hints"):
        Conditioning.cat([full, replace(full, hints=full.hints[:1])])
    with pytest.raises(ValueError, match="num_frames"):
        Conditioning.cat([full, replace(full, num_frames=3)])


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=5), st.booleans(), some_parts)
def test_dropped_rows_are_those_of_the_null(
    dropped: list[bool], single: bool, parts: frozenset[str]
):
    b = len(dropped)
    cond = conditioning(b, 1, parts=parts)
    null = conditioning(1 if single else b, 2, parts=parts)
    result = cond.drop(torch.tensor(dropped), null)
    assert result.num_frames == cond.num_frames
    for out, kept, other in zip(tensors(result), tensors(cond), tensors(null), strict=True):
        for row, gone in enumerate(dropped):
            expected = other[0 if single else row] if gone else kept[row]
            assert torch.equal(out[row], expected)


def test_drop_keeps_the_dtype_and_asks_for_the_same_parts():
    cond = conditioning(2).to(dtype=torch.bfloat16)
    mask = torch.tensor([True, False])
    dropped = cond.drop(mask, conditioning(1))
    assert all(t.dtype == torch.bfloat16 for t in tensors(dropped))
    with pytest.raises(ValueError, match="both carry 'context'"):
        cond.drop(mask, replace(conditioning(1), context=None))
    hinted = conditioning(2, parts=frozenset({"hints"}))
    with pytest.raises(ValueError, match="equally many hints"):
        hinted.drop(mask, replace(hinted, hints=()))


def test_to_moves_every_part():
    cond = conditioning(2, parts=frozenset(every_part))
    moved = cond.to("meta", torch.float16)
    assert len(tensors(moved)) == 9
    assert all(t.device.type == "meta" and t.dtype == torch.float16 for t in tensors(moved))
    assert moved.num_frames == 2
    assert_same(cond.to(), cond)


def test_batches_do_not_share_their_extras():
    one, other = Batch(("a",)), Batch(("b",))
    one.extras["item"] = torch.zeros(1)
    assert other.extras == {}
