"""BERT's word-piece tokenizer, read from its vocabulary.

Source: Devlin et al. 2019 (arXiv 1810.04805), section 3; words are taken apart greedily from the
left (Wu et al. 2016).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64
from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from safelight.config import read_json
from safelight.errors import SafelightError
from safelight.models.token_rows import encoded_rows, id_of, last_id

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_SPECIAL = (PAD, UNKNOWN, START, END, MASK)
_LONGEST_WORD = 100  # letters; a longer one is unknown as a whole


@dataclass(frozen=True)
class WordPieceTokenizer:
    """Texts to rows of `length` token ids: start, words, end, padding; longer texts are cut."""

    tokenizer: Tokenizer
    length: int = 77
    lowercase: bool = True
    pad: str = PAD

    def encode(self, texts: Sequence[str]) -> Int64[Tensor, "b n"]:
        """Token ids, (number of texts, length)."""
        return encoded_rows(self.tokenizer, texts, self.length, END, self.pad)

    def id_of(self, token: str) -> int:
        """The id of a token; `SafelightError` if the vocabulary lacks it."""
        return id_of(self.tokenizer, token)

    @property
    def marks(self) -> tuple[int, int]:
        """The ids of start and end; errors as `id_of`."""
        return self.id_of(START), self.id_of(END)

    @property
    def comma(self) -> int | None:
        """The id of a comma, if the vocabulary has one."""
        return self.tokenizer.token_to_id(",")

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return self.tokenizer.get_vocab_size()

    @property
    def last_id(self) -> int:
        """The highest id."""
        return last_id(self.tokenizer)

    @staticmethod
    def from_vocabulary(
        path: Path, *, length: int = 77, lowercase: bool = True
    ) -> "WordPieceTokenizer":
        """Reads `vocab.txt`, one token a line, whose ids are their lines from 0."""
        try:
            tokens = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SafelightError(f"{path} cannot be read as UTF-8 text: {error}.") from error
        if tokens[-1] == "":
            tokens.pop()
        vocab = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
        return WordPieceTokenizer(_build(vocab, lowercase, str(path)), length, lowercase)

    @staticmethod
    def from_tokenizer_json(
        path: Path, *, length: int = 77, lowercase: bool = True
    ) -> "WordPieceTokenizer":
        """Reads `tokenizer.json`, which is all that transformers 5 writes."""
        try:
            vocab = _Stored.model_validate(read_json(path)).model.vocab
        except ValidationError as error:
            raise SafelightError(
                f"{path} does not hold a word-piece tokenizer (a vocabulary under model)."
            ) from error
        return WordPieceTokenizer(_build(vocab, lowercase, str(path)), length, lowercase)

    def save(self, folder: Path) -> None:
        """Writes the files of both generations of transformers into an existing folder."""
        vocab = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        text = "".join(f"{token}\n" for token, _ in vocab)
        (folder / "vocab.txt").write_text(text, encoding="utf-8")
        self.tokenizer.save(str(folder / "tokenizer.json"))
        values = {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": self.length,
            "do_lower_case": self.lowercase,
            "cls_token": START,
            "sep_token": END,
            "unk_token": UNKNOWN,
            "pad_token": PAD,
            "mask_token": MASK,
        }
        text = json.dumps(values, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _build(vocab: dict[str, int], lowercase: bool, source: str) -> Tokenizer:
    """The whole tokenizer around a vocabulary, as transformers' fast BERT tokenizer is put
    together.
    """
    missing = [token for token in (PAD, UNKNOWN, START, END) if token not in vocab]
    if missing:
        raise SafelightError(
            f"{source}: the tokenizer's vocabulary lacks {', '.join(missing)}; expected BERT's."
        )
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise SafelightError(
            f"{source}: the ids of its {len(vocab)} tokens should count from 0, each once."
        )
    tokenizer = Tokenizer(
        models.WordPiece(vocab=vocab, unk_token=UNKNOWN, max_input_chars_per_word=_LONGEST_WORD)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in _SPECIAL if token in vocab])
    tokenizer.post_processor = processors.BertProcessing((END, vocab[END]), (START, vocab[START]))
    return tokenizer


class _Model(BaseModel):
    vocab: dict[str, int]


class _Stored(BaseModel):
    """The part of `tokenizer.json` that says what a word-piece tokenizer is."""

    model: _Model
