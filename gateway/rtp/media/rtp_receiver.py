"""What comes from a caller: packets in, 20 ms of sound out (RFC 3550, RFC 3551, RFC 3389, RFC 4733).

A frame of G.711 that is whole stays as it came: the pass decodes those of all calls together. Everything else
(packets of another length, losses, pauses, G.722) is put together here, call by call.

Hot path: no logs, no locks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import numpy as np

from gateway.line.jitter import FRAMES_A_SECOND, JitterBuffer, Pulled, PullKind
from gateway.line.telephone_event import TelephoneEvents
from gateway.rtp.agreement import Agreement
from gateway.rtp.media.concealment import Concealment, future_samples
from gateway.rtp.media.last_turns import LastTurns
from gateway.rtp.media.rtcp import Reception
from gateway.rtp.payloads import g711
from gateway.rtp.payloads.comfort_noise import ComfortNoise
from gateway.rtp.payloads.g711 import LAWS, Law, Pcm
from gateway.rtp.payloads.g722 import G722Decoder
from gateway.rtp.payloads.g729 import G729Decoder
from gateway.rtp.payloads.opus16 import Opus16Decoder
from gateway.rtp.payloads.packet import CLOCK_HZ, RtpPacket

WHOLE: Final = CLOCK_HZ // FRAMES_A_SECOND + 1
"""Bytes of 20 ms of G.711, after the payload type."""
FIRST_TARGET_S: Final = 0.02
"""Delay aimed at before there is anything to judge by: telephones' networks are steadier than browsers'."""
QUIET: Final = 300
"""Peak (of 32767) below which 20 ms may be left out unnoticed."""
_NOTHING: Final = np.zeros(0, np.int16)


class RtpReceiver:
    """One call's. `clock` says when what is being handed over came, and in a turn what time it is."""

    def __init__(self, agreed: Agreement, clock: Callable[[], float]) -> None:
        rate_hz = agreed.rate_hz
        self.jitter = self._new_buffer(agreed, clock)
        self.reception: Reception | None = None
        """of the stream that comes now; None before the first packet"""
        self.unknown = 0
        """packets of types that nobody agreed on"""
        self._agreed = agreed
        self._clock = clock
        self.rate_hz = rate_hz
        self._frame = rate_hz // FRAMES_A_SECOND
        """samples of 20 ms"""
        self._events = TelephoneEvents()
        self._concealment = Concealment(rate_hz)
        self._decoder: G722Decoder | None = None
        self._opus: Opus16Decoder | None = None
        self._g729: G729Decoder | None = None
        self._left = _NOTHING
        """decoded sound that no frame has taken yet"""
        self._noise: ComfortNoise | None = None
        """what fills the pause that the caller is in"""
        self._past_received = self._past_duplicates = self._past_lost = 0

    def agree(self, agreed: Agreement) -> None:
        """What holds from now on."""
        other_clock = agreed.clock_hz != self._agreed.clock_hz
        self._agreed = agreed
        if agreed.rate_hz != self.rate_hz or other_clock:
            self.jitter.clear()
            if other_clock:
                self.jitter = self._new_buffer(agreed, self._clock)
                self._end_stream()
            self._left, self._concealment = _NOTHING, Concealment(agreed.rate_hz)
            self.rate_hz, self._frame = agreed.rate_hz, agreed.rate_hz // FRAMES_A_SECOND
        if not agreed.receiving:  # what waits would be played after the hold
            self._left, self._noise = _NOTHING, None
            self._concealment.reset()
            self.jitter.clear()

    def _new_buffer(self, agreed: Agreement, clock: Callable[[], float]) -> JitterBuffer:
        return JitterBuffer(clock=clock, rate_hz=agreed.clock_hz, first_target_s=FIRST_TARGET_S)

    @property
    def received(self) -> int:
        """Packets since the call began, of all its streams."""
        return self._past_received + (self.reception.received if self.reception is not None else 0)

    @property
    def duplicates(self) -> int:
        """… of which others were there already."""
        return self._past_duplicates + (self.reception.duplicates if self.reception is not None else 0)

    @property
    def lost(self) -> int:
        """… and those that never came."""
        return self._past_lost + (self.reception.missing if self.reception is not None else 0)

    def take(self, packet: RtpPacket, data: bytes) -> str | None:
        """A packet came, whose bytes are `data`; returns the key whose press begins with it."""
        agreed, kind = self._agreed, packet.payload[0] & 0x7F
        sounds = kind in agreed.takes
        count = self.reception
        if count is None or count.ssrc != packet.ssrc:
            count = self._new_stream(packet.ssrc)
        if not count.take(packet.sequence_number, packet.timestamp, self._clock(), sounds=sounds):
            return None
        if sounds:
            if agreed.receiving:
                self.jitter.add(packet)
            return None
        if agreed.receiving:
            self.jitter.add_rest(packet)
        if kind in agreed.takes_events:
            return self._events.pressed(data)
        if kind not in agreed.takes_noise:
            self.unknown += 1
        return None

    def _new_stream(self, ssrc: int) -> Reception:
        self._end_stream()
        self.reception = Reception(ssrc, self._agreed.clock_hz)
        return self.reception

    def _end_stream(self) -> None:
        self._past_received = self.received
        self._past_duplicates, self._past_lost = self.duplicates, self.lost
        self.reception = None

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────

    def law_of(self, codes: bytes) -> Law:
        """The law of a whole frame that `frame` returned as it came."""
        return cast(Law, self._agreed.takes[codes[0] & 0x7F])

    def frame(self, heard: LastTurns, slot: int) -> bytes | Pcm | None:
        """The next 20 ms: a whole frame of G.711 as it came, or samples; None: nothing comes.

        `heard` knows what was heard last in the call's slot, for what has to be concealed.
        """
        agreed = self._agreed
        if not agreed.receiving:
            return None
        pulled: Pulled | None = None
        if not len(self._left) and not self._concealment.lost:
            pulled = self.jitter.pull()
            kind, payload, _, spare, _ = pulled
            if (
                len(payload) == WHOLE
                and kind is PullKind.PLAY
                and not spare
                and agreed.takes.get(payload[0] & 0x7F) in LAWS
            ):
                self._noise = None
                return payload
        return self._put_together(pulled, heard, slot)

    def _put_together(self, pulled: Pulled | None, heard: LastTurns, slot: int) -> Pcm | None:
        parts, have = [self._left], len(self._left)
        self._left = _NOTHING
        while have < self._frame:
            if pulled is None:
                pulled = self.jitter.pull()
            if pulled.kind in (PullKind.LATE, PullKind.RECOVER):
                past = heard.past(slot, self.rate_hz)
                sound: Pcm | None = self._concealed(pulled, np.concatenate((past, *parts))[-len(past) :])
            else:
                sound = self._sound_of(pulled)
            if sound is None:
                break
            pulled = None
            parts.append(sound)
            have += len(sound)
        if have < self._frame:
            self._concealment.reset()
            if have == 0 and self._noise is None:
                return None
            missing = self._frame - have
            rest = np.zeros(missing, np.int16) if self._noise is None else self._noise.next(missing)
            parts.append(rest)
        whole = np.concatenate(parts)
        self._left = whole[self._frame :]
        return whole[: self._frame]

    def _concealed(self, pulled: Pulled, past: Pcm) -> Pcm:
        """What stands in for sound that is late or lost."""
        count = pulled.samples * self.rate_hz // self._agreed.clock_hz
        if self._agreed.codec == "OPUS":  # which knows better how its own sound goes on
            opus = self._opus = self._opus or Opus16Decoder()
            return opus.recover(pulled.payload[1:] if pulled.kind is PullKind.RECOVER else b"", count)
        if self._agreed.codec == "G729":
            self._g729 = self._g729 or G729Decoder()
            return self._g729.conceal(count)
        if pulled.kind is PullKind.RECOVER and self.rate_hz == CLOCK_HZ:
            future = self._decoded(pulled.payload)
            if len(future) >= future_samples(self.rate_hz):
                return self._concealment.bridge(past, future, count)
        return self._concealment.conceal(past, count)

    def _sound_of(self, pulled: Pulled) -> Pcm | None:
        """What was pulled, as sound; None: there is a pause."""
        if pulled.kind is PullKind.PLAY:
            sound = self._decoded(pulled.payload)
            if pulled.must_drop or (pulled.spare and _is_quiet(sound)):
                self.jitter.dropped()
                return _NOTHING
            self._noise = None
            return self._concealment.resume(sound) if self._concealment.lost else sound
        if pulled.kind is PullKind.REST:
            self._rest(pulled.payload)
            return _NOTHING
        return None

    def _rest(self, payload: bytes) -> None:
        self._concealment.reset()
        if payload[0] & 0x7F in self._agreed.takes_noise and len(payload) > 1:
            self._noise = ComfortNoise(payload[1])

    def _decoded(self, payload: bytes) -> Pcm:
        name = self._agreed.takes.get(payload[0] & 0x7F)
        if name == "G722":
            self._decoder = self._decoder or G722Decoder()
            return self._decoder.decode(payload[1:])
        if name == "OPUS":
            self._opus = self._opus or Opus16Decoder()
            return self._opus.decode(payload[1:])
        if name == "G729":
            self._g729 = self._g729 or G729Decoder()
            return self._g729.decode(payload[1:])
        if name is None:  # taken before the last agreement
            return np.zeros(self._frame, np.int16)
        return g711.decode(name, payload[1:])


def _is_quiet(sound: Pcm) -> bool:
    return not len(sound) or (int(sound.max()) < QUIET and int(sound.min()) > -QUIET)
