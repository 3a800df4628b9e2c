"""The kinds of text tower, or what stands for one, that a model may have, and their tokenizers."""

from safelight.models.bert import BertText
from safelight.models.classes import ClassEmbedder, ClassReader
from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer

AnyTextTower = ClipText | BertText | ClassEmbedder
AnyTokenizer = ClipTokenizer | WordPieceTokenizer | ClassReader
