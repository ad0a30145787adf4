"""What a caller and we agree on about sound (RFC 3264, RFC 8866): offers read, answers and offers written.

The edge has made an offer lean by then: one live audio section at most that a line can use, and the others
off (`gateway.edge.grammar.sdp`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from gateway.edge.grammar.sdes import SUITES, CryptoLine, SrtpRule, crypto_lines
from gateway.edge.grammar.sdp import ENCRYPTED, PLAIN
from gateway.errors import VoicegateError
from gateway.line.telephone_event import EVENT

CodecName = Literal["PCMU", "PCMA", "G722", "OPUS", "G729"]
Address = tuple[str, int]

RATES_HZ: Final[Mapping[str, int]] = {
    "PCMU": 8_000, "PCMA": 8_000, "G722": 16_000, "OPUS": 16_000, "G729": 8_000,
}  # fmt: skip
"""At which their sound is: Opus takes any rate, and a line has no more."""
CLOCKS_HZ: Final[Mapping[str, int]] = {
    "PCMU": 8_000, "PCMA": 8_000, "G722": 8_000, "OPUS": 48_000, "G729": 8_000,
}  # fmt: skip
"""Of their RTP timestamps (RFC 3551 §4.5.2, RFC 7587 §4.1)."""
OURS: Final[Mapping[str, int]] = {"PCMU": 0, "PCMA": 8, "G722": 9, "OPUS": 107, "G729": 18}
"""Their payload types in our offers."""
NOISE: Final = 13
"""The payload type of comfort noise (RFC 3389)."""
OPUS_BITRATE: Final = 40_000
"""Of ours at 16 kHz. More of it is not heard, and with less the mark is weaker."""
OPUS_LEAST: Final = 6_000
"""Less than this nobody asks in earnest (RFC 7587 §6.1)."""
OPUS_SAYS: Final = "useinbandfec=1;maxplaybackrate=16000;sprop-maxcapturerate=16000"
"""What we say of ours: lost packets are made good from the next one, and there is nothing above 8 kHz."""
USUAL_MS: Final = 20
STEP_MS: Final = 10
LONGEST_MS: Final = 120
"""Of a packet of ours; G.711 of this length fits into 1,500 bytes."""
_NAMES: Final[Mapping[int, CodecName]] = {0: "PCMU", 8: "PCMA", 9: "G722", 18: "G729"}
BY_TICKS: Final = ("OPUS", "G729")
"""Codecs whose packets are a tick long, however many bytes that is."""
_MEDIA: Final = re.compile(r"m=(\S+) +(\d+)(?:/\d+)? +(\S+)((?: +\S+)*) *")
_MAP: Final = re.compile(r"a=rtpmap:(\d+) +([^/\s]+)/(\d+)")
_PARAMETERS: Final = re.compile(r"a=fmtp:(\d+) +(.*)")
HELD: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # how RFC 2543 said "hold"; nothing is bound
NOWHERE: Final = HELD | {""}
EVERYWHERE: Final = "::"
"""All our addresses of IPv6, and of IPv4, which are written there as `::ffff:192.0.2.1`."""
_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")


class NoAgreement(VoicegateError):
    """The other side's description leaves nothing to talk in; the text says what is missing (488)."""


class SrtpKeys(NamedTuple):
    """With what a call's packets are encrypted, one suite both ways (RFC 4568 §5.1.2)."""

    ours: CryptoLine
    theirs: CryptoLine


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


@dataclass(frozen=True, slots=True)
class Agreement:
    """What holds for a call's sound until the next offer."""

    codec: CodecName
    """ours"""
    sent_as: int
    """its payload type, as the other side wants it"""
    takes: Mapping[int, CodecName]
    """which payload types of theirs are sound"""
    event: int | None
    """what our keys go out as; None: none was agreed"""
    takes_events: frozenset[int]
    takes_noise: frozenset[int]
    packet_ms: int
    peer: Address
    peer_rtcp: Address
    mux: bool
    sending: bool
    receiving: bool
    srtp: SrtpKeys | None = None
    """None: in the clear"""
    event_hz: int = 8_000
    """the clock of our keys"""
    opus: OpusWishes = OpusWishes()

    @property
    def rate_hz(self) -> int:
        """How often the codec samples."""
        return RATES_HZ[self.codec]

    @property
    def clock_hz(self) -> int:
        """How often its RTP timestamps count."""
        return CLOCKS_HZ[self.codec]


