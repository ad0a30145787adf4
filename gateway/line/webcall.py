"""One browser's call: its peer connection, what it hears, what it says, its data channel.

The tick drives it: `hear` takes 20 ms out of the jitter buffer, `speak` sends 20 ms of the hall's sound. Both
run in the event loop: decoding takes 40 us, encoding 75, a thread's hand-over more than either. aiortc's own
decoder thread and encoder are left idle: our jitter buffer hands them nothing, our track yields packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import aiortc.codecs
import aiortc.rtcrtpreceiver
import structlog
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpCodecParameters,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from OpenSSL import SSL

from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import IceReply, LineQuality, Shown, ShownState
from gateway.line import ice, opus, trickle
from gateway.line.browser_reports import BrowserReports
from gateway.line.jitter import JitterStats, PullKind
from gateway.line.offer import KEYS, OfferError, check, ice_of, key_types, same_call, speak_opus
from gateway.line.opus import FRAME, OpusError
from gateway.line.page_channel import PageChannel
from gateway.line.target_bridge import TargetBridge
from gateway.line.voice_track import VoiceTrack
from gateway.line.web_stream import WebStream
from model.tasks import Tasks

CODEC: Final = "opus/48000"
SILENCE: Final = bytes(2 * FRAME)
CONNECT_WITHIN_S: Final = 15.0
FEC_BITRATE: Final = 40_000
CUSHION: Final = 10
"""Frames of the hall's sound that may wait; more would mean that it sends faster than time passes."""
LATE: Final = 2
"""Ticks that may pass without the hall's answer before silence is sent instead: the browser's own buffer
bears 40 ms, a hole in a word is heard."""
LOOK_EVERY_S: Final = 2.0
"""Between two looks at what RTCP says."""
TELL_EVERY: Final = 5
"""Looks between two words on how the call sounds."""
TOO_MUCH_LOSS: Final = 0.02
"""Share of our packets that the browser misses, beyond which we send FEC copies."""
HANGOVER: Final = 10
"""Silent frames that are encoded; then the last packet is sent again, which costs nothing."""
QUIET: Final = 300
"""Peak (of 32767) below which 20 ms may be left out unnoticed."""

log = structlog.get_logger("webcall")


def prepare(host: str) -> list[str]:
    """Once per process: our jitter buffer, our addresses, and Opus as the only codec, keys beside it. Returns
    the addresses that calls are answered at now."""
    aiortc.rtcrtpreceiver.JitterBuffer = WebStream  # type: ignore[attr-defined,assignment]
    aiortc.codecs.CODECS["audio"][:] = [
        RTCRtpCodecParameters(
            mimeType="audio/opus",
            clockRate=opus.RATE_HZ,
            channels=2,  # RFC 7587 §7: always written so
            payloadType=96,
            parameters={"minptime": 10, "useinbandfec": 1, "maxaveragebitrate": 40_000},
        ),
        *(
            RTCRtpCodecParameters(mimeType=KEYS, clockRate=rate_hz, channels=1, payloadType=number)
            for rate_hz, number in ((48_000, 110), (8_000, 126))  # Chromium's own numbers
        ),
    ]
    return ice.bind(host)


