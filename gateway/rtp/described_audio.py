"""What the other side says of its sound (RFC 8866): the audio section that we can use, read.

The edge has made a description lean by then: one live audio section at most that a line can use, and the
others off (`gateway.edge.grammar.sdp`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.edge.grammar.sdes import CryptoLine, SrtpRule, crypto_lines
from gateway.edge.grammar.sdp import ENCRYPTED, PLAIN
from gateway.errors import VoicegateError

CodecName = Literal["PCMU", "PCMA", "G722", "OPUS", "G729"]
Address = tuple[str, int]

CLOCKS_HZ: Final[Mapping[str, int]] = {
    "PCMU": 8_000, "PCMA": 8_000, "G722": 8_000, "OPUS": 48_000, "G729": 8_000,
}  # fmt: skip
"""Of their RTP timestamps (RFC 3551 §4.5.2, RFC 7587 §4.1)."""
NOISE: Final = 13
"""The payload type of comfort noise (RFC 3389)."""
STATIC: Final[Mapping[int, CodecName]] = {0: "PCMU", 8: "PCMA", 9: "G722", 18: "G729"}
"""Payload types that have the same meaning everywhere (RFC 3551 §6)."""
OPUS_BITRATE: Final = 40_000
"""Of ours at 16 kHz. More of it is not heard, and with less the mark is weaker."""
OPUS_LEAST: Final = 6_000
"""Less than this nobody asks in earnest (RFC 7587 §6.1)."""
USUAL_MS: Final = 20
STEP_MS: Final = 10
LONGEST_MS: Final = 120
"""Of a packet of ours; G.711 of this length fits into 1,500 bytes."""
_MEDIA: Final = re.compile(r"m=(\S+) +(\d+)(?:/\d+)? +(\S+)((?: +\S+)*) *")
_MAP: Final = re.compile(r"a=rtpmap:(\d+) +([^/\s]+)/(\d+)")
_PARAMETERS: Final = re.compile(r"a=fmtp:(\d+) +(.*)")
_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")


class NoAgreement(VoicegateError):
    """The other side's description leaves nothing to talk in; the text says what is missing (488)."""


@dataclass(frozen=True, slots=True)
class OpusWishes:
    """What the other side's `a=fmtp` asks of our Opus (RFC 7587 §6.1)."""

    fec: bool = False
    """it can use the copy of a lost packet in the next one"""
    bitrate: int = OPUS_BITRATE
    """bits a second at most"""


@dataclass(frozen=True, slots=True)
class Described:
    """The other side's audio section, as far as we use it."""

    address: str
    """empty: what it says is not an IP address, and names are not looked up"""
    port: int
    rtcp: Address
    mux: bool
    """RTP and RTCP may share a port (RFC 5761)"""
    codecs: tuple[tuple[int, CodecName], ...]
    """with their payload types, the best liked first; only those that we know"""
    event: int | None
    """its payload type for keys, and …"""
    event_hz: int
    """… their clock"""
    noise: int | None
    """… and for comfort noise"""
    packet_ms: int
    """how long our packets may be; 0: it does not say"""
    sends: bool
    receives: bool
    proto: str
    crypto: tuple[CryptoLine, ...]
    """keys that it may encrypt with, the best liked first; only those that we can use, and may"""
    opus: OpusWishes


Section = tuple[str, int, str, list[str], list[str]]
"""Kind, port, protocol, formats; its lines, after those of the session."""


def sections_of(text: str) -> list[Section]:
    """The sections of a description, in its order."""
    session: list[str] = []
    found: list[Section] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        begun = _MEDIA.fullmatch(line)
        if begun is not None:
            found.append((begun[1], int(begun[2]), begun[3], begun[4].split(), []))
        elif found:
            found[-1][4].append(line)
        else:
            session.append(line)
    return [(kind, port, proto, formats, session + lines) for kind, port, proto, formats, lines in found]


def usable(sections: list[Section], ours: Sequence[CodecName], rule: SrtpRule) -> tuple[int, Described]:
    """The first section that we can use: which one it is, and what it says. Raises `NoAgreement`.

    `ours` are the codecs that we have, the best liked first.
    """
    for at, (kind, port, proto, formats, lines) in enumerate(sections):
        if kind == "audio" and port and proto in PLAIN | ENCRYPTED:
            described = _described(port, proto, formats, lines, ours, rule)
            clear = proto in PLAIN and rule != "required"
            if described.codecs and (clear or described.crypto):
                return at, described
    how = {"required": "SRTP with a=crypto", "optional": "RTP, plain or with a=crypto,", "off": "plain RTP"}
    raise NoAgreement(f"no audio section of {how[rule]} with {', '.join(ours)}")


