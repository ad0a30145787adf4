"""Keys for SRTP in a session description: `a=crypto` (RFC 4568), read and written.

A key is a secret that whoever reads a description has. So nothing here shows one: not a repr, not an error.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self

SrtpRule = Literal["required", "optional", "off"]
"""Whether sound is encrypted: always, as the caller offers, never."""

SUITES: Final[Mapping[str, int]] = {
    "AEAD_AES_256_GCM": 44,
    "AEAD_AES_128_GCM": 28,
    "AES_256_CM_HMAC_SHA1_80": 46,
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AES_256_CM_HMAC_SHA1_32": 46,
    "AES_CM_128_HMAC_SHA1_32": 30,
}
"""The suites that we have, in the order of our own offers, and how long key and salt are together: bytes
(RFC 4568 §6.2, RFC 6188 §2, RFC 7714 §14.2)."""
MAX_CRYPTO: Final = 16
"""Attributes of a section that are read."""
MOST_PACKETS: Final = 1 << 48
"""What a key may live for (RFC 3711 §9.2)."""
_LINE: Final = re.compile(
    r"a=crypto:([0-9]{1,9}+)[ \t]++([A-Za-z0-9_]++)[ \t]++([^ \t]++)((?:[ \t]++[^ \t]++)*+)[ \t]*+"
)
_INLINE: Final = re.compile(
    r"inline:([A-Za-z0-9+/]++)=*+(?:\|(?:2\^([0-9]{1,2}+)|([0-9]{1,18}+)))?+", re.IGNORECASE
)
_HINT: Final = re.compile(r"WSH=[0-9]{1,9}|-.*", re.IGNORECASE)
"""Session parameters that bind nobody: a window's size, and what is marked as optional (§6.3.7, §6.3.8)."""


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """One attribute: with what its writer encrypts."""

    tag: int
    suite: str
    key: bytes = field(repr=False)
    """the master key, then its salt"""

    @classmethod
    def fresh(cls, tag: int, suite: str) -> Self:
        """With a key of chance, that nobody has had before."""
        return cls(tag, suite, secrets.token_bytes(SUITES[suite]))

    @classmethod
    def read(cls, line: str) -> Self | None:
        """None for what is no such attribute, is written wrong, or wants what we do not do: another suite, an
        MKI or several keys, a key derivation rate, packets that are not encrypted or not authenticated, FEC.
        """
        found = _LINE.fullmatch(line)
        if found is None or (found[1][0] == "0" and len(found[1]) > 1):
            return None
        suite, inline = found[2].upper(), _INLINE.fullmatch(found[3])
        if suite not in SUITES or inline is None:
            return None
        if any(_HINT.fullmatch(word) is None for word in found[4].split()):
            return None
        packets = 1 << int(inline[2]) if inline[2] else int(inline[3] or 1)
        try:
            key = base64.b64decode(inline[1] + "=" * (-len(inline[1]) % 4), validate=True)
        except binascii.Error:
            return None
        if len(key) != SUITES[suite] or not 0 < packets <= MOST_PACKETS:
            return None
        return cls(int(found[1]), suite, key)

    def __str__(self) -> str:
        """As it stands in a description, with the key: for the wire and nowhere else."""
        return f"a=crypto:{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"

    def tagged(self, tag: int) -> Self:
        """The same key under another number."""
        return replace(self, tag=tag)


def crypto_lines(lines: Iterable[str]) -> list[CryptoLine]:
    """Those of a section's attributes that can be used, in their order; of two with one tag the first."""
    found: dict[int, CryptoLine] = {}
    written = [line for line in lines if line.startswith("a=crypto:")]
    for line in written[:MAX_CRYPTO]:
        if (one := CryptoLine.read(line)) is not None:
            found.setdefault(one.tag, one)
    return list(found.values())
