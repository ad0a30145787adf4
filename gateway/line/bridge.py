"""The conference bridge's side of a line: a port per slot, and the clock that ticks the hall.

pjmedia turns its bridge every 20 ms: first it pulls a frame from every port somebody listens to, then it
pushes what each port hears, in the order in which the ports were made. The slots' ports are made first and
the clock's port after them, so when the clock's push comes, all that this turn heard is there: that is the
tick. The ports live as long as the line; calls come and go on them.

Hot path (20 ms, the bridge's own thread, which also sends the RTP): it waits for nothing, logs nothing, and
lets no exception out. Frames are copied by address: `bytes(frame.buf)` takes 129 µs, a copy 1 to 2 µs.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import pjsua2 as pj

from gateway.errors import LineError
from gateway.ipc import tick

FRAME_MS: Final = 20
WAITING_LIMIT: Final = 5
"""Answers a call may have waiting (100 ms). More than one wait only after the clock or the hall was late."""

AUDIO: Final = 1
"""PJMEDIA_FRAME_TYPE_AUDIO."""
_AUDIO_BYTES: Final = struct.pack("<i", AUDIO)
_FRAME: Final = struct.Struct("<i4xQQQI")
"""pj::MediaFrame on a 64-bit machine: type, std::vector<unsigned char> (begin, end, capacity), size."""


def check_frame_layout() -> None:
    """Raises `LineError` unless pj::MediaFrame lies in memory as `_FRAME` says."""
    frame, buffer = pj.MediaFrame(), pj.ByteVector()
    for byte in b"voicegate":
        buffer.append(byte)
    frame.type, frame.size, frame.buf = AUDIO, 9, buffer
    kind, begin, end, _, size = _FRAME.unpack(ctypes.string_at(int(frame.this), _FRAME.size))
    if (kind, end - begin, size) != (AUDIO, 9, 9) or ctypes.string_at(begin, 9) != b"voicegate":
        raise LineError("this pjsua2 build lays out its frames differently; voicegate knows 2.15.1")


class PcmPort(pj.AudioMediaPort):  # type: ignore[misc]  # pjsua2 ships no types
    """A port that hears and speaks int16 frames of 20 ms. Subclasses say what with them happens."""

    def __init__(self, name: str, rate_hz: int) -> None:
        super().__init__()
        self.frame_bytes = rate_hz * FRAME_MS // 1000 * 2
        self._silence = bytes(self.frame_bytes)
        self._out = pj.ByteVector(self.frame_bytes, 0)
        _, self._out_at, _, _, _ = _FRAME.unpack(
            bytes(8) + ctypes.string_at(int(self._out.this), 24) + bytes(4)
        )
        format_ = pj.MediaFormatAudio()
        format_.init(pj.PJMEDIA_FORMAT_PCM, rate_hz, 1, FRAME_MS * 1000, 16)
        self.createPort(name, format_)

    def pull(self) -> bytes | None:
        """The next 20 ms to play, `frame_bytes` long; None: silence."""
        return None

    def push(self, pcm: bytes | None) -> None:
        """20 ms were heard; None: nothing was."""

    def onFrameRequested(self, frame: Any) -> None:
        pcm = self.pull()
        # the copy is exactly as long as was asked for: a longer one would be a write past pjmedia's buffer
        ctypes.memmove(self._out_at, self._silence if pcm is None else pcm, self.frame_bytes)
        frame.buf = self._out
        ctypes.memmove(int(frame.this), _AUDIO_BYTES, 4)

    def onFrameReceived(self, frame: Any) -> None:
        kind, begin, end, _, _ = _FRAME.unpack(ctypes.string_at(int(frame.this), _FRAME.size))
        heard = kind == AUDIO and end - begin == self.frame_bytes
        self.push(ctypes.string_at(begin, self.frame_bytes) if heard else None)


class CallAudio:
    """One call's sound in this line, from its media's start to its end."""

    __slots__ = (
        "heard",
        "number",
        "played",
        "receiving",
        "sending",
        "ticked",
        "tones",
        "underrun",
        "waiting",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        """Names the call in ticks."""
        self.sending = False
        self.receiving = False
        self.heard: bytes | None = None
        self.waiting: deque[bytes | None] = deque(maxlen=WAITING_LIMIT)
        self.played = 0
        """Samples of the hall's sound the bridge pulled while we were sending."""
        self.ticked = False
        """The hall knows of the call, so that no answer now means an underrun."""
        self.underrun = False
        self.tones = 0
        """`tick.TONES`, or 0: what its ticks say of it"""

    def expect_tones(self, expected: bool) -> None:
        """Whether keys may come as sound, since no telephone-event was agreed."""
        self.tones = tick.TONES if expected else 0

    def turn_to(self, sending: bool, receiving: bool) -> None:
        """The call's media goes these ways."""
        self.sending, self.receiving = sending, receiving