@dataclass(slots=True)
class Describer:
    """One call's side of its offers and answers. Raises `NoAgreement` where there is nothing to talk in."""

    address: str
    """where we hear RTP; the edge writes what the caller reaches"""
    port: int
    codecs: Sequence[CodecName]
    """those we have, the best liked first"""
    session: int
    """names our descriptions (`o=`)"""
    srtp: SrtpRule = "off"
    """whether sound is encrypted"""
    version: int = 0
    _last: str = field(default="", repr=False)
    _said: dict[int, CryptoLine] = field(default_factory=dict, repr=False)
    """our keys in the last description, by tag"""
    _mine: CryptoLine | None = field(default=None, repr=False)
    """with which our packets are encrypted"""
    _proto: str = ""
    """of the last description; empty: there is none"""

    def answer(self, offer: str) -> tuple[str, Agreement]:
        """Our answer to an offer, with one codec: the first of theirs that we have."""
        sections = _sections(offer)
        chosen, described = _usable(sections, self.codecs, self.srtp)
        keys = self._answered_by(described.crypto[0]) if described.crypto else None
        agreed = self._agreed(described, keys)
        self._say([] if keys is None else [keys.ours], described.proto)
        self._mine = None if keys is None else keys.ours
        lines: list[str] = []
        for at, (kind, _, proto, formats, _) in enumerate(sections):
            if at != chosen:
                lines.append(f"m={kind} 0 {proto} {formats[0] if formats else 0}")
                continue
            lines += self._section(
                described.proto,
                [described.codecs[0]],
                _beside(described, formats),
                _direction(agreed.sending, agreed.receiving),
                described.packet_ms if described.codecs[0][1] not in BY_TICKS else 0,
                described.mux,
                described.event_hz,
            )
        return self._whole(lines), agreed

    def offer(self, sending: bool = True, receiving: bool = True) -> str:
        """Our own offer: all codecs, keys on the type that most phones have; each suite with a key of its own
        (RFC 4568 §6.1), or in a call that is encrypted what holds."""
        if self._mine is not None:
            self._say([self._mine], self._proto)
        elif self.srtp == "off":
            self._say([], "RTP/AVP")
        else:
            suites = enumerate(SUITES, 1)
            proto = "RTP/SAVP" if self.srtp == "required" else "RTP/AVP"
            self._say([CryptoLine.fresh(tag, suite) for tag, suite in suites], proto)
        return self._whole(
            self._section(
                self._proto,
                [(OURS[name], name) for name in self.codecs],
                [(EVENT, "telephone-event")],
                _direction(sending, receiving),
                0,
                False,
            )
        )

    def answered(self, answer: str, sending: bool = True, receiving: bool = True) -> Agreement:
        """What holds once our offer has this answer. Keys come on either side's payload type: phones are of
        two minds about it."""
        _, described = _usable(_sections(answer), self.codecs, self.srtp)
        if described.proto in ENCRYPTED and self._proto not in ENCRYPTED:
            raise NoAgreement(f"the answer is of {described.proto}, which was not offered")
        agreed = self._agreed(described, self._chosen(described))
        self._mine = None if agreed.srtp is None else agreed.srtp.ours
        events = agreed.takes_events | {EVENT}
        return _turned(agreed, events, agreed.sending and sending, agreed.receiving and receiving)

    def _say(self, keys: Sequence[CryptoLine], proto: str) -> None:
        self._said = {one.tag: one for one in keys}
        self._proto = proto

    def _answered_by(self, theirs: CryptoLine) -> SrtpKeys:
        """Our key stays while the suite does, so that what we send goes on; it is of no use to another suite
        (RFC 4568 §6.1)."""
        mine = self._mine
        if mine is None or mine.suite != theirs.suite:
            return SrtpKeys(CryptoLine.fresh(theirs.tag, theirs.suite), theirs)
        return SrtpKeys(mine.tagged(theirs.tag), theirs)

    def _chosen(self, described: Described) -> SrtpKeys | None:
        """What an answer took of the keys that we offered (RFC 4568 §5.1.3); None: it encrypts nothing."""
        if not described.crypto:
            if self._proto in ENCRYPTED:
                raise NoAgreement("the answer has no key (a=crypto) for the encryption that was offered")
            return None
        theirs = described.crypto[0]
        mine = self._said.get(theirs.tag)
        if mine is None or mine.suite != theirs.suite:
            raise NoAgreement("the answer's a=crypto is none of those that were offered")
        return SrtpKeys(mine, theirs)

    def _agreed(self, described: Described, keys: SrtpKeys | None) -> Agreement:
        held = described.address in HELD
        sent_as, name = described.codecs[0]
        event, noise = described.event, described.noise
        # some phones answer one law and send the other
        takes: dict[int, CodecName] = {kind: known for kind, known in _NAMES.items() if known in self.codecs}
        takes |= dict(described.codecs)
        like = (RATES_HZ[name], CLOCKS_HZ[name])
        takes = {kind: known for kind, known in takes.items() if (RATES_HZ[known], CLOCKS_HZ[known]) == like}
        if event is not None:
            takes.pop(event, None)
        events = {event if event is not None else EVENT} - takes.keys()
        return Agreement(
            codec=name,
            sent_as=sent_as,
            takes=takes,
            event=event,
            event_hz=described.event_hz,
            takes_events=frozenset(events),
            takes_noise=frozenset({NOISE if noise is None else noise}),
            packet_ms=USUAL_MS if name in BY_TICKS else described.packet_ms or USUAL_MS,
            opus=described.opus,
            peer=self._reached((described.address, described.port)),
            peer_rtcp=self._reached((described.address, described.port) if described.mux else described.rtcp),
            mux=described.mux,
            sending=described.receives and not held,
            receiving=described.sends,
            srtp=keys,
        )

    def _reached(self, peer: Address) -> Address:
        """A peer as our socket writes it."""
        host, port = peer
        return (f"::ffff:{host}", port) if self.address == EVERYWHERE and "." in host else peer

    def _section(
        self,
        proto: str,
        codecs: Sequence[tuple[int, CodecName]],
        beside: Sequence[tuple[int, str]],
        direction: str,
        packet_ms: int,
        mux: bool,
        event_hz: int = 8_000,
    ) -> list[str]:
        lines = [f"a=rtpmap:{kind} {_mapped(name, event_hz)}" for kind, name in (*codecs, *beside)]
        lines += [f"a=fmtp:{kind} {OPUS_SAYS}" for kind, name in codecs if name == "OPUS"]
        lines += [f"a=fmtp:{kind} annexb=no" for kind, name in codecs if name == "G729"]
        lines += [f"a=fmtp:{kind} 0-16" for kind, name in beside if name == "telephone-event"]
        if packet_ms:
            lines.append(f"a=ptime:{packet_ms}")
        lines += map(str, self._said.values())
        lines.append(f"a={direction}")
        lines.append("a=rtcp-mux" if mux else f"a=rtcp:{self.port + 1}")
        kinds = " ".join(str(kind) for kind, _ in (*codecs, *beside))
        return [f"m=audio {self.port} {proto} {kinds}", *lines]

    def _whole(self, lines: list[str]) -> str:
        text = "".join(f"{line}\r\n" for line in lines)
        if text != self._last:  # a description that changed says so (RFC 3264 §8)
            self.version += 1
            self._last = text
        return self.again()

    def again(self) -> str:
        """The last description once more."""
        kind = "IP6" if ":" in self.address else "IP4"
        return (
            f"v=0\r\no=- {self.session} {self.version} IN {kind} {self.address}\r\ns=voicegate\r\n"
            f"c=IN {kind} {self.address}\r\nt=0 0\r\n{self._last}"
        )


