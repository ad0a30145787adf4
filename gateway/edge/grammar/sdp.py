"""The little of SDP (RFC 8866) that the edge needs: an offer's codecs, what a line needs of it, our address.

A line gets one live audio section, and of it what it can use: of the 16 kB that a browser or a conference
system offers some 400 bytes are left.

`families` says whether a line's sound goes over IPv4, IPv6 or both ("IP4", "IP6"): which of them the gateway
is bound to. `rule` says whether it is encrypted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from gateway.config import bcg729
from gateway.edge.grammar.sdes import SrtpRule, crypto_lines

FOUR: Final = frozenset({"IP4"})
SIX: Final = frozenset({"IP6"})
MAX_SECTIONS: Final = 16
MAX_LINES: Final = 1_000
"""What is read in two milliseconds; 300 candidates and all that browsers know of video have 600."""
MAX_FORMATS: Final = 128
"""As many as RTP can tell apart."""
G711: Final = ("PCMU", "PCMA")
PLAIN: Final = frozenset({"RTP/AVP", "RTP/AVPF"})
ENCRYPTED: Final = frozenset({"RTP/SAVP", "RTP/SAVPF"})
"""SRTP whose keys stand beside (RFC 4568); those that DTLS makes have another name (RFC 5764 §8)."""
_MEDIA: Final = re.compile(
    r"m=(\S++)[ \t]++([0-9]{1,5}+)(?:/[0-9]++)?+[ \t]++(\S++)((?:[ \t]++\S++)*+)[ \t]*+"
)
_FORMAT: Final = re.compile(r"a=(rtpmap|fmtp|rtcp-fb):(\S++)[ \t]*+([^/\s]*+)/?+([0-9]*+)")
_STATIC: Final = {"0": "PCMU", "8": "PCMA", "9": "G722", "13": "CN", "18": "G729"}


def _ours() -> frozenset[str]:
    found = {"G729"} if bcg729.library() is not None else set()
    return frozenset({"PCMU", "PCMA", "G722", "OPUS"} | found)


_OURS: Final = _ours()
"""G.729 where this machine has it; what is not ours is no codec to a line."""
_BESIDE: Final = frozenset({"TELEPHONE-EVENT", "CN"})
"""Formats that a line may use beside a codec: keys, and noise for silence."""
_ORIGIN: Final = re.compile(r"o=\S++ [0-9]{1,18} [0-9]{1,18} IN IP[46] \S++")
_NEEDED: Final = frozenset(
    {"sendrecv", "sendonly", "recvonly", "inactive", "ptime", "maxptime", "rtcp", "rtcp-mux"}
)
"""Attributes beside those of its formats: ICE, encryption, bundles and the unknown say nothing to a line."""
_ADDRESS: Final = re.compile(
    rb"^(c=|o=\S+ \S+ \S+ |a=rtcp:\d+ )IN IP[46] (?!0\.0\.0\.0)([^\s/]+)", re.MULTILINE
)
_CRYPTO: Final = re.compile(rb"^a=crypto:[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """An `m=` line, the lines under it, and what its formats are called."""

    kind: str
    port: int
    proto: str
    address: str
    """What its `c=` says, or that of all sections."""
    formats: tuple[str, ...]
    names: dict[str, str]
    """In capitals, by format; only of those that run at 8 kHz, of Opus, and of keys at any rate."""
    lines: tuple[str, ...]

    @property
    def codecs(self) -> tuple[str, ...]:
        """Those that lines have too, in the caller's order, but G.729 last: all others sound better."""
        names = (self.names.get(one) for one in self.formats)
        ours = dict.fromkeys(name for name in names if name in _OURS)
        return tuple(sorted(ours, key=lambda name: name == "G729"))

    @property
    def family(self) -> str:
        """Of its address: "IP6" or "IP4"."""
        return "IP6" if self.address.upper().startswith("IN IP6") else "IP4"

    @property
    def live(self) -> bool:
        """Whether it is sound, and on."""
        return self.kind == "audio" and self.port > 0

    def spoken(self, rule: SrtpRule) -> bool:
        """Whether a line encrypts as is wanted here, or leaves it as is wanted."""
        if self.proto in PLAIN:
            return rule != "required" or bool(crypto_lines(self.lines))
        return self.proto in ENCRYPTED and rule != "off" and bool(crypto_lines(self.lines))

    def usable(self, families: Set[str], rule: SrtpRule) -> bool:
        """Whether a line can talk here."""
        return self.live and bool(self.codecs) and self.family in families and self.spoken(rule)


