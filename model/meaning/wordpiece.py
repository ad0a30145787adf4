"""BERT's uncased WordPiece: a sentence as numbers of the vocabulary that all-MiniLM-L6-v2 was trained with.

`vocab.txt` is Google's (`bert-base-uncased`, Apache-2.0, `LICENSE` beside it), carried here because the
package with the network has none. The rules are those of google-research/bert, tokenization.py.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Final

from model.errors import EngineError

PATH: Final = Path(__file__).with_name("vocab.txt")
SHA256: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
LONGEST_WORD: Final = 100
"""Characters; a longer word is an unknown one."""
LONGEST: Final = 128
"""Pieces of a sentence that are read, both ends' marks among them."""


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """piece -> its number. Raises `EngineError` when the file is away or another one."""
    try:
        content = PATH.read_bytes()
    except OSError as error:
        raise EngineError(f"{PATH}: {error.strerror}; install voicegate again") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise EngineError(f"{PATH} is not the file that came with voicegate; install voicegate again")
    return {piece: number for number, piece in enumerate(content.decode().splitlines())}


def encode(text: str) -> list[int]:
    """The numbers of `text`'s pieces between [CLS] and [SEP], at most `LONGEST` in all."""
    known = vocabulary()
    numbers = [number for word in _words(text) for number in _pieces(word, known)]
    return [known["[CLS]"], *numbers[: LONGEST - 2], known["[SEP]"]]


def _words(text: str) -> list[str]:
    """Lower-case words without accents; each mark of punctuation, and each ideograph, is a word."""
    spaced: list[str] = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or kind == "Zs":
            spaced.append(" ")
        elif letter not in "\0\ufffd" and kind[0] != "C":
            spaced.append(f" {letter} " if _ideograph(letter) else letter)
    words = []
    for word in "".join(spaced).split():
        plain = unicodedata.normalize("NFD", word.lower())
        parts = [""]
        for letter in plain:
            if unicodedata.category(letter) == "Mn":
                continue
            if _punctuation(letter):
                parts += [letter, ""]
            else:
                parts[-1] += letter
        words += [part for part in parts if part]
    return words


def _pieces(word: str, known: dict[str, int]) -> list[int]:
    """The longest piece that the vocabulary has, then the longest of the rest, and so on."""
    if len(word) > LONGEST_WORD:
        return [known["[UNK]"]]
    numbers, start = [], 0
    while start < len(word):
        head = "##" if start else ""
        end = next((at for at in range(len(word), start, -1) if head + word[start:at] in known), start)
        if end == start:
            return [known["[UNK]"]]
        numbers.append(known[head + word[start:end]])
        start = end
    return numbers


def _punctuation(letter: str) -> bool:
    ascii_mark = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return ascii_mark or unicodedata.category(letter)[0] == "P"


def _ideograph(letter: str) -> bool:
    at = ord(letter)
    return (
        0x4E00 <= at <= 0x9FFF
        or 0x3400 <= at <= 0x4DBF
        or 0x20000 <= at <= 0x2CEAF
        or 0xF900 <= at <= 0xFAFF
        or 0x2F800 <= at <= 0x2FA1F
    )