def _mapped(name: str, event_hz: int) -> str:
    """A format as `a=rtpmap` has it."""
    if name == "OPUS":
        return "opus/48000/2"  # always two channels, whatever is sent (RFC 7587 §4.1)
    return f"{name}/{event_hz if name == 'telephone-event' else 8_000}"


def _turned(agreed: Agreement, events: frozenset[int], sending: bool, receiving: bool) -> Agreement:
    return replace(agreed, takes_events=events - agreed.takes.keys(), sending=sending, receiving=receiving)


def _beside(described: Described, formats: Sequence[str]) -> list[tuple[int, str]]:
    """Keys and comfort noise, where they are offered, in the order of the offer."""
    both = ((described.event, "telephone-event"), (described.noise, "CN"))
    offered = [(kind, name) for kind, name in both if kind is not None]
    return sorted(offered, key=lambda one: formats.index(str(one[0])))


def _direction(sending: bool, receiving: bool) -> str:
    if sending:
        return "sendrecv" if receiving else "sendonly"
    return "recvonly" if receiving else "inactive"


_Section = tuple[str, int, str, list[str], list[str]]
"""Kind, port, protocol, formats; its lines, after those of the session."""


def _sections(text: str) -> list[_Section]:
    session: list[str] = []
    found: list[_Section] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        begun = _MEDIA.fullmatch(line)
        if begun is not None:
            found.append((begun[1], int(begun[2]), begun[3], begun[4].split(), []))
        elif found:
            found[-1][4].append(line)
        else:
            session.append(line)
    return [(kind, port, proto, formats, session + lines) for kind, port, proto, formats, lines in found]


def _usable(sections: list[_Section], ours: Sequence[CodecName], rule: SrtpRule) -> tuple[int, Described]:
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
    names: dict[int, str] = dict(_NAMES) | {NOISE: "CN"}
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
