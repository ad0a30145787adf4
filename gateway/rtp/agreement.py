"""What a caller and we agree on about sound (RFC 3264, RFC 8866): offers read, answers and offers written.

What the other side's descriptions say is read by `described_audio`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from gateway.edge.grammar.sdes import SUITES, CryptoLine, SrtpRule
from gateway.edge.grammar.sdp import ENCRYPTED
from gateway.line.telephone_event import EVENT
from gateway.rtp.described_audio import (
    CLOCKS_HZ,
    NOISE,
    STATIC,
    USUAL_MS,
    Address,
    CodecName,
    Described,
    NoAgreement,
    OpusWishes,
    sections_of,
    usable,
)

RATES_HZ: Final[Mapping[str, int]] = {
    "PCMU": 8_000, "PCMA": 8_000, "G722": 16_000, "OPUS": 16_000, "G729": 8_000,
}  # fmt: skip
"""At which their sound is: Opus takes any rate, and a line has no more."""
OURS: Final[Mapping[str, int]] = {"PCMU": 0, "PCMA": 8, "G722": 9, "OPUS": 107, "G729": 18}
"""Their payload types in our offers."""
OPUS_SAYS: Final = "useinbandfec=1;maxplaybackrate=16000;sprop-maxcapturerate=16000"
"""What we say of ours: lost packets are made good from the next one, and there is nothing above 8 kHz."""
BY_TICKS: Final = ("OPUS", "G729")
"""Codecs whose packets are a tick long, however many bytes that is."""
HELD: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # how RFC 2543 said "hold"; nothing is bound
NOWHERE: Final = HELD | {""}
EVERYWHERE: Final = "::"
"""All our addresses of IPv6, and of IPv4, which are written there as `::ffff:192.0.2.1`."""


class SrtpKeys(NamedTuple):
    """With what a call's packets are encrypted, one suite both ways (RFC 4568 §5.1.2)."""

    ours: CryptoLine
    theirs: CryptoLine


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
    opus: OpusWishes = field(default_factory=OpusWishes)

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
        sections = sections_of(offer)
        chosen, described = usable(sections, self.codecs, self.srtp)
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
        _, described = usable(sections_of(answer), self.codecs, self.srtp)
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
        takes: dict[int, CodecName] = {kind: known for kind, known in STATIC.items() if known in self.codecs}
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
