"""The little of SDP (RFC 8866) that the edge needs: an offer's codecs, what a line needs of it, our address.

A line gets one live audio section, and of it what it can use: pjsua2 reads no INVITE over 4,000 bytes and no
more than 32 formats, and drops an offer whose dynamic formats are not all named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_SECTIONS: Final = 16
"""What pjsua2 has places for."""
G711: Final = ("PCMU", "PCMA")
PLAIN: Final = frozenset({"RTP/AVP", "RTP/AVPF"})
_MEDIA: Final = re.compile(
    r"m=(\S++)[ \t]++([0-9]{1,5}+)(?:/[0-9]++)?+[ \t]++(\S++)((?:[ \t]++\S++)*+)[ \t]*+"
)
_FORMAT: Final = re.compile(r"a=(rtpmap|fmtp|rtcp-fb):(\S++)[ \t]*+([^/\s]*+)/?+([0-9]*+)")
_STATIC: Final = {"0": "PCMU", "8": "PCMA", "9": "G722", "13": "CN"}
_OURS: Final = frozenset({"PCMU", "PCMA", "G722"})
_BESIDE: Final = frozenset({"TELEPHONE-EVENT", "CN"})
"""Formats that a line may use beside a codec: keys, and noise for silence."""
_IDLE_LINES: Final = ("i=", "u=", "e=", "p=", "k=", "b=", "z=", "r=")
_IDLE: Final = frozenset(
    {"acap", "bundle-only", "candidate", "cfg", "connection", "crypto", "dtls-id", "end-of-candidates",
     "extmap", "extmap-allow-mixed", "fingerprint", "group", "ice-lite", "ice-mismatch", "ice-options",
     "ice-pacing", "ice-pwd", "ice-ufrag", "identity", "imageattr", "key-mgmt", "mid", "msid",
     "msid-semantic", "pcfg", "remote-candidates", "rid", "rtcp-fb", "rtcp-mux", "rtcp-mux-only",
     "rtcp-rsize", "setup", "simulcast", "ssrc", "ssrc-group", "tcap", "tls-id"}
)  # fmt: skip
"""Attributes of ICE, encryption, bundles, video and capabilities: a line has none of these."""
_ADDRESS: Final = re.compile(
    rb"^(c=IN IP4 |o=\S+ \S+ \S+ IN IP4 |a=rtcp:\d+ IN IP4 )(?!0\.0\.0\.0)([^\s/]+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Section:
    """An `m=` line, the lines under it, and what its formats are called."""

    kind: str
    port: int
    proto: str
    formats: tuple[str, ...]
    names: dict[str, str]
    """In capitals, by format; only of those that run at 8 kHz, and of keys at any rate."""
    lines: tuple[str, ...]

    @property
    def codecs(self) -> tuple[str, ...]:
        """Those that lines have too, in the caller's order."""
        names = (self.names.get(one) for one in self.formats)
        return tuple(dict.fromkeys(name for name in names if name in _OURS))

    @property
    def usable(self) -> bool:
        """Whether a line can talk here."""
        return self.kind == "audio" and self.port > 0 and self.proto in PLAIN and bool(self.codecs)


def offered_codecs(body: bytes) -> tuple[str, ...]:
    """Codecs of the first audio stream that a line can talk in, in the caller's order; empty: none.

    No offer (RFC 3261 §13.2.1: ours comes in the answer) counts as G.711, which every phone has.
    """
    if not body:
        return G711
    _, sections = _read(body)
    if len(sections) > MAX_SECTIONS:
        return ()
    return next((section.codecs for section in sections if section.usable), ())


def why_none(body: bytes) -> str:
    """What keeps an offer without `offered_codecs` from being a call, in words for its sender."""
    _, sections = _read(body)
    if len(sections) > MAX_SECTIONS:
        return f"the offer has more than {MAX_SECTIONS} sections, and no line has places for so many"
    audio = [section for section in sections if section.kind == "audio"]
    live = [section for section in audio if section.port > 0]
    if not audio:
        return "the offer has no audio; PCMU, PCMA or G722, please"
    if not live:
        return "every audio section of the offer is off (port 0)"
    if any(section.proto in PLAIN for section in live):
        return "none of the offered codecs is known here; PCMU, PCMA or G722, please"
    if any("SAVP" in section.proto for section in live):
        return "the offer is encrypted only (SRTP); a section of plain RTP/AVP is needed"
    return f"the audio is offered over {live[0].proto[:20]}; RTP/AVP, please"


def lean(body: bytes) -> bytes:
    """A caller's description with what a line needs; as it is, when no line can use it.

    All its sections stay, so that the answer has as many (RFC 3264 §6); but one they are off.
    """
    session, sections = _read(body)
    chosen = next((section for section in sections if section.usable), None)
    if chosen is None:
        return body
    lines = [line for line in session if _is_needed(line)]
    for section in sections:
        if section is not chosen:
            lines.append(f"m={section.kind} 0 {section.proto} {section.formats[0] if section.formats else 0}")
            continue
        kept = [one for one in section.formats if section.names.get(one) in _OURS | _BESIDE]
        lines.append(f"m=audio {section.port} {section.proto} {' '.join(kept)}")
        for line in section.lines:
            of = _FORMAT.match(line)
            if of[2] in kept if of is not None and of[1] != "rtcp-fb" else _is_needed(line):
                lines.append(line)
    return "".join(f"{line}\r\n" for line in lines).encode()


def _read(body: bytes) -> tuple[list[str], list[Section]]:
    """The lines before the first section, and the sections."""
    text = body.decode(errors="replace")
    session: list[str] = []
    media: list[tuple[re.Match[str], list[str]]] = []
    under = session
    for line in filter(None, text.replace("\r\n", "\n").split("\n")):
        begun = _MEDIA.fullmatch(line)
        if begun is not None:
            under = []
            media.append((begun, under))
        else:
            under.append(line)
    return session, [_section(begun, lines) for begun, lines in media]


def _section(begun: re.Match[str], lines: list[str]) -> Section:
    names = dict(_STATIC)
    for line in lines:
        of = _FORMAT.match(line)
        if of is not None and of[1] == "rtpmap" and (of[4] == "8000" or of[3].upper() == "TELEPHONE-EVENT"):
            names[of[2]] = of[3].upper()
    return Section(begun[1], int(begun[2]), begun[3], tuple(begun[4].split()), names, tuple(lines))


def _is_needed(line: str) -> bool:
    if not line.startswith("a="):
        return not line.startswith(_IDLE_LINES)
    return line[2:].partition(":")[0].strip() not in _IDLE


def at_address(body: bytes, address: str) -> bytes:
    """A line's SDP with our address, as this peer reaches us, in `c=`, `o=` and `a=rtcp`."""
    return _ADDRESS.sub(lambda match: match[1] + address.encode(), body)
