"""A caller's RTP as a script: packets, when they come, and what is heard of them, on a clock of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.rtp.agreement import Agreement
from gateway.rtp.media.last_turns import LastTurns
from gateway.rtp.media.rtp_receiver import RtpReceiver
from gateway.rtp.payloads import g711
from gateway.rtp.payloads.packet import read_rtp, write_rtp

TICK_S = 0.02
STEP = 160
SSRC = 0x5EED
Samples = NDArray[np.int16]


def agreed(**changed: Any) -> Agreement:
    """PCMU with keys on 101 and comfort noise on 13, both ways."""
    usual: dict[str, Any] = {
        "codec": "PCMU",
        "sent_as": 0,
        "takes": {0: "PCMU", 8: "PCMA"},
        "event": 101,
        "takes_events": frozenset({101}),
        "takes_noise": frozenset({13}),
        "packet_ms": 20,
        "peer": ("127.0.0.1", 4000),
        "peer_rtcp": ("127.0.0.1", 4001),
        "mux": False,
        "sending": True,
        "receiving": True,
    }
    return Agreement(**(usual | changed))


def level(n: int) -> int:
    """The nth frame's sound: all its samples are this, and mu-law says it exactly."""
    return int(g711.decode("PCMU", bytes((n % 100 + 20,)))[0])


def sound(n: int, kind: int = 0, ssrc: int = SSRC, first: int = 1000, first_timestamp: int = 0) -> bytes:
    """The nth packet of a stream of 20 ms packets, in which each frame has a `level` of its own."""
    law: g711.Law = "PCMA" if kind == 8 else "PCMU"
    codes = g711.encode(law, np.full(STEP, level(n), np.int16))
    return write_rtp(kind, first + n, first_timestamp + n * STEP, ssrc, codes)


def event(number: int, timestamp: int, code: int, duration: int, end: bool = False, kind: int = 101) -> bytes:
    payload = struct.pack(">BBH", code, 0x80 if end else 0, duration)
    return write_rtp(kind, number, timestamp, SSRC, payload)


@dataclass
class Listening:
    """Takes packets when they come and a frame at each tick, 3 ms after it."""

    agreement: Agreement = field(default_factory=agreed)
    now: float = 0.0
    keys: list[str] = field(default_factory=list)
    frames: list[Samples | None] = field(default_factory=list)
    """what each tick heard, decoded"""

    def __post_init__(self) -> None:
        self.receiver = RtpReceiver(self.agreement, lambda: self.now)
        self._last = LastTurns()
        self._next_tick = 0.003

    def run(self, arrivals: Iterable[tuple[float, bytes]], until: float) -> Listening:
        waiting = sorted(arrivals, key=lambda arrival: arrival[0])
        while self._next_tick < until:
            while waiting and waiting[0][0] <= self._next_tick:
                self.now, data = waiting.pop(0)
                if (packet := read_rtp(data)) is not None:
                    digit = self.receiver.take(packet, data)
                    if digit is not None:
                        self.keys.append(digit)
            self.now = self._next_tick
            self.frames.append(self._decoded(self.receiver.frame(self._last, 0)))
            self._next_tick += TICK_S
        return self

    def _decoded(self, frame: bytes | Samples | None) -> Samples | None:
        if frame is None:
            self._last.note([])
            return None
        pcm = g711.decode(self.receiver.law_of(frame), frame[1:]) if isinstance(frame, bytes) else frame
        self._last.note([([0], pcm[None])])
        return pcm

    def heard(self) -> list[int]:
        """The levels of the frames that are one whole packet's, in order."""
        found = []
        for frame in self.frames:
            if frame is not None and len(set(frame.tolist())) == 1 and frame[0]:
                found.append(int(frame[0]))
        return found


def on_time(packets: Iterable[bytes], delay_s: float = 0.001) -> list[tuple[float, bytes]]:
    return [(n * TICK_S + delay_s, packet) for n, packet in enumerate(packets)]
