"""One call's sound: its sockets, where its packets come from, what it hears and what it says.

Hot path: no logs, no locks. What happens besides sound is told to `MediaOwner`.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final, Protocol

from gateway.ipc.line_messages import FarReception, LineQuality
from gateway.rtp.agreement import NOWHERE, Agreement
from gateway.rtp.media.rtcp import Rtcp
from gateway.rtp.media.rtp_receiver import RtpReceiver
from gateway.rtp.media.rtp_sender import STEP, RtpSender
from gateway.rtp.media.socket_pair import Arrival, SocketPair, Source
from gateway.rtp.media.source_latch import SourceLatch, Stream
from gateway.rtp.media.srtp import SrtpContext
from gateway.rtp.payloads import g711
from gateway.rtp.payloads.g722 import G722Encoder
from gateway.rtp.payloads.g729 import G729Encoder
from gateway.rtp.payloads.opus16 import Opus16Encoder
from gateway.rtp.payloads.packet import is_rtcp, read_rtp

WALL_AHEAD_S: Final = time.time() - time.monotonic()
"""What reports tell the time by: a wall clock that is set meanwhile moves no round trip."""
MOVES_EVERY_S: Final = 5.0
"""Two moves are told at least so far apart: whose sources take turns fills no log."""
_SILENCE: Final = {law: bytes((g711.SILENT_CODE[law],)) * STEP for law in g711.LAWS}


class MediaOwner(Protocol):
    """Who has the call, as its sound sees it."""

    def pressed(self, media: CallMedia, digit: str) -> None:
        """The caller pressed a key."""

    def moved(self, media: CallMedia, was: Stream, now: Stream) -> None:
        """The caller's packets come from elsewhere, or are another stream."""

    def broke(self, media: CallMedia, error: Exception) -> None:
        """An error of ours in the call's sound; it ends that call and no other."""


