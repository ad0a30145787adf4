"""What a test phone's call hears and says, frame by frame, on the bridge's clock."""

from __future__ import annotations

import array
import time
from bisect import bisect_left
from typing import Final

from gateway.phone.pcm_port import FRAME_MS, PcmPort

LOUD: Final = 300
"""Peak of a frame (of 32,768) from which it counts as sound: -41 dBFS, above a coded silence."""
ONSET_FRAMES: Final = 5
"""Frames of silence before a loud one, that it counts as a beginning: pauses inside words are shorter."""
SPAN_S: Final = FRAME_MS / 1000
LOUDEST: Final = (1 << 15) - 1
"""What a sample of a frame holds."""


def is_loud(pcm: bytes) -> bool:
    samples = array.array("h", pcm)
    return max(samples) >= LOUD or min(samples) <= -LOUD


def mixed(one: bytes, other: bytes) -> bytes:
    """Two frames of int16, one over the other."""
    pairs = zip(array.array("h", one), array.array("h", other), strict=True)
    return array.array("h", [max(-LOUDEST - 1, min(LOUDEST, a + b)) for a, b in pairs]).tobytes()


class PhoneEar(PcmPort):
    """One call's; `loud[n]` and `times[n]` belong to the n-th 20 ms that it heard."""

    def __init__(self, name: str, rate_hz: int, background: bytes = b"") -> None:
        super().__init__(name, rate_hz)
        self.heard = bytearray()
        self.loud = bytearray()
        self.times = array.array("d")
        self.open = False
        self.speech = b""
        self.spoken = 0
        self.last_loud_end = 0.0
        self._background = background[: len(background) // self.frame_bytes * self.frame_bytes]
        self._background_at = 0

    def say(self, pcm: bytes) -> None:
        self.spoken, self.speech = 0, pcm

    @property
    def speaking(self) -> bool:
        return self.spoken < len(self.speech)

    def pull(self) -> bytes | None:
        behind = self._behind() if self._background else None
        if not self.speaking:
            return behind
        frame = self.speech[self.spoken : self.spoken + self.frame_bytes].ljust(self.frame_bytes, b"\0")
        self.spoken += self.frame_bytes
        if is_loud(frame):
            self.last_loud_end = time.monotonic() + SPAN_S
        return frame if behind is None else mixed(frame, behind)

    def _behind(self) -> bytes:
        at = self._background_at
        self._background_at = (at + self.frame_bytes) % len(self._background)
        return self._background[at : at + self.frame_bytes]

    def push(self, pcm: bytes | None) -> None:
        if self.open:
            self.times.append(time.monotonic())
            self.loud.append(pcm is not None and is_loud(pcm))
            self.heard += pcm if pcm is not None else bytes(self.frame_bytes)

    def silent_frames(self) -> int:
        return len(self.loud) - 1 - self.loud.rfind(1)

    def onset_after(self, at: float, before: float) -> float | None:
        """When the first sound after `at` began; a sound that was already going on does not count."""
        quiet, start = 0, max(0, bisect_left(self.times, at) - ONSET_FRAMES)
        for loud, when in zip(self.loud[start:], self.times[start:], strict=False):
            if loud and quiet >= ONSET_FRAMES and at <= when < before:
                return when
            quiet = 0 if loud else quiet + 1
        return None

    def voice_since(self, pause_s: float) -> float | None:
        """When what they are saying now began; pauses shorter than `pause_s` belong to it. None: they are
        silent."""
        count = min(len(self.loud), len(self.times))
        if not count or not self.loud[count - 1]:
            return None
        began, quiet = self.times[count - 1], 0
        for at in range(count - 1, -1, -1):
            if self.loud[at]:
                began, quiet = self.times[at], 0
            elif (quiet := quiet + 1) * SPAN_S >= pause_s:
                break
        return began
