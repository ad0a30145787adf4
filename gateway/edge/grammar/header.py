"""The values of SIP headers: split outside quotes and brackets, and those read that the edge needs.

Everything here is linear in its text, whatever that is: each pattern gives nothing back that it has taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from gateway.edge.grammar.uri import URI, ipv6_or_name

BLANK: Final = " \t"
_QUOTED: Final = r'"(?:[^"\\]++|\\.)*+"'
_PIECE: Final = {
    mark: re.compile(rf'(?:[^"<{mark}]++|{_QUOTED}|<[^<>]*+>)*+', re.DOTALL) for mark in (",", ";")
}
_NAME_ADDR: Final = re.compile(rf'((?:[^"<>]++|{_QUOTED})*+)<([^<>]*+)>[ \t]*+', re.DOTALL)
_WHOLLY_QUOTED: Final = re.compile(_QUOTED, re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NEVER_BARE: Final = re.compile(r'[\s"<>,?]')
"""In a URI without brackets these end it, or make it another one (RFC 3261 §20.10)."""
TOKEN: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]++")
_PARAMETER: Final = re.compile(r'[^\s"<>]++')
_ONCE: Final = frozenset({"tag", "branch"})
"""Parameters by which others know a dialog or a transaction: of two, each might believe another one."""
_VIA: Final = re.compile(
    r"SIP[ \t]*+/[ \t]*+2\.0[ \t]*+/[ \t]*+([A-Za-z0-9.!%*_+`'~-]++)[ \t]++"
    r"(\[[^\[\]]*+\]|[A-Za-z0-9._-]++)[ \t]*+(?::[ \t]*+([0-9]{1,5})[ \t]*+)?+(?=;|\Z)",
    re.IGNORECASE,
)
_CSEQ: Final = re.compile(r"([0-9]{1,10})[ \t]++(\S++)")

Parameters = Mapping[str, str | None]
"""By name in small letters; None: it has no value."""


def split(text: str, mark: str) -> list[str]:
    """The pieces between the marks ("," or ";") outside quotes and brackets, without blanks around them.

    Raises `ValueError` for a quote or a bracket that is never closed.
    """
    if '"' not in text and "<" not in text:
        return [piece.strip(BLANK) for piece in text.split(mark)]
    pieces, at, pattern = [], 0, _PIECE[mark]
    while True:
        found = pattern.match(text, at)
        end = at if found is None else found.end()
        pieces.append(text[at:end].strip(BLANK))
        if end == len(text):
            return pieces
        if text[end] != mark:
            raise ValueError("a quote or a bracket is not closed")
        at = end + 1


def parameters(text: str) -> dict[str, str | None]:
    """What stands behind a value, from its first `;` on; one `;` too many at the end is nothing.

    Raises `ValueError`.
    """
    if not text.strip(BLANK):
        return {}
    first, *pieces = split(text, ";")
    if first or not pieces:
        raise ValueError("something stands between a value and its parameters")
    if not pieces[-1]:
        pieces.pop()
    found: dict[str, str | None] = {}
    for piece in pieces:
        name, equal, value = piece.partition("=")
        name = name.rstrip(BLANK).lower()
        if _PARAMETER.fullmatch(name) is None:
            raise ValueError("a parameter has no name")
        if name in found and name in _ONCE:
            raise ValueError(f"there are two of the parameter {name}")
        found[name] = value.lstrip(BLANK) if equal else None
    return found


@dataclass(frozen=True, slots=True)
class Address:
    """What stands in From, To and Contact."""

    uri: URI
    name: str = ""
    """As it is to be shown: without quotes, escapes and control characters."""
    parameters: Parameters = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Self:
        """One address. Raises `ValueError`.

        Before a bracket anything may stand, also what the grammar wants in quotes: no reader can take it for
        something else.
        """
        found = _NAME_ADDR.match(text)
        if found is not None:
            return cls(
                URI.read(found[2]),
                _CONTROL.sub("", unquoted(found[1].strip(BLANK))),
                parameters(text[found.end() :]),
            )
        uri, semicolon, rest = text.partition(";")
        uri = uri.strip(BLANK)
        if _NEVER_BARE.search(uri) is not None:
            raise ValueError("an address needs its brackets, or does not close them")
        return cls(URI.read(uri), "", parameters(semicolon + rest))


def addresses(values: Iterable[str]) -> list[Address]:
    """All addresses of a header that may have many. Raises `ValueError`.

    A piece without a colon is not an address, but what stands before a comma in the next one's name.
    """
    found: list[Address] = []
    for value in values:
        begun = ""
        for piece in split(value, ","):
            begun = f"{begun}, {piece}" if begun else piece
            if piece == "*":
                raise ValueError("* names nobody")
            if ":" in begun:
                found.append(Address.read(begun))
                begun = ""
            elif not piece:
                raise ValueError("an address is missing")
        if begun:
            raise ValueError("that is not an address")
    return found


def unquoted(text: str) -> str:
    """A quoted string's text; what is not in quotes, as it is."""
    return text if _WHOLLY_QUOTED.fullmatch(text) is None else _ESCAPED.sub(r"\1", text[1:-1])


def quoted(text: str, longest: int = 200) -> str:
    """A quoted string with this text (RFC 3261 §25.1): what would end it is escaped, what no header may hold
    is a blank, and it is no longer than `longest` characters of text."""
    said = "".join(c if c.isprintable() else " " for c in text[:longest])
    return '"' + said.replace("\\", "\\\\").replace('"', '\\"') + '"'


def reason(status: int, text: str) -> str:
    """The value of a `Reason` that gives a SIP status (RFC 3326)."""
    return f"SIP;cause={status};text={quoted(text)}"


def reason_text(value: str) -> str | None:
    """What the first of a `Reason`'s values says in words; None when it says nothing that can be read."""
    try:
        _, semicolon, rest = split(value, ",")[0].partition(";")
        text = parameters(semicolon + rest).get("text")
    except ValueError:
        return None
    return None if text is None else unquoted(text)


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of a message (RFC 3261 §20.42)."""

    transport: str
    """In capitals."""
    host: str
    """With the brackets of an IPv6 address."""
    port: int | None = None
    parameters: Parameters = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Self:
        """One Via. Raises `ValueError`."""
        found = _VIA.match(text)
        if found is None:
            raise ValueError("its Via cannot be read")
        port = int(found[3]) if found[3] else None
        if port is not None and port > 65_535:
            raise ValueError("its Via has a port that no machine has")
        return cls(found[1].upper(), ipv6_or_name(found[2]), port, parameters(text[found.end() :]))

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        tail = "".join(f";{name}" if v is None else f";{name}={v}" for name, v in self.parameters.items())
        return f"SIP/2.0/{self.transport} {self.host}{port}{tail}"


@dataclass(frozen=True, slots=True)
class CSeq:
    """Number and method of a request, of its answers too."""

    sequence: int
    method: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises `ValueError`."""
        found = _CSEQ.fullmatch(text)
        if found is None or TOKEN.fullmatch(found[2]) is None:
            raise ValueError("its CSeq cannot be read")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.sequence} {self.method}"


def number(text: str) -> int:
    """A count of at most ten digits. Raises `ValueError`."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise ValueError("a number cannot be read")
    return int(text)