class CallMedia:
    """See the module. `number` names the call in ticks, `slot` is its place there."""

    def __init__(
        self,
        number: int,
        slot: int,
        sockets: SocketPair,
        agreed: Agreement,
        rate_hz: int,
        arrival: Arrival,
        owner: MediaOwner,
    ) -> None:
        self.number = number
        self.slot = slot
        self.sockets = sockets
        self.agreed = agreed
        self.ticked = False
        """the hall knows of the call, so that no answer means something"""
        self.stream: Stream | None = None
        """what was told last of where packets come from; None before the first one"""
        self.mate: CallMedia | None = None
        """whose sound it hears instead of the hall's, and who hears its own"""
        self.owner = owner
        self._arrival = arrival
        self._frame_bytes = rate_hz // 50 * 2
        self._at = arrival.now
        self.latch = SourceLatch(agreed.peer)
        self.srtp = None if agreed.srtp is None else SrtpContext(agreed.srtp)
        """None: in the clear"""
        self.receiver = RtpReceiver(agreed, self._clock)
        self.sender = RtpSender(agreed, self._send, self._silence)
        self.rtcp = Rtcp(self.sender.ssrc, arrival.now)
        self.rtcp.clock_hz = agreed.clock_hz
        self._encoder: G722Encoder | None = None
        self._opus: Opus16Encoder | None = None
        self._g729: G729Encoder | None = None
        self._moved_at = -MOVES_EVERY_S
        self._sent_when_told = 0
        """our packets until the caller's last report on them"""

    def agree(self, agreed: Agreement) -> None:
        """What holds from now on: a hold, its end, another codec or another address."""
        self.agreed = agreed
        if agreed.srtp is None:
            self.srtp = None
        elif self.srtp is None:
            self.srtp = SrtpContext(agreed.srtp)
        else:
            heard = self.receiver.reception
            stream = None if heard is None else (heard.ssrc, heard.highest)
            self.srtp.agree(agreed.srtp, self._arrival.now, stream)
        self.latch.describe(agreed.peer)
        self.receiver.agree(agreed)
        self.sender.agree(agreed)
        self.rtcp.clock_hz, self._opus = agreed.clock_hz, None

    @property
    def played(self) -> int:
        """Samples of the hall's sound that were sent, at the line's rate."""
        return self.sender.played * self._frame_bytes >> 1

    @property
    def source(self) -> Source:
        """Where the caller's packets come from, or are awaited from."""
        return self.latch.to

    # ── packets ──────────────────────────────────────────────────────────────────────────────────────

    def _clock(self) -> float:
        return self._at

    def turn(self, now: float) -> None:
        """A turn's time, for what is taken from the jitter buffer."""
        self._at = now

    def take(self, data: bytes, at: float, source: Source) -> None:
        """A packet came to the RTP socket. One that is not opened says nothing of where the caller is."""
        if self.agreed.mux and is_rtcp(data):
            self.take_report(data, at, source)
            return
        if self.srtp is not None:
            opened = self.srtp.open(data, at)
            if opened is None:
                return
            data = opened
        packet = read_rtp(data)
        if packet is None:
            return
        if not self.latch.believes(source, packet.ssrc, packet.sequence_number, at):
            return
        self._at = at
        known = self.stream
        if known is None or source != known.source or packet.ssrc != known.ssrc:
            self._comes(Stream(source, packet.ssrc), at)
        digit = self.receiver.take(packet, data)
        if digit is not None:
            self.owner.pressed(self, digit)

    def _comes(self, now: Stream, at: float) -> None:
        """What comes is another stream than the one that was told last."""
        was = self.stream
        if was is not None and at - self._moved_at < MOVES_EVERY_S:
            return  # told later, if it is still another one then
        self.stream = now
        if was is not None:
            self._moved_at = at
            self.owner.moved(self, was, now)

    def take_report(self, data: bytes, at: float, source: Source) -> None:
        """A packet came to the RTCP socket. It counts when it comes from the caller's host."""
        if source[0] == self.latch.to[0]:
            if self.srtp is not None:
                opened = self.srtp.open_report(data, at)
                if opened is None:
                    return
                data = opened
            told = self.rtcp.told
            self.rtcp.take(data, at, at + WALL_AHEAD_S)
            if self.rtcp.told is not told:
                self._sent_when_told = self.sender.packets

    def _send(self, packet: bytes) -> None:
        if not self.latch.to[0]:  # its description names no address: ours go where its packets come from
            return
        sealed = packet if self.srtp is None else self.srtp.seal(packet)
        if sealed is None:
            return
        try:  # `contextlib.suppress` costs a tenth of what sending does
            self.sockets.rtp.sendto(sealed, self.latch.to)
        except OSError:  # nobody listens there, or the way is full: as if lost
            return

    def report(self, tick: int, *, bye: bool = False) -> None:
        """Sends a report when one is due, or the last one."""
        now = self._arrival.now
        if not bye and not self.rtcp.due(now):
            return
        sender = self.sender
        sent = (sender.timestamp(tick), sender.packets, sender.octets) if self.agreed.sending else None
        data = self.rtcp.write(now, now + WALL_AHEAD_S, self.receiver.reception, sent, bye=bye)
        host, port = self.agreed.peer_rtcp
        if self.latch.to != self.agreed.peer:  # behind a NAT: RTCP's port is next to RTP's, as a rule
            host, port = self.latch.to[0], self.latch.to[1] + (0 if self.agreed.mux else 1)
        if host in NOWHERE:
            return
        sealed = data if self.srtp is None else self.srtp.seal_report(data)
        if sealed is None:
            return
        sock = self.sockets.rtp if self.agreed.mux else self.sockets.rtcp
        with contextlib.suppress(OSError):
            sock.sendto(sealed, (host, port))

    def quality(self, call_id: str, *, last: bool, target: str | None = None) -> LineQuality | None:
        """How the sound came and went so far; None while nothing has come, nor any word of ours."""
        receiver, rtcp = self.receiver, self.rtcp
        heard, told, trip_s = receiver.reception, rtcp.told, rtcp.round_trip_s
        if heard is None and told is None:
            return None
        far = None
        if told is not None:
            far = FarReception(self._sent_when_told, told.lost, round(told.jitter_s * 1000, 1))
        return LineQuality(
            call_id,
            self.agreed.codec,
            receiver.received - receiver.duplicates,
            receiver.lost + receiver.jitter.stats.late,
            None if heard is None else round(heard.jitter * 1000 / heard.clock_hz, 1),
            buffer_ms=round(receiver.jitter.delay_s * 1000, 1),
            round_trip_ms=None if trip_s is None else round(trip_s * 1000, 1),
            far=far,
            last=last,
            srtp=None if self.srtp is None else self.srtp.suite,
            target=target,
        )

    # ── sound ────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, pcm: bytes | memoryview) -> bytes:
        """20 ms in the call's codec, for what the pass cannot encode together with others."""
        if self.agreed.codec == "G722":
            self._encoder = self._encoder or G722Encoder()
            return self._encoder.encode(bytes(pcm))
        if self.agreed.codec == "OPUS":
            if self._opus is None:
                self._opus = Opus16Encoder(self.agreed.opus.bitrate, fec=self.agreed.opus.fec)
            if self.rtcp.told is not None:
                self._opus.heed(self.rtcp.told.share_lost)
            return self._opus.encode(bytes(pcm))
        if self.agreed.codec == "G729":
            self._g729 = self._g729 or G729Encoder()
            return self._g729.encode(bytes(pcm))
        return g711.encode(self.agreed.codec, bytes(pcm))

    def _silence(self) -> bytes:
        codec = self.agreed.codec
        if codec == "G722" or codec == "OPUS" or codec == "G729":
            return self.encode(bytes(self._frame_bytes))
        return _SILENCE[codec]
