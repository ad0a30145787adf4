"""Text out of Whisper's tokens: UTF-8, each byte written as one printable character, as GPT-2 does."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache


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
