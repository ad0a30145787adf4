"""A SIP message as people may see it: without passwords, keys, signed words, and what is nobody's business.

What is shown is listed here; all else is told by its length alone. So a secret does not pass because
somebody spells its header in a new way, and a header that nobody has thought of shows nothing. The message is
scanned by the edge's own reader (`message.scan`): what that cannot read is told by its length, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from gateway.edge.grammar.header import BLANK, TOKEN
from gateway.edge.grammar.message import Unreadable, scan
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import PARAM

MAX_TEXT: Final = 4096
"""Characters of a message."""
MAX_VALUE: Final = 400
"""Characters of one header's line, or of one line of a description."""
MOST_READ: Final = 1600
"""Characters of a line that are looked through; of a longer one only its length is told."""
MAX_FIRST: Final = 200
MAX_LINES: Final = 300
"""Lines of a description that are shown."""
GONE: Final = "(blanked)"
MORE: Final = "(more was left out)"
MOST_ADDRESSES: Final = 24
"""Addresses of one header line that are shown."""

ADDRESSES: Final = frozenset(
    {"from", "to", "contact", "route", "record-route", "refer-to", "referred-by", "p-asserted-identity",
     "p-preferred-identity", "remote-party-id", "diversion"}
)  # fmt: skip
"""Headers with URIs, which may hold a password, headers of their own, or our signed word."""
PLAIN: Final = frozenset(
    {"via", "call-id", "cseq", "max-forwards", "content-type", "content-length", "content-disposition",
     "allow", "supported", "require", "proxy-require", "unsupported", "user-agent", "server", "date",
     "expires",
     "min-expires", "session-expires", "min-se", "reason", "retry-after", "warning", "event",
     "subscription-state", "rack", "rseq", "accept", "allow-events", "info-package", "recv-info", "timestamp",
     "privacy", "p-early-media", "priority"}
)  # fmt: skip
CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization"})
CHALLENGES: Final = frozenset({"www-authenticate", "proxy-authenticate"})
_SAID: Final = {
    "credentials": ("username", "realm", "algorithm", "qop", "nc"),
    "challenge": ("realm", "algorithm", "qop", "stale"),
}
"""Parameters of digest that say who logs in, and how; the others are blanked."""
LINES: Final = frozenset("vosctbm")
"""Kinds of a description's lines; `k=` is a key."""
ATTRIBUTES: Final = frozenset(
    {"rtpmap", "fmtp", "ptime", "maxptime", "sendrecv", "sendonly", "recvonly", "inactive", "rtcp",
     "rtcp-mux", "rtcp-mux-only", "rtcp-rsize",
     "rtcp-fb", "rtcp-xr", "setup", "connection", "fingerprint", "ice-ufrag",
     "ice-options", "ice-lite", "candidate", "end-of-candidates", "mid", "group", "bundle-only", "msid",
     "msid-semantic", "ssrc", "extmap", "extmap-allow-mixed", "label", "content", "lang", "direction",
     "silenceSupp", "nortpproxy", "curr", "des", "conf"}
)  # fmt: skip
"""Attributes of a description; `crypto`, `key-mgmt`, `ice-pwd` and `identity` hold keys."""
_BREAKS: Final = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029\0]+")
"""Whatever a reader could take for the end of a line."""
_CRYPTO: Final = re.compile(r"a=crypto:[0-9]{1,9} (?:AEAD_|AES_|F8_|SEED_|ARIA_)[A-Z0-9_]{1,32}(?= )")
SHORTEST_WORD: Final = 64
"""Our signed word has 70 characters at least; nothing that people read has so many in one piece."""
_LONG: Final = re.compile(rf"(?<![A-Za-z0-9_%+/=~-])[A-Za-z0-9_%+/=~-]{{{SHORTEST_WORD},}}+")
_WORD: Final = re.compile(rf"\b{PARAM}[ \t]*+=[ \t]*+[^\s;,<>\"]*+", re.IGNORECASE)
_INLINE: Final = re.compile(r"inline[ \t]*+:[ \t]*+\S*+", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"([<>])")
_BEFORE_PASSWORD: Final = re.compile(r"([^:]*+:(?:(?!%3a)[^:])*+)(?::|%3a)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([A-Za-z-]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^\s,"]++)')
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")
_METHOD: Final = re.compile(rb"[A-Z]{3,12}(?= )")
_KIND: Final = re.compile(r"[a-z0-9+.-]{1,40}/[a-z0-9+.-]{1,60}")
_STATUS: Final = re.compile(rb"SIP/2\.0 [1-6][0-9][0-9](?= )")


@dataclass(frozen=True, slots=True)
class Blanked:
    """A message's first line, and all of it: lines end with a line feed."""

    first: str
    text: str


def blanked(data: bytes) -> Blanked:
    """What may be shown of a message as it came or went."""
    try:
        message = scan(data)
    except Unreadable:
        start = data.lstrip(b"\r\n")
        found = _METHOD.match(start) or _STATUS.match(start)
        what = f"{found[0].decode()}, " if found else ""
        first = f"{what}{len(data)} bytes that cannot be read"
        return Blanked(first, first)
    first = _first(message)
    return Blanked(first, _fitting(chain((first,), _headers(message), ("",), _body(message))))