def _described(
    port: int, proto: str, formats: list[str], lines: list[str], ours: Sequence[CodecName], rule: SrtpRule
) -> Described:
    names: dict[int, str] = dict(STATIC) | {NOISE: "CN"}
    said: dict[int, str] = {}
    events: dict[int, int] = {}
    for line in lines:
        if (of := _MAP.match(line)) is not None and len(of[1]) < 4:
            kind, name = int(of[1]), of[2].upper()
            if name == "TELEPHONE-EVENT" and of[3] in ("8000", "48000"):
                events[kind] = int(of[3])
            elif of[3] == ("48000" if name == "OPUS" else "8000"):
                names[kind] = name
        elif (of := _PARAMETERS.match(line)) is not None and len(of[1]) < 4:
            said[int(of[1])] = of[2]
    kinds = [int(one) for one in formats if one.isdigit() and int(one) < 128]
    known: list[tuple[int, CodecName]] = [
        (kind, name) for kind in kinds for name in ours if names.get(kind) == name
    ]
    known.sort(key=lambda one: one[1] == "G729")  # the last resort: all others sound better
    # of keys the clock that the codec has (RFC 4733 §2.1), or else the one that all phones know
    clock_hz = CLOCKS_HZ[known[0][1]] if known else 8_000
    keys = [kind for kind in kinds if kind in events]
    event = next((kind for wanted in (clock_hz, 8_000) for kind in keys if events[kind] == wanted), None)
    address = _host(_last(lines, "c=", ""))
    rtcp = _last(lines, "a=rtcp:", "").split()
    rtcp_port = int(rtcp[0]) if rtcp and rtcp[0].isdigit() else port + 1
    direction = next((line[2:] for line in reversed(lines) if line[2:] in _DIRECTIONS), "sendrecv")
    return Described(
        address=address,
        port=port,
        rtcp=(_host(rtcp[3]) if len(rtcp) == 4 else address, rtcp_port),
        mux="a=rtcp-mux" in lines,
        codecs=tuple(known),
        event=event,
        event_hz=events.get(event, 8_000) if event is not None else 8_000,
        noise=_named(kinds, names, "CN"),
        packet_ms=_packet_ms(lines),
        sends=direction in ("sendrecv", "sendonly"),
        receives=direction in ("sendrecv", "recvonly"),
        proto=proto,
        crypto=() if rule == "off" else tuple(crypto_lines(lines)),
        opus=_wishes(said.get(known[0][0], "")) if known and known[0][1] == "OPUS" else OpusWishes(),
    )


def _wishes(parameters: str) -> OpusWishes:
    """Of an `a=fmtp`; what is not understood asks for nothing."""
    asked = dict(one.strip().lower().partition("=")[::2] for one in parameters.split(";"))
    most = asked.get("maxaveragebitrate", "")
    bitrate = int(most) if most.isdigit() and len(most) < 8 else OPUS_BITRATE
    return OpusWishes(asked.get("useinbandfec") == "1", min(max(bitrate, OPUS_LEAST), OPUS_BITRATE))


def _host(said: str) -> str:
    """The IP address with which a text ends, without what only a group of receivers needs."""
    host = said.rpartition(" ")[2].partition("/")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


def _named(kinds: list[int], names: Mapping[int, str], name: str) -> int | None:
    return next((kind for kind in kinds if names.get(kind) == name), None)


def _last(lines: list[str], start: str, otherwise: str) -> str:
    """What the last line with this beginning says: a section's stands after the session's."""
    return next((line[len(start) :] for line in reversed(lines) if line.startswith(start)), otherwise)


def _packet_ms(lines: list[str]) -> int:
    asked, most = (_last(lines, f"a={name}:", "").strip().partition(".")[0] for name in ("ptime", "maxptime"))
    wanted, longest = (int(text) if text.isdigit() and len(text) < 6 else 0 for text in (asked, most))
    if not wanted and not longest:
        return 0
    length = min(wanted or USUAL_MS, longest or LONGEST_MS, LONGEST_MS)
    return max(STEP_MS, length // STEP_MS * STEP_MS)
