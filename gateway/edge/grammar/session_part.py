"""The session description in a message's body: all of it, or one part of several (RFC 5621 §3.1).

Trunks send the telephone network's signalling beside it, emergency calls the caller's place. The standard
library's reader of mail would do, but 32 kB of boundaries keep it busy for a tenth of a second.
"""

from __future__ import annotations

import binascii
import quopri
import re
from typing import Final

from gateway.edge.grammar.header import parameters, unquoted
from gateway.edge.grammar.sip_message import SipMessage

SDP: Final = "application/sdp"
MAX_PARTS: Final = 16
MAX_BOUNDARY: Final = 70
"""Characters (RFC 2046 §5.1.1)."""
MAX_DEPTH: Final = 3
_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_FOLD: Final = re.compile(r"\r?\n[ \t]+")


def session_part(message: SipMessage) -> bytes | None:
    """None when there is none, or beside it something that the sender wants understood or refused."""
    return _found(message.headers.get("Content-Type") or "", message.body, 0)


def _found(kind: str, body: bytes, depth: int) -> bytes | None:
    main, semicolon, rest = kind.partition(";")
    main = main.strip().lower()
    if main == SDP:
        return body
    if not main.startswith("multipart/") or depth >= MAX_DEPTH:
        return None
    try:
        boundary = unquoted(parameters(semicolon + rest).get("boundary") or "")
    except ValueError:
        return None
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        return None
    session: bytes | None = None
    for part in _parts(boundary, body):
        headers, content = _split(part)
        inner = _found(headers.get("content-type", "text/plain"), content, depth + 1)
        if inner is None:
            if _must_be_understood(headers):
                return None
        elif session is None:
            session = _decoded(headers, inner)
    return session or None


def _parts(boundary: str, body: bytes) -> list[bytes]:
    """What stands between boundaries; nothing when there are too many."""
    delimiter = re.compile(rb"(?:^|\r?\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    found: list[bytes] = []
    begun: int | None = None
    for mark in delimiter.finditer(body):
        if begun is not None:
            found.append(body[begun : mark.start()])
        if mark[1] or len(found) > MAX_PARTS:
            break
        begun = mark.end()
    return found if len(found) <= MAX_PARTS else []


def _split(part: bytes) -> tuple[dict[str, str], bytes]:
    """(headers by name in small letters, content); `part` begins with the end of its boundary's line."""
    end = _HEAD.search(part)
    head = part if end is None else part[: end.start()]
    lines = _FOLD.sub(" ", head.decode(errors="replace")).splitlines()
    fields = (line.partition(":") for line in lines)
    return (
        {name.strip().lower(): value.strip() for name, colon, value in fields if colon},
        b"" if end is None else part[end.end() :],
    )


def _must_be_understood(headers: dict[str, str]) -> bool:
    """Silence means "required" too (RFC 3261 §20.11), but not to those who are silent."""
    said = headers.get("content-disposition", "").lower().replace(" ", "")
    return ";handling=required" in said


def _decoded(headers: dict[str, str], content: bytes) -> bytes | None:
    coding = headers.get("content-transfer-encoding", "binary").lower()
    if coding == "base64":
        try:
            return binascii.a2b_base64(content)
        except binascii.Error:
            return None
    return quopri.decodestring(content) if coding == "quoted-printable" else content
