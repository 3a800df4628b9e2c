"""The kinds of text tower that a latent diffusion model may have, and their tokenizers."""

from safelight.models.bert import BertText
from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer

AnyTextTower = ClipText | BertText
AnyTokenizer = ClipTokenizer | WordPieceTokenizer