class SlotPort(PcmPort):
    """One of the line's places for a call. `audio` is None while nobody's media is up here."""

    def __init__(self, bridge: Bridge, index: int) -> None:
        super().__init__(f"slot-{index}", bridge.rate_hz)
        self.index = index
        self.audio: CallAudio | None = None
        self._bridge = bridge

    def carry(self, audio: CallAudio) -> None:
        """A call's media is up here."""
        self.audio = audio

    def clear(self) -> None:
        """It is not any more."""
        self.audio = None

    def pull(self) -> bytes | None:
        audio = self.audio
        if audio is None:
            return None
        self._bridge.take_answers()
        waiting = audio.waiting
        if not waiting:
            audio.underrun = audio.ticked
            return None
        pcm = waiting.popleft()
        while pcm is None and waiting:  # late once, but silent now: the delay is not kept
            pcm = waiting.popleft()
        if pcm is None:
            return None
        if audio.sending:
            audio.played += self.frame_bytes >> 1
            return pcm
        return None

    def push(self, pcm: bytes | None) -> None:
        if (audio := self.audio) is not None:
            audio.heard = pcm if audio.receiving else None


class ClockPort(PcmPort):
    """Made after the slots, so it is pushed after them: the end of the bridge's turn."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__("clock", bridge.rate_hz)
        self._bridge = bridge
        self._settled = False

    def onFrameReceived(self, frame: Any) -> None:
        if not self._settled:
            # Keep this C thread's Python state from one callback to the next, instead of a new one each time.
            ctypes.pythonapi.PyGILState_Ensure()
            self._settled = True
        self._bridge.end_of_turn()


class Bridge:
    """A line's slots and their exchange with the hall. Make it once the library has started.

    `ticks` is the hall's socket, or None; the loop's thread gives and takes it, the clock's thread uses it.
    """

    def __init__(self, rate_hz: int, capacity: int) -> None:
        check_frame_layout()
        self.rate_hz = rate_hz
        self.ticks: socket.socket | None = None
        self.ticks_dropped = 0
        self.ticks_sent = 0
        self._sequence = 0
        self._taken = False
        self.slots = [SlotPort(self, index) for index in range(capacity)]
        self._clock = ClockPort(self)

    def live(self) -> Iterator[tuple[SlotPort, CallAudio]]:
        for slot in self.slots:
            if (audio := slot.audio) is not None:
                yield slot, audio

    def find_hall(self, ticks: socket.socket) -> None:
        """The hall is there: ticks go to this socket from now on."""
        self.ticks = ticks

    def lose_hall(self) -> None:
        """Nobody answers ticks, and what was answered before is not played late."""
        self.ticks = None
        for _, audio in self.live():
            audio.ticked = False
            audio.waiting.clear()

    def take_dropped(self) -> int:
        """Ticks that were dropped since the last time."""
        dropped, self.ticks_dropped = self.ticks_dropped, 0
        return dropped

    def take_answers(self) -> None:
        """Puts what the hall has sent by now where the slots find it; once a turn."""
        if self._taken or (ticks := self.ticks) is None:
            return
        self._taken = True
        try:
            while packet := ticks.recv(tick.MAX_PACKET):
                self._take(packet)
        except (BlockingIOError, LineError):
            pass
        except OSError:
            self.ticks = None

    def _take(self, packet: bytes) -> None:
        sounds = {audio.slot: audio for audio in tick.unpack(packet).slots}
        for slot, audio in self.live():
            if audio.ticked:
                sound = sounds.get(slot.index)
                mine = sound is not None and sound.call == audio.number and len(sound.pcm) == slot.frame_bytes
                audio.waiting.append(bytes(sound.pcm) if mine and sound is not None else None)

    def end_of_turn(self) -> None:
        """Sends the tick, if a call is live and the hall is there."""
        self.take_answers()
        self._taken = False
        heard: list[tick.SlotAudio] = []
        for slot, audio in self.live():
            pcm, audio.heard = audio.heard, None
            flags = (
                (tick.SENDING if audio.sending else 0)
                | (tick.RECEIVING if pcm is not None else 0)
                | (tick.UNDERRUN if audio.underrun else 0)
                | audio.tones
            )
            audio.underrun = False
            audio.ticked = self.ticks is not None
            heard.append(tick.SlotAudio(audio.number, slot.index, flags, audio.played, pcm or b""))
        if not heard or (ticks := self.ticks) is None:
            return
        self._sequence += 1
        try:
            ticks.send(tick.pack(self._sequence, heard))
            self.ticks_sent += 1
        except BlockingIOError:
            self.ticks_dropped += 1
        except OSError:
            self.ticks = None
