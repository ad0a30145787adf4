"""What a caller leaves: their sound to a WAV file, as the line received it, and nothing of ours.

A tap on the call's frames; the file is written in a worker thread, never in the hot path.
"""

from __future__ import annotations

import asyncio
import os
import time
import wave
from pathlib import Path
from typing import Final

import numpy as np

from gateway.hall.calls.call import Call
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, Floats
from gateway.hall.parts.inbox import CallEnded, Dtmf
from gateway.ipc.ending import CallEnding, End
from gateway.store.call_events import SoundRecorded
from watermark.pcm import bytes_from_float

FLUSH_S: Final = 1.0


class Recording:
    """Records one call's caller until `max_s`, `silence_s` of quiet, a key, or the end of the call.

    The file is a new one in a folder of its day, below `folder`.
    """

    def __init__(self, call: Call, folder: Path, max_s: float, silence_s: float) -> None:
        self._call = call
        self._folder = folder
        self._max_s = max_s
        self._silence_s = silence_s
        self._frames: list[Floats] = []
        self.seconds = 0.0

    def hear(self, frame: Floats | None) -> None:
        """The hot path's door: one 20 ms frame, None when nothing arrived."""
        self._frames.append(frame if frame is not None else np.zeros(round(HOUSE_HZ * FRAME_S), np.float32))

    async def run(self) -> Path:
        """Records; returns the file (24 kHz mono PCM16, readable by the owner only).

        Raises `CallEnded`, also when the disk does not take it: who leaves a message is not told "thank you"
        for one that is not kept.
        """
        call = self._call
        now_s = call.clocks.time()
        folder = self._folder / time.strftime("%Y-%m-%d", time.gmtime(now_s))
        path = folder / f"{call.id}-{int(now_s)}.wav"
        failed: str | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._record(path)
        except OSError as error:
            failed = error.strerror or str(error)
            call.log.error("recording.failed", path=str(path), seconds=round(self.seconds, 2), error=failed)
            raise CallEnded(CallEnding(End.UNRECORDED, failed)) from None
        finally:
            left = SoundRecorded(path=str(path), seconds=round(self.seconds, 2), error=failed)
            call.session.tell(left, important=True)
        return path

    async def _record(self, path: Path) -> None:
        """Until it is over. Raises `CallEnded`, and `OSError` when the disk does not take it."""
        call, clocks = self._call, self._call.clocks
        call.ear.restart_silence()
        began = call.ear.last_sound
        with (
            call.ear.tap(self.hear),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as raw,
            wave.open(raw) as out,
        ):
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(HOUSE_HZ)
            try:
                while True:
                    event = await call.inbox.next(FLUSH_S)
                    await asyncio.to_thread(self._flush, out)
                    now = clocks.monotonic()
                    if isinstance(event, Dtmf):
                        return
                    if now - began > self._max_s or now - call.ear.last_sound > self._silence_s:
                        return
            finally:
                self._flush(out)

    def _flush(self, out: wave.Wave_write) -> None:
        frames, self._frames = self._frames, []
        if frames:
            sound = np.concatenate(frames)
            out.writeframes(bytes_from_float(sound))
            self.seconds += len(sound) / HOUSE_HZ
