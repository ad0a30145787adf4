"""An address of SIP or of the telephone network: the parts that the edge needs; the rest stays as written.

A scan and not a grammar (RFC 3261 §19.1, RFC 3966): what telephones really write in a host or a user is wider
than what the RFC has, and narrower than what could be taken for something else.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

SIP: Final = ("sip", "sips")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+")
_FOREIGN: Final = re.compile(r'[\x00-\x20\x7f"<>]')
"""What would end the URI for somebody else who reads it."""
_HOST_PORT: Final = re.compile(r"(\[[^\[\]]*+\]|[A-Za-z0-9._-]++)(?::([0-9]{1,5}))?+")
"""Any letters, digits, `-` and `_` in each label: containers and Windows machines are named so."""
_NEEDS_SLASHES: Final = frozenset({"http", "https", "ws", "wss"})
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_PLAIN_IN_USER: Final = "-_.!~*'()&=+$,;?/#"
"""Beside letters and digits: what stands for itself before the `@` (RFC 3261 §25.1; `#` is of dial codes)."""
_PLAIN: Final = frozenset(_PLAIN_IN_USER + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class URI:
    """`str()` is the text that was read."""

    text: str
    scheme: str
    """In lower case."""
    user: str | None = None
    """As written, without a password; a telephone number with its parameters. None where there is none."""
    host: str = ""
    """With the brackets of an IPv6 address; empty in other schemes than SIP's."""
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises `ValueError`. A scheme that is neither SIP's nor `tel` is read no further."""
        scheme, colon, rest = text.partition(":")
        if not colon or not rest or _SCHEME.fullmatch(scheme) is None or _FOREIGN.search(rest) is not None:
            raise ValueError("that is not a URI")
        scheme = scheme.lower()
        if scheme == "tel":
            return cls(text, scheme, rest)
        if scheme not in SIP:
            if scheme in _NEEDS_SLASHES and not rest.startswith("//"):
                raise ValueError("its URI has no host")  # RFC 9110 §4.2
            return cls(text, scheme)
        before, at, place = rest.rpartition("@")
        user = before.partition(":")[0]
        place, _, parameters = place.partition(";")
        found = _HOST_PORT.fullmatch(place)
        if found is None or "@" in before or (at and not user):
            raise ValueError("its SIP URI has no user or host that can be read")
        if "?" in parameters:
            raise ValueError("its SIP URI has headers of its own")
        if parameters and not all(one.partition("=")[0] for one in parameters.removesuffix(";").split(";")):
            raise ValueError("its SIP URI has a parameter without a name")
        host, port = ipv6_or_name(found[1]), int(found[2]) if found[2] else None
        if port is not None and port > 65_535:
            raise ValueError("its SIP URI has a port that no machine has")
        return cls(text, scheme, user if at else None, host, port)

    @property
    def plain(self) -> str:
        """In one way of writing: the scheme in small letters, the user without password or idle escapes."""
        rest = self.text.partition(":")[2]
        if self.scheme == "tel":
            return f"tel:{_unescaped(rest)}"
        if self.scheme not in SIP:
            return f"{self.scheme}:{rest}"
        user, at, place = rest.rpartition("@")
        return f"{self.scheme}:{_unescaped(user.partition(':')[0])}{at}{place.rstrip(';')}"

    def __str__(self) -> str:
        return self.text


def ipv6_or_name(host: str) -> str:
    """A host as it came, its zone too. Raises `ValueError` for brackets around anything else."""
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1].partition("%")[0])
        except ValueError:
            raise ValueError("an IPv6 address cannot be read") from None
    return host


def _unescaped(user: str) -> str:
    def plain(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _PLAIN else found[0].upper()

    return quote(_ESCAPED.sub(plain, user), safe=_PLAIN_IN_USER + "%")
