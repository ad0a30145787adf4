"""The little of SDP (RFC 8866) that the edge needs: an offer's codecs, and our address in a line's."""

from __future__ import annotations

import re
from typing import Final

G711: Final = ("PCMU", "PCMA")
_AUDIO: Final = re.compile(r"^m=audio (\d+)(?:/\d+)? RTP/AVPF? ([\d ]+)", re.MULTILINE)
_RTPMAP: Final = re.compile(r"^a=rtpmap:(\d+) ([^/\s]+)/8000", re.MULTILINE)
_STATIC: Final = {"0": "PCMU", "8": "PCMA", "9": "G722"}
_OURS: Final = frozenset(_STATIC.values())
_ADDRESS: Final = re.compile(
    rb"^(c=IN IP4 |o=\S+ \S+ \S+ IN IP4 |a=rtcp:\d+ IN IP4 )(?!0\.0\.0\.0)([^\s/]+)", re.MULTILINE
)


def offered_codecs(body: bytes) -> tuple[str, ...]:
    """Codecs of the first audio stream that lines have too, in the caller's order; empty: none.

    No offer (RFC 3261 §13.2.1: ours comes in the answer) counts as G.711, which every phone has.
    """
    if not body:
        return G711
    text = body.decode(errors="replace").replace("\r\n", "\n")
    audio = _AUDIO.search(text)
    if audio is None or int(audio[1]) == 0:
        return ()
    names = {**_STATIC, **{number: name.upper() for number, name in _RTPMAP.findall(text)}}
    codecs = (names.get(number) for number in audio[2].split())
    return tuple(dict.fromkeys(codec for codec in codecs if codec in _OURS))


def at_address(body: bytes, address: str) -> bytes:
    """A line's SDP with our address, as this peer reaches us, in `c=`, `o=` and `a=rtcp`."""
    return _ADDRESS.sub(lambda match: match[1] + address.encode(), body)