def offered_codecs(body: bytes, families: Set[str] = FOUR, rule: SrtpRule = "off") -> tuple[str, ...]:
    """Codecs of the first audio stream that a line can talk in, in the caller's order; empty: none.

    No offer (RFC 3261 §13.2.1: ours comes in the answer) counts as G.711, which every phone has.
    """
    if not body:
        return G711
    if _is_too_much(body):
        return ()
    _, sections = _read(body)
    return next((section.codecs for section in sections if section.usable(families, rule)), ())


def is_webrtc(body: bytes) -> bool:
    """Whether the keys of its sound come by DTLS (RFC 5764), as a browser's do (RFC 8827)."""
    if not body or _is_too_much(body):
        return False
    session, sections = _read(body)
    audio = next((one for one in sections if one.kind == "audio" and one.port > 0), None)
    if audio is None:
        return False
    by_dtls = any(line.startswith("a=fingerprint:") for line in (*session, *audio.lines))
    return "SAVP" in audio.proto and by_dtls


def offered_host(body: bytes, families: Set[str] = FOUR, rule: SrtpRule = "off") -> str:
    """The IP address at which the caller wants its sound; empty: it says none."""
    _, sections = ([], []) if _is_too_much(body) else _read(body)
    said = next((section.address for section in sections if section.usable(families, rule)), "")
    host = said.rpartition(" ")[2].partition("/")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


def why_none(body: bytes, families: Set[str] = FOUR, rule: SrtpRule = "off") -> str:
    """What keeps an offer without `offered_codecs` from being a call, in words for its sender."""
    if _is_too_much(body):
        return f"the offer has more than {MAX_SECTIONS} sections or {MAX_LINES} lines"
    _, sections = _read(body)
    audio = [section for section in sections if section.kind == "audio"]
    live = [section for section in audio if section.live]
    if not audio:
        return "the offer has no audio; PCMU, PCMA, G722 or opus, please"
    if not live:
        return "every audio section of the offer is off (port 0)"
    known = [section for section in live if section.codecs]
    if any(section.spoken(rule) for section in known):
        theirs, ours = ("IPv6", "IPv4") if "IP6" not in families else ("IPv4", "IPv6")
        return f"the offer's address is of {theirs}; this gateway has its sound over {ours} only"
    if any(section.spoken(rule) for section in live):
        return "none of the offered codecs is known here; PCMU, PCMA, G722 or opus, please"
    if any("TLS/" in section.proto.upper() for section in live):
        return "the offer is a browser's (DTLS-SRTP); RTP/SAVP with a=crypto or RTP/AVP, please"
    if any(section.proto in ENCRYPTED for section in live):
        if rule == "off":
            return "the offer is encrypted only (SRTP), for which SIP must come over TLS; or RTP/AVP, please"
        return "none of the offer's a=crypto has a suite and parameters that are known here"
    if any(section.proto in PLAIN for section in live):
        return "the sound must be encrypted here; RTP/SAVP with a=crypto, please"
    return f"the audio is offered over {live[0].proto[:20]}; RTP/AVP, please"