class WebCall:
    """A call from a browser. `happened` is told (`"confirmed" | "dtmf" | "event" | "turned" | "sounded" |
    "ended"`, detail)."""

    def __init__(
        self,
        call_id: str,
        number: int,
        slot: int,
        happened: Callable[[WebCall, str, str], None],
        public_address: str | None = None,
    ) -> None:
        self.call_id = call_id
        self.number = number
        self.slot = slot
        self.confirmed_at: float | None = None
        """`time.monotonic()` when media was up"""
        self.ended: CallEnding | None = None
        self.played = 0
        """samples of the hall's sound that were sent"""
        self.underrun = False
        self.sending = False
        self.receiving = False
        self.fec_percent = 0
        """loss that our packets are protected against; 0: none was seen"""
        self._reports = BrowserReports()
        self._happened = happened
        self._public_address = public_address
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._voice = VoiceTrack()
        self._encoder = opus.OpusEncoder()
        self._decoder = opus.OpusDecoder()
        self._jitter: WebStream | None = None
        self._negotiating = asyncio.Lock()
        self._heard = bytearray()
        """decoded sound that no tick has taken yet"""
        self._waiting: deque[bytes] = deque()
        """the hall's sound, 20 ms each"""
        self._owed: deque[int] = deque()
        """timestamps of the ticks whose frames the browser has not got yet"""
        self._silent = 0
        self._last_packet = b""
        self.bridge: TargetBridge | None = None
        """the way to a target that the caller is to be handed to"""
        self._page = PageChannel(
            partial(happened, self, "dtmf"), lambda: self._close_soon(CallEnding(End.CALLER))
        )
        self._tasks = Tasks()
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("datachannel", self._page.opened)

    # ── setting up and taking down ───────────────────────────────────────────────────────────────────

    async def answer(self, offer: str) -> str:
        """The SDP answer. Raises `OfferError` for an offer that is none, or holds no Opus audio."""
        connection = self._connection
        try:
            check(offer)
            await connection.setRemoteDescription(RTCSessionDescription(ice.offered(offer), "offer"))
            audio = connection.getTransceivers()[0]
            speak_opus(audio)
            connection.addTrack(self._voice)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # aiortc's parser raises whatever a malformed line makes it raise
            with contextlib.suppress(Exception):
                await connection.close()
            raise OfferError(str(error) or type(error).__name__) from None
        self._jitter = audio.receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
        assert self._jitter is not None  # noqa: S101  # aiortc made it, for mypy
        self._jitter.pressed = partial(self._happened, self, "event")
        self._jitter.key_types = key_types(audio)
        direction = audio.currentDirection or "inactive"
        self.sending = direction in ("sendrecv", "sendonly")
        self.receiving = direction in ("sendrecv", "recvonly")
        self._tasks.short(self._expect_connection(), "web.expect")
        self._tasks.short(self._watch_sound(audio), "web.sound")
        return ice.answered(connection.localDescription.sdp, self._public_address)

    async def renew(self, offer: str) -> str:
        """The answer to a later offer of the caller's: the call is held, or taken up again.

        Raises `OfferError`; the call goes on as it was then.
        """
        connection = self._connection
        async with self._negotiating:
            try:
                check(offer)
                same_call(offer, connection.remoteDescription.sdp)
                await connection.setRemoteDescription(RTCSessionDescription(ice.offered(offer), "offer"))
                audio = connection.getTransceivers()[0]
                speak_opus(audio)
                self._restart_if_new(offer)
                await connection.setLocalDescription(await connection.createAnswer())
            except Exception as error:  # as in `answer`
                raise OfferError(str(error) or type(error).__name__) from None
        direction = audio.currentDirection or "inactive"
        sending = direction in ("sendrecv", "sendonly")
        # who holds a call goes on sending: silence, or what the microphone hears meanwhile
        receiving = direction in ("sendrecv", "recvonly") and sending
        if self._jitter is not None and receiving and not self.receiving:
            self._jitter.clear()
            self._heard.clear()
        if (sending, receiving) != (self.sending, self.receiving):
            self.sending, self.receiving = sending, receiving
            self._happened(self, "turned", "")
        return ice.answered(connection.localDescription.sdp, self._public_address)

    def _restart_if_new(self, offer: str) -> None:
        """Whether it has another ICE name: the browser comes from another network."""
        theirs, agent = ice_of(offer), trickle.agent_of(self._connection)
        if theirs[0] and theirs[0] != agent.remote_username:
            trickle.restart(agent, *theirs)

    @property
    def etag(self) -> str:
        """Names the call's ICE session."""
        return trickle.etag_of(trickle.agent_of(self._connection))

    async def trickle(self, text: str, etag: str) -> IceReply:
        """Takes later candidates; with another name and password, the browser comes from another network."""
        try:
            fragment = trickle.Fragment.read(text)
        except ValueError as error:
            return IceReply(400, wrong=str(error))
        async with self._negotiating:
            agent = trickle.agent_of(self._connection)
            restarts = fragment.ufrag not in ("", agent.remote_username)
            if etag != "*" and (restarts or etag != self.etag):
                return IceReply(412, wrong="that is another ICE session")
            if restarts:
                trickle.restart(agent, fragment.ufrag, fragment.password)
            await trickle.add(agent, fragment.candidates)
            if not restarts:
                return IceReply(204)
            mid = self._connection.getTransceivers()[0].mid or "0"
            return IceReply(200, trickle.answer(agent, mid, self._public_address), self.etag)

    async def _expect_connection(self) -> None:
        await asyncio.sleep(CONNECT_WITHIN_S)
        if self.confirmed_at is None:
            await self.close(CallEnding(End.NO_MEDIA))

    async def _watch_sound(self, audio: RTCRtpTransceiver) -> None:
        """Reads what RTCP says, and has the line tell how the call sounds.

        When the browser misses packets, the codec's speech model takes over for the rest of the call, with a
        FEC copy of each frame in the next packet.
        """
        for look in itertools.count(1):
            await asyncio.sleep(LOOK_EVERY_S)
            await self._reports.read(audio)
            lost = self._reports.share_lost
            if lost > TOO_MUCH_LOSS and self.fec_percent == 0:
                self.fec_percent = min(max(10, round(150 * lost)), 40)
                self._encoder = opus.OpusEncoder(FEC_BITRATE, loss_percent=self.fec_percent)
            if look % TELL_EVERY == 0 and self.confirmed_at is not None and self.ended is None:
                self._happened(self, "sounded", "")

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected" and self.confirmed_at is None and self.ended is None:
            self.confirmed_at = time.monotonic()
            self._happened(self, "confirmed", "")
        elif state in ("failed", "closed"):
            if self.confirmed_at is None and state == "failed":
                end = End.NO_MEDIA
            else:
                end = End.CALLER if self._said_goodbye() else End.BROWSER_LOST
            self._close_soon(CallEnding(end))

    def _said_goodbye(self) -> bool:
        """Whether the browser closed its side by DTLS (RFC 8827 §6.5), and did not merely fall silent. aiortc
        closes the connection for either."""
        dtls = self._connection.getTransceivers()[0].receiver.transport._ssl
        return dtls is not None and bool(dtls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    async def close(self, how: CallEnding) -> None:
        """Ends the call, once; the page is told first."""
        if self.ended is not None:
            return
        self.ended = how
        self._happened(self, "ended", how)
        self.show(ShownState("ended", how))
        await self._page.flush(comes=self.confirmed_at is not None and self._connection.sctp is not None)
        self.close_bridge()
        self._voice.stop()
        await self._connection.close()
        self._tasks.cancel()

    def _close_soon(self, how: CallEnding) -> None:
        self._tasks.short(self.close(how), "web.close")

    def report(self) -> dict[str, Any]:
        """Counters for the log line that ends a call."""
        stats = {} if self._jitter is None else asdict(self._jitter.stats)
        return {"played_s": round(self.played / opus.RATE_HZ, 2), "fec_percent": self.fec_percent, **stats}

    def quality(self) -> LineQuality:
        """How the sound came and went so far."""
        jitter, reports = self._jitter, self._reports
        stats = JitterStats() if jitter is None else jitter.stats
        return LineQuality(
            self.call_id,
            CODEC,
            stats.received,
            stats.lost,
            reports.jitter_ms,
            buffer_ms=None if jitter is None else round(jitter.delay_s * 1000, 1),
            round_trip_ms=reports.round_trip_ms,
            far=reports.far,
            last=self.ended is not None,
        )

    def show(self, event: Shown) -> None:
        """Sends the page an event; kept until its channel is open."""
        self._page.show(event)

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def hear(self) -> bytes:
        """20 ms from the browser; empty when nothing came."""
        if self._jitter is None or not self.receiving:
            return b""
        heard = self._heard
        while len(heard) < 2 * FRAME:
            sound = self._next_sound(self._jitter)
            if not sound:
                break
            heard += sound
        if len(heard) < 2 * FRAME:
            return b""
        frame = bytes(heard[: 2 * FRAME])
        del heard[: 2 * FRAME]
        return frame

    def _next_sound(self, jitter: WebStream) -> bytes:
        while True:
            pulled = jitter.pull()
            try:
                if pulled.kind is PullKind.PLAY:
                    sound = self._decoder.decode(pulled.payload)
                    if pulled.must_drop or (pulled.spare and _is_quiet(sound)):
                        jitter.dropped()
                        continue
                    return sound
                if pulled.kind is PullKind.RECOVER:
                    return self._decoder.recover(pulled.payload, pulled.samples)
                if pulled.kind is PullKind.LATE:
                    return self._decoder.conceal(pulled.samples)
                if pulled.kind is PullKind.REST:
                    continue
            except OpusError:
                return SILENCE
            return b""

    def owe(self, timestamp: int) -> None:
        """A tick passes: the browser is owed the frame of this timestamp."""
        self.underrun = False
        self._owed.append(timestamp)
        if self._waiting:
            self._send(self._waiting.popleft())
        elif len(self._owed) > LATE:
            self.underrun = True
            self._send(SILENCE)

    def take(self, sound: bytes) -> None:
        """20 ms from the hall; empty when it has none. Sent at once when a tick is waiting for it."""
        if not self._owed:
            if sound and len(self._waiting) < CUSHION:
                self._waiting.append(sound)
            return
        if not sound:  # in a pause, what the hall's lateness cost is made up for
            while len(self._owed) > 1:
                self._owed.popleft()
        self._send(sound or SILENCE)

    @property
    def bridged(self) -> bool:
        """A target has the caller."""
        return self.bridge is not None and self.bridge.joined

    def open_bridge(self) -> int:
        """A new way to a target: its port. Raises `OSError`."""
        self.close_bridge()
        self.bridge = TargetBridge(self.take)
        return self.bridge.port

    def close_bridge(self) -> None:
        """There is none any more."""
        bridge, self.bridge = self.bridge, None
        if bridge is not None:
            bridge.close()

    def _send(self, sound: bytes) -> None:
        """The frame of the oldest tick that is owed one. `SILENCE` itself is never the hall's."""
        timestamp = self._owed.popleft()
        if sound is not SILENCE and self.sending and not self.bridged:
            self.played += FRAME
        self._silent = self._silent + 1 if sound == SILENCE else 0
        if self._silent <= HANGOVER or not self._last_packet:
            self._last_packet = self._encoder.encode(sound)
        if self.sending:
            self._voice.put(self._last_packet, timestamp)


def _is_quiet(sound: bytes) -> bool:
    samples = memoryview(sound).cast("h")
    return max(samples) < QUIET and min(samples) > -QUIET
