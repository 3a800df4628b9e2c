"""Rows of token ids, whatever the tokenizer: cut, padded, and looked up."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import Tensor

from safelight.errors import SafelightError


def encoded_rows(
    tokenizer: Tokenizer, texts: Sequence[str], length: int, end: str, pad: str
) -> Int64[Tensor, "b n"]:
    """Texts to ids, (number of texts, length); errors as `id_of`."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return filled_rows(rows, length, id_of(tokenizer, end), id_of(tokenizer, pad))


def filled_rows(rows: Sequence[list[int]], length: int, end: int, pad: int) -> Int64[Tensor, "b n"]:
    """Rows of ids, each with its marks of start and end, cut or padded to `length`."""
    whole = [row if len(row) <= length else [*row[: length - 1], end] for row in rows]
    padded = [row + [pad] * (length - len(row)) for row in whole]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), length)


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token; `SafelightError` if the vocabulary lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise SafelightError(f"The tokenizer's vocabulary has no token {token!r}.")
    return found


def last_id(tokenizer: Tokenizer) -> int:
    """The highest id."""
    return max(tokenizer.get_vocab().values())