def lean(body: bytes, families: Set[str] = FOUR, rule: SrtpRule = "off") -> bytes:
    """A caller's description with what a line needs; as it is, when no line can use it.

    Its keys for SRTP stay, unless sound goes in the clear. All its sections stay, so that the answer has as
    many (RFC 3264 §6); but one they are off.
    """
    session, sections = ([], []) if _is_too_much(body) else _read(body)
    chosen = next((section for section in sections if section.usable(families, rule)), None)
    if chosen is None:
        return body
    lines = [*_identity(session), *(line for line in map(_address_only, session) if _is_needed(line))]
    for section in sections:
        if section is not chosen:
            lines.append(f"m={section.kind} 0 {section.proto} {section.formats[0] if section.formats else 0}")
            continue
        kept = [one for one in section.formats if section.names.get(one) in _OURS | _BESIDE]
        lines.append(f"m=audio {section.port} {section.proto} {' '.join(kept)}")
        for line in section.lines:
            of = _FORMAT.match(line)
            if of[2] in kept if of is not None and of[1] != "rtcp-fb" else _is_needed(line):
                lines.append(_address_only(line))
        if rule != "off":
            lines += map(str, crypto_lines(section.lines))
    return "".join(f"{line}\r\n" for line in lines).encode()


def _is_too_much(body: bytes) -> bool:
    return body.count(b"\n") > MAX_LINES or body.count(b"\nm=") > MAX_SECTIONS


def _read(body: bytes) -> tuple[list[str], list[Section]]:
    """The lines before the first section, and the sections."""
    text = body.decode(errors="replace")
    session: list[str] = []
    media: list[tuple[re.Match[str], list[str]]] = []
    under = session
    for line in filter(None, text.replace("\r\n", "\n").split("\n")):
        begun = _MEDIA.fullmatch(line) if line.startswith("m=") else None
        if begun is not None:
            under = []
            media.append((begun, under))
        else:
            under.append(line)
    address = _connection(session, "")
    return session, [_section(begun, lines, address) for begun, lines in media]


def _connection(lines: list[str], otherwise: str) -> str:
    return next((line[2:].strip() for line in lines if line.startswith("c=")), otherwise)


def _section(begun: re.Match[str], lines: list[str], address: str) -> Section:
    names = dict(_STATIC)
    for line in lines:
        of = _FORMAT.match(line) if line.startswith("a=rtpmap") else None
        if of is None:
            continue
        name, opus = of[3].upper(), (of[3].upper(), of[4]) == ("OPUS", "48000")
        if opus or name == "TELEPHONE-EVENT" or (of[4] == "8000" and name != "OPUS"):
            names[of[2]] = name
    return Section(
        kind=begun[1].lower(),
        port=int(begun[2]),
        proto=begun[3].upper() if begun[3].upper() in PLAIN | ENCRYPTED else begun[3],
        address=_connection(lines, address),
        formats=tuple(begun[4].split(None, MAX_FORMATS)[:MAX_FORMATS]),
        names=names,
        lines=tuple(lines),
    )


def _identity(session: list[str]) -> list[str]:
    """The three lines that each description begins with, whatever the caller began with."""
    origin = next((line for line in session if _ORIGIN.fullmatch(line)), "o=- 0 0 IN IP4 127.0.0.1")
    name = next((line for line in session if line.startswith("s=") and len(line) > 2), "s=-")
    return ["v=0", origin, name]


def _address_only(line: str) -> str:
    """Without what only a group of receivers needs."""
    return line.partition("/")[0] if line.startswith("c=") else line


def _is_needed(line: str) -> bool:
    if line.startswith("a="):
        return line[2:].partition(":")[0].strip() in _NEEDED
    return line.startswith(("c=", "t=")) and line[2:].strip() != ""


def without_keys(body: bytes) -> bytes:
    """A description without its keys for SRTP."""
    return _CRYPTO.sub(b"", body)


def at_address(body: bytes, address: str) -> bytes:
    """A line's SDP with our address, as this peer reaches us, in `c=`, `o=` and `a=rtcp`."""
    ours = f"IN {'IP6' if ':' in address else 'IP4'} {address}".encode()
    return _ADDRESS.sub(lambda match: match[1] + ours, body)
