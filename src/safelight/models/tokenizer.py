"""CLIP's byte-pair tokenizer: read from files, trained on captions, or the public vocabulary.

Source: Radford et al. 2021, section 2.4; the 48,894 merges of the public vocabulary (MIT licence,
OpenAI) lie beside this file.
"""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jaxtyping import Int64
from pydantic import BaseModel, ValidationError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from safelight.config import read_json
from safelight.errors import SafelightError
from safelight.models.token_rows import encoded_rows, id_of, last_id

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


@dataclass(frozen=True)
class ClipTokenizer:
    """Texts to rows of `length` token ids: start, words, end, padding; longer texts are cut.

    `pad` is the padding token: end of text for SD 1.x and XL's first tower, "!" for SD 2.x and XL's
    second.
    """

    tokenizer: Tokenizer
    length: int = 77
    pad: str = EOS

    def __post_init__(self):
        if self.pad != EOS:  # as in transformers, a padding token is never part of a word
            self.tokenizer.add_special_tokens([self.pad])

    def encode(self, texts: Sequence[str]) -> Int64[Tensor, "b n"]:
        """Token ids, (number of texts, length)."""
        return encoded_rows(self.tokenizer, texts, self.length, EOS, self.pad)

    def id_of(self, token: str) -> int:
        """The id of a token; `SafelightError` if the vocabulary lacks it."""
        return id_of(self.tokenizer, token)

    @property
    def marks(self) -> tuple[int, int]:
        """The ids of start and end; errors as `id_of`."""
        return self.id_of(BOS), self.id_of(EOS)

    @property
    def comma(self) -> int | None:
        """The id of a comma that stands alone, if the vocabulary has one."""
        return self.tokenizer.token_to_id(",</w>")

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return self.tokenizer.get_vocab_size()

    @property
    def last_id(self) -> int:
        """The highest id."""
        return last_id(self.tokenizer)

    @staticmethod
    def from_files(
        vocabulary: Path, merges: Path, *, length: int = 77, pad: str = EOS
    ) -> "ClipTokenizer":
        """Reads `vocab.json` and `merges.txt`, as transformers 4 wrote them."""
        vocab: dict[str, int] = {}
        for token, index in read_json(vocabulary).items():
            if not isinstance(index, int):
                raise SafelightError(f"{vocabulary}: token {token!r} should map to an integer.")
            vocab[token] = index
        try:
            lines = merges.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SafelightError(f"{merges} cannot be read as UTF-8 text: {error}.") from error
        pairs = _pairs(lines, str(merges))
        return ClipTokenizer(_build(vocab, pairs, source=str(merges)), length, pad)

    @staticmethod
    def from_tokenizer_json(path: Path, *, length: int = 77, pad: str = EOS) -> "ClipTokenizer":
        """Reads `tokenizer.json`, which is all that transformers 5 writes."""
        return ClipTokenizer._stored(read_json(path), length, pad, str(path))

    @staticmethod
    def from_json(text: str, *, length: int, pad: str, source: str) -> "ClipTokenizer":
        """Reads the text of a `tokenizer.json`; `source` names it in errors."""
        try:
            values: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SafelightError(f"{source}: its tokenizer is not valid JSON.") from error
        return ClipTokenizer._stored(values, length, pad, source)

    @staticmethod
    def _stored(values: object, length: int, pad: str, source: str) -> "ClipTokenizer":
        try:
            stored = _Stored.model_validate(values).model
        except ValidationError as error:
            raise SafelightError(
                f"{source} does not hold a byte-pair tokenizer (vocab and merges under model)."
            ) from error
        if length < 3:
            raise SafelightError(f"{source}: a tokenizer of length {length}; expected 3 or more.")
        lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in stored.merges]
        pairs = _pairs(lines, source)
        return ClipTokenizer(_build(stored.vocab, pairs, source=source), length, pad)

    def to_json(self) -> str:
        """The text of its `tokenizer.json`."""
        return self.tokenizer.to_str()

    @staticmethod
    def bundled(*, length: int = 77, pad: str = EOS) -> "ClipTokenizer":
        """The public vocabulary of 49,408 tokens, for checkpoints that bring none."""
        packed = files("safelight.models").joinpath("vocabulary/clip_merges.txt.gz").read_bytes()
        pairs = _pairs(gzip.decompress(packed).decode("utf-8").splitlines(), "vocabulary")
        letters = _byte_letters()
        tokens = [
            *letters,
            *(letter + "</w>" for letter in letters),
            *map("".join, pairs),
            BOS,
            EOS,
        ]
        vocab = {token: index for index, token in enumerate(tokens)}
        return ClipTokenizer(_build(vocab, pairs), length, pad)

    @staticmethod
    def train(captions: Iterable[str], vocab_size: int, length: int) -> "ClipTokenizer":
        """Learns a vocabulary of at most `vocab_size` tokens (512 bytes and 2 marks among them).

        The same captions, in whatever order, give the same vocabulary to the byte.

        Raises `SafelightError` if there is no room for these, or for the marks in `length`.
        """
        letters = _byte_letters()
        least = 2 * len(letters) + 2
        if vocab_size < least:
            raise SafelightError(
                f"vocab_size should be {least} or more (each byte twice, and two marks), "
                f"got {vocab_size}."
            )
        if length < 3:
            raise SafelightError(f"length should be 3 tokens or more, got {length}.")
        captions = list(captions)
        found = _learned(captions, 0, letters).vocab  # single letters, and those that end words
        singles = sorted(found, key=lambda token: (len(token), token))
        learned = _learned(captions, vocab_size - 2 - len(letters), singles)
        pairs = _pairs([" ".join(pair) for pair in learned.merges], "learned merges")
        tokens = dict.fromkeys(
            [*letters, *(letter + "</w>" for letter in letters), *map("".join, pairs)]
        )
        vocab = {token: index for index, token in enumerate([*tokens, BOS, EOS])}
        return ClipTokenizer(_build(vocab, pairs), length)

    def save(self, folder: Path) -> None:
        """Writes the files of both generations of transformers into an existing folder."""
        model = _Stored.model_validate_json(self.tokenizer.to_str()).model
        _write_json(folder / "vocab.json", model.vocab)
        merges = "".join(f"{' '.join(pair)}\n" for pair in model.merges)
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
        self.tokenizer.save(str(folder / "tokenizer.json"))
        _write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": self.length,
                "bos_token": BOS,
                "eos_token": EOS,
                "unk_token": EOS,
                "pad_token": self.pad,
                "add_prefix_space": False,
                "do_lower_case": True,
                "errors": "replace",
            },
        )
        _write_json(
            folder / "special_tokens_map.json",
            {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": self.pad},
        )


def _learned(captions: list[str], vocab_size: int, first: list[str]) -> "_Model":
    """What `tokenizers` learns, with the ids of the tokens `first` in their order.

    Pairs of equal count are merged in the order of their ids. The learner numbers letters that end
    words ("a</w>") as a hash map brings them, differently in every process, unless they are
    special tokens: those come first, as given.
    """
    learner = _build({}, [], special=False)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    return _Stored.model_validate_json(learner.to_str()).model


def _build(
    vocab: dict[str, int],
    merges: list[tuple[str, str]],
    *,
    special: bool = True,
    source: str = "vocabulary",
) -> Tokenizer:
    """The whole tokenizer around a vocabulary, as transformers' fast CLIP tokenizer is put
    together.
    """
    if special and not {BOS, EOS} <= vocab.keys():
        raise SafelightError(f"{source}: the tokenizer's vocabulary lacks {BOS!r} or {EOS!r}.")
    for token, index in vocab.items():
        if not 0 <= index < 2**31:
            raise SafelightError(f"{source}: token {token!r} has the impossible id {index}.")
    for pair in merges:
        for token in (*pair, "".join(pair)):
            if token not in vocab:
                raise SafelightError(
                    f"{source}: the merge {' '.join(pair)!r} needs {token!r}, which the vocabulary "
                    "lacks; its files are of two tokenizers, or cut short."
                )
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=EOS if special else None,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            fuse_unk=False,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if special:
        tokenizer.add_special_tokens([BOS, EOS])
        trim_offsets = add_prefix_space = False
        tokenizer.post_processor = processors.RobertaProcessing(
            (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets, add_prefix_space
        )
    return tokenizer


def _pairs(lines: Sequence[str], source: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in lines:
        if not line.strip() or line.startswith("#version"):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise SafelightError(f"{source}: expected two tokens on a line, got {line!r}.")
        pairs.append((parts[0], parts[1]))
    return pairs


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes, in the order of GPT-2's table: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


class _Model(BaseModel):
    vocab: dict[str, int]
    merges: list[tuple[str, str] | str]  # pairs, or "a b" in files of older versions


class _Stored(BaseModel):
    """The part of `tokenizer.json` that says what a byte-pair tokenizer is."""

    model: _Model


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
