"""Text and Whisper's tokens: UTF-8, each byte written as one printable character, as GPT-2 does.

Texts become tokens by byte-pair encoding (Sennrich and others, 2016), as OpenAI's tiktoken does it: pairs are
joined in the order in which the vocabulary has what they make.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

PIECES: Final = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""What no token reaches beyond: a word, a number, or signs, each with the space before it."""


class TokenNumbers:
    """The numbers of a text's tokens in one vocabulary, the tokens of which stand in order."""

    def __init__(self, tokens: Sequence[str]) -> None:
        """`tokens` as the vocabulary's file has them; special ones (`<|en|>`) are never made of a text."""
        self._numbers = {token: number for number, token in reversed(list(enumerate(tokens)))}
        self._signs = {byte: sign for sign, byte in _bytes().items()}

    def of(self, text: str) -> list[int]:
        """The numbers of a text's tokens; a space stands before its first word, as Whisper writes it."""
        written = f" {text.strip()}".rstrip()
        return [number for piece in PIECES.findall(written) for number in self._of_piece(piece)]

    def _of_piece(self, piece: str) -> Iterator[int]:
        parts = [self._signs[byte] for byte in piece.encode()]
        while len(parts) > 1:
            pairs = ["".join(pair) for pair in itertools.pairwise(parts)]
            ranks = [self._numbers.get(pair, len(self._numbers)) for pair in pairs]
            at = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[at] == len(self._numbers):
                break
            parts[at : at + 2] = [pairs[at]]
        return (self._numbers[part] for part in parts)


def text_of(tokens: Iterable[str]) -> str:
    """The text that the tokens spell; special tokens (`<|en|>`) are left out, broken UTF-8 is replaced."""
    byte_of = _bytes()
    written = "".join(token for token in tokens if not (token.startswith("<|") and token.endswith("|>")))
    raw = bytes(byte_of[sign] for sign in written if sign in byte_of)
    return raw.decode("utf-8", "replace").strip()


@lru_cache(maxsize=1)
def _bytes() -> dict[str, int]:
    """Printable bytes of Latin-1 stand for themselves, the others for the signs from U+0100 on."""
    themselves = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(themselves)]
    return {chr(byte): byte for byte in themselves} | {
        chr(0x100 + count): byte for count, byte in enumerate(others)
    }