def blanked_description(description: str, first: str) -> Blanked:
    """A session description, or a fragment of one (RFC 8840), that came by HTTP; `first` is ours."""
    return Blanked(first, _fitting(chain((first, ""), _described(description))))


def _first(message: Request | Response) -> str:
    if isinstance(message, Request):
        return f"{message.method[:40]} {_address(str(message.uri))} SIP/2.0"[:MAX_FIRST]
    return _shown(f"SIP/2.0 {message.code} {message.phrase}")[:MAX_FIRST]


def _headers(message: Request | Response) -> Iterator[str]:
    for name in message.headers.keys():  # noqa: SIM118 - not a dict
        key = name.lower()
        for value in message.headers.getlist(name):
            if key in PLAIN:
                yield f"{name}: {_shown(value)}"
            elif key in ADDRESSES:
                yield f"{name}: {_address(value)}"
            elif key in CREDENTIALS:
                yield f"{name}: {_digest(value, 'credentials')}"
            elif key in CHALLENGES:
                yield f"{name}: {_digest(value, 'challenge')}"
            else:
                named = name if len(name) <= 40 and TOKEN.fullmatch(name) else "(a header)"
                yield f"{named}: ({len(value)} characters)"


def _body(message: Request | Response) -> Iterator[str]:
    lengths, kinds = message.headers.getlist("Content-Length"), message.headers.getlist("Content-Type")
    length = lengths[0] if len(lengths) == 1 else ""
    body = message.body[: int(length)] if length.isdecimal() and len(length) < 6 else message.body
    if not body:
        return
    said = kinds[0].partition(";")[0].strip(BLANK).lower() if len(kinds) == 1 else ""
    kind = said if _KIND.fullmatch(said) else "an unknown kind"
    if kind == SDP:
        yield from _described(body.decode(errors="replace"))
        return
    yield f"({len(body)} bytes of {kind})"
    if kind == "message/sipfrag" and (found := _STATUS.match(body)):
        yield found[0].decode()
    elif kind.startswith("multipart/") and (session := session_part(message)):
        yield f"(the {SDP} in it:)"
        yield from _described(session.decode(errors="replace"))


def _described(text: str) -> Iterator[str]:
    """Line by line, until there is more than anybody is shown."""
    for line in _BREAKS.split(text, maxsplit=MAX_LINES)[:MAX_LINES]:
        kind, equal, value = line.partition("=")
        name = value.partition(":")[0]
        if equal and (kind in LINES or (kind == "a" and name in ATTRIBUTES)) and len(kind) == 1:
            yield _shown(line)
        elif found := _CRYPTO.match(line):
            yield f"{found[0]} {GONE}"
        elif equal and kind == "a" and len(name) <= 40 and TOKEN.fullmatch(name):
            yield f"a={name}{f':({len(value) - len(name) - 1} characters)' if ':' in value else ''}"
        elif line:
            yield f"({len(line)} characters)"


def _address(value: str) -> str:
    """A value with URIs: none of their passwords, and none of the headers that stand behind their `?`."""
    before = value.rpartition("@")[0]
    if value.count("<") > MOST_ADDRESSES:
        return f"({len(value)} characters)"
    if len(value) <= MOST_READ and ("?" in value or "%" in before or before.count(":") > 1):
        bare = "<" not in value
        pieces = _BRACKETS.split(value)
        within = False
        for at, piece in enumerate(pieces):
            within = piece == "<" or (within and piece != ">")
            if within or bare:
                piece = _without_headers(piece)
            pieces[at] = _without_password(piece)
        value = "".join(pieces)
    return _shown(value)


def _without_headers(piece: str) -> str:
    before, asked, _ = piece.partition("?")
    return f"{before}?{GONE}" if asked else before


def _without_password(piece: str) -> str:
    before, at, place = piece.rpartition("@")
    found = _BEFORE_PASSWORD.match(before)
    return piece if found is None else f"{found[1]}:{GONE}{at}{place}"


def _digest(value: str, kind: str) -> str:
    scheme = value.partition(" ")[0]
    if scheme.lower() != "digest":
        return f"({len(value)} characters)"
    said: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value[:MOST_READ]):
        bare = text.strip('"')
        if name.lower() in _SAID[kind] and _HARMLESS.fullmatch(bare):
            said.setdefault(name.lower(), f'{name.lower()}="{bare}"')
    return f"Digest {', '.join([*said.values(), GONE])}"


def _shown(text: str) -> str:
    """One line, printable, without what looks like a key."""
    if len(text) > MOST_READ:  # cut anywhere, a key would be two pieces that do not look like one
        return f"({len(text)} characters)"
    low = text.lower()
    if "inline" in low:
        text = _INLINE.sub(f"inline:{GONE}", text)
    if PARAM in low:
        text = _WORD.sub(f"{PARAM}={GONE}", text)
    if len(text) >= SHORTEST_WORD:
        text = _LONG.sub(GONE, text)
    if len(text) > MAX_VALUE:
        text = f"{text[:MAX_VALUE]} …"
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _fitting(lines: Iterable[str]) -> str:
    """As many as there is room for; nobody looks at the others."""
    fitting: list[str] = []
    room = MAX_TEXT - len(MORE) - 1
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            fitting.append(MORE)
            break
        fitting.append(line)
    return "\n".join(fitting)
