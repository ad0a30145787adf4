"""The little of SDP (RFC 8866) that the edge needs: which line an offer wants, and our address in answers."""

from __future__ import annotations

import re
from typing import Final

WIDE: Final = "wide"
NARROW: Final = "narrow"
_ADDRESS: Final = re.compile(rb"^(c=IN IP[46] |o=\S+ \S+ \S+ IN IP[46] )(\S+)", re.MULTILINE)
_RTPMAP: Final = re.compile(r"a=rtpmap:(\d+) ([^/\s]+)/8000", re.IGNORECASE)
STATIC: Final = {"0": "PCMU", "8": "PCMA", "9": "G722"}


def wanted_kind(body: bytes) -> str | None:
    """The kind of line for an offer: wide when G.722 comes before G.711, None when we share no codec.

    No offer (RFC 3261 §13.2.1) is a narrow call: every phone has G.711.
    """
    if not body:
        return NARROW
    text = body.decode(errors="replace")
    audio = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", text, re.MULTILINE)
    if audio is None or audio[1] == "0":
        return None
    names = {**STATIC, **{number: name.upper() for number, name in _RTPMAP.findall(text)}}
    for number in audio[2].split():
        match names.get(number):
            case "G722":
                return WIDE
            case "PCMU" | "PCMA":
                return NARROW
    return None


def has_codec(body: bytes, kind: str) -> bool:
    """Whether a line of that kind shares a codec with the offer: wide ones have all of ours."""
    if not body or kind == WIDE:
        return True
    audio = re.search(rb"^m=audio \d+ \S+ ([\d ]+)", body, re.MULTILINE)
    return audio is not None and bool({b"0", b"8"} & set(audio[1].split()))


def at_address(body: bytes, address: str) -> bytes:
    """A line's SDP with our address, as this peer reaches us, in `c=` and `o=`."""
    return _ADDRESS.sub(lambda match: match[1] + address.encode(), body)
