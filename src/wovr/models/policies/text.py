"""Instructions to features, without a vocabulary: hashed words and character trigrams, as in fastText.

An instruction never seen in training still encodes: a known word lands on its own vector wherever it stands, and an
unknown one on the trigrams that it shares with known words.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from wovr.models.attention import SelfAttentionBlock

TRIGRAMS = 15
"""Trigrams kept of a word; longer words are told apart by their whole-word hash."""


def tokenize(instruction: str, buckets: int, max_words: int) -> list[list[int]]:
    """Hash the words of an instruction.

    Args:
        instruction: Any text; case, punctuation and Unicode form do not matter.
        buckets: Number of hash buckets.
        max_words: Words kept.

    Returns:
        One list a word, the first for the beginning of the text: 1 + up to TRIGRAMS numbers in [1, buckets], the hash
        of the word and those of its trigrams (`<cup>` has `<cu`, `cup`, `up>`). 0 is left for padding.
    """

    def bucket(text: str) -> int:
        # CRC-32, because Python's own hash changes from process to process.
        return 1 + zlib.crc32(text.encode()) % buckets

    words = re.findall(r"\w+", unicodedata.normalize("NFKC", instruction).casefold())[:max_words]
    tokens = [[bucket("<>")]]
    for word in words:
        marked = f"<{word}>"
        trigrams = [marked[i : i + 3] for i in range(len(marked) - 2)][:TRIGRAMS]
        tokens.append([bucket(f"word {word}"), *map(bucket, trigrams)])
    return tokens


@lru_cache(maxsize=4096)
def _padded_tokens(instruction: str, buckets: int, max_words: int) -> Tensor:
    """`tokenize` as (words, 1 + TRIGRAMS) int64, padded with 0."""
    tokens = tokenize(instruction, buckets, max_words)
    return torch.tensor([word + [0] * (1 + TRIGRAMS - len(word)) for word in tokens])


@dataclass
class TextFeatures:
    """Encoded instructions.

    Attributes:
        words: (N, P, D) float, one vector a word, the first for the beginning of the text.
        mask: (N, P) bool, True where there is a word.
        pooled: (N, D) float, one vector an instruction.
    """

    words: Tensor
    mask: Tensor
    pooled: Tensor


class TextEncoder(nn.Module):
    """Sum of hashed word and trigram vectors, plus position, through a few self-attention blocks; masked mean pooling.

    A batch holds few different instructions: each is encoded once.

    Args:
        width: Features, D.
        layers: Self-attention blocks.
        heads: Attention heads.
        buckets: Rows of the embedding table; words and trigrams are hashed into them.
        max_words: Longest instruction in words; what is beyond is not read.
    """

    def __init__(
        self, width: int = 64, layers: int = 1, heads: int = 4, buckets: int = 4096, max_words: int = 48
    ) -> None:
        super().__init__()
        self.buckets = buckets
        self.max_words = max_words
        self.embedding = nn.Embedding(1 + buckets, width, padding_idx=0)
        self.position = nn.Parameter(torch.randn(1 + max_words, width) * 0.1)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, instructions: Sequence[str]) -> TextFeatures:
        """Encode N instructions."""
        unique = {text: row for row, text in enumerate(dict.fromkeys(instructions))}
        features = self.encode(list(unique))
        index = torch.tensor([unique[text] for text in instructions], device=features.words.device)
        return TextFeatures(features.words[index], features.mask[index], features.pooled[index])

    def encode(self, instructions: Sequence[str]) -> TextFeatures:
        """Encode N instructions, each by itself."""
        tokens = nn.utils.rnn.pad_sequence(
            [_padded_tokens(text, self.buckets, self.max_words) for text in instructions], batch_first=True
        ).to(self.position.device)  # (N, P, 1 + TRIGRAMS)
        present = tokens != 0
        mask = present.any(-1)  # (N, P)
        # A mean, not a sum: long words are no louder than short ones.
        x = self.embedding(tokens).sum(2) / present.sum(2, keepdim=True).clamp(min=1)  # (N, P, D)
        x = x + self.position[: x.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        weight = mask[..., None].to(x.dtype)
        return TextFeatures(x, mask, (x * weight).sum(1) / weight.sum(1))
