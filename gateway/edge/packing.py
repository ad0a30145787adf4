"""How a caller wants sound packed: the length of packets (`a=ptime`, `a=maxptime`) and comfort noise.

pjsua2 keeps to a peer's `ptime`, but knows no `maxptime`, sends nothing at all for a `ptime` that does not
fit into a packet, and says neither `ptime` nor comfort noise (RFC 3389) in its answers. A line takes comfort
noise well: as silence. So the edge writes what is missing, in SDP that is passed on as it is otherwise.
"""

from __future__ import annotations

import re
from typing import Final

STEP_MS: Final = 10
"""What pjmedia's codecs make at once."""
USUAL_MS: Final = 20
LONGEST_MS: Final = 120
"""G.711 or G.722 that fits into 1,500 bytes with the headers and an authentication tag."""
NOISE: Final = b"13"
"""The payload type of comfort noise at 8 kHz (RFC 3551 §6)."""

_SECTION: Final = re.compile(rb"^m=.*?(?=^m=|\Z)", re.MULTILINE | re.DOTALL)
_LIVE_AUDIO: Final = re.compile(rb"m=audio +(?!0[ /])\d+(?:/\d+)? +\S+((?: +\d+)+)")
_PTIME: Final = re.compile(rb"^a=ptime:[ \t]*(\d{1,9})(?:\.\d+)?[ \t]*\r?\n", re.MULTILINE | re.IGNORECASE)
_MAXPTIME: Final = re.compile(
    rb"^a=maxptime:[ \t]*(\d{1,9})(?:\.\d+)?[ \t]*\r?$", re.MULTILINE | re.IGNORECASE
)
_ANY_PTIME: Final = re.compile(rb"^a=ptime:.*?(?:\n|\Z)", re.MULTILINE | re.IGNORECASE)
_NOISE_MAP: Final = re.compile(rb"^a=rtpmap:[ \t]*(\d+) +CN/8000\b", re.MULTILINE | re.IGNORECASE)


def packet_ms(section: bytes) -> int:
    """How long packets may be that we send for an audio section of SDP; 0: it does not say."""
    asked, most = _PTIME.search(section), _MAXPTIME.search(section)
    if asked is None and most is None:
        return 0
    wanted = int(asked[1]) if asked is not None else USUAL_MS
    longest = min(LONGEST_MS, int(most[1])) if most is not None and int(most[1]) else LONGEST_MS
    return max(STEP_MS, min(wanted or USUAL_MS, longest) // STEP_MS * STEP_MS)


def for_line(sdp: bytes) -> bytes:
    """A caller's SDP whose audio has one `a=ptime`, which a line can keep to; as it is if it asks nothing."""

    def rewritten(section: re.Match[bytes]) -> bytes:
        text = section[0]
        asks = _ANY_PTIME.search(text) or _MAXPTIME.search(text)
        if not text.startswith(b"m=audio") or not asks:
            return text
        length = packet_ms(text) or USUAL_MS
        return _with_line(_ANY_PTIME.sub(b"", text), b"a=ptime:%d" % length)

    return _SECTION.sub(rewritten, sdp)


def for_caller(offer: bytes, answer: bytes) -> bytes:
    """A line's answer that also says how long its packets are, and that comfort noise is taken, where the
    caller's offer spoke of either. Sections are matched by their order (RFC 3264 §6)."""
    offered = iter(_SECTION.findall(offer))

    def rewritten(section: re.Match[bytes]) -> bytes:
        text, asked = section[0], next(offered, b"")
        live = _LIVE_AUDIO.match(text)
        theirs = _LIVE_AUDIO.match(asked)
        if live is None or theirs is None:
            return text
        if (length := packet_ms(asked)) and _ANY_PTIME.search(text) is None:
            text = _with_line(text, b"a=ptime:%d" % length)
        noise = _noise_of(asked, theirs[1].split())
        if noise is None or noise in live[1].split():
            return text
        text = text[: live.end()] + b" " + noise + text[live.end() :]
        return _with_line(text, b"a=rtpmap:%s CN/8000" % noise)

    return _SECTION.sub(rewritten, answer)


def _noise_of(section: bytes, kinds: list[bytes]) -> bytes | None:
    """The payload type on which a section offers comfort noise."""
    mapped: list[bytes] = _NOISE_MAP.findall(section)
    return next((kind for kind in (*mapped, NOISE) if kind in kinds), None)


def _with_line(section: bytes, line: bytes) -> bytes:
    """A section of SDP with one line more."""
    end = b"\r\n" if b"\r\n" in section or b"\n" not in section else b"\n"
    body = section if section.endswith(b"\n") else section + end
    return body + line + end
