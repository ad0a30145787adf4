"""The way out of the 20 ms pass: what each call says is pulled, marked, and played by its leg.

Hot path: no awaits, no locks, no logs in the ordinary case, numpy over all calls at once. An error of one
call ends that call and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.hall.calls.seat import Seated
from gateway.hall.calls.sound_meter import NOT_MARKED, SoundMeter
from gateway.hall.calls.ticks import TickLine
from gateway.hall.media.audio import FRAME_S, Floats
from gateway.hall.media.inspector import Inspector
from gateway.hall.media.rate import Rate
from gateway.hall.parts.playout import FRAME
from gateway.ipc import tick
from watermark.carrier import HOPS_HZ
from watermark.frames import Frame, MarkedFrame, Silence
from watermark.mark import MarkerBank

HOPS: Final = round(FRAME_S * HOPS_HZ)
"""The marker's hops in a frame."""
QUIET: Final = np.zeros(FRAME, np.float32)
SILENCE: Final = Silence(FRAME)


class VoicePass:
    """`seated`: the calls by their line's name and their number there."""

    def __init__(
        self, bank: MarkerBank, seated: Mapping[str, Mapping[int, Seated]], meter: SoundMeter
    ) -> None:
        self.inspector = Inspector()
        self._bank = bank
        self._seated = seated
        self._meter = meter

    def speak(self, stages: Rate, ticks: list[tuple[TickLine, tick.Tick]]) -> tuple[int, int]:
        """Answers each line's newest tick with what its calls have to say. Returns how many frames were made
        for them, and how many of these could not be marked and went out as silence."""
        talking: list[Seated] = []
        sound: list[Floats] = []
        answers: list[tuple[TickLine, int, list[tick.Slot]]] = []
        # for each talking call, its line's answers, and its number and slot there
        places: list[tuple[list[tick.Slot], int, int]] = []
        # mark slots of calls that say nothing: their carriers' time goes on
        resting: list[int] = []
        for line, packet in ticks:
            slots: list[tick.Slot] = []
            answers.append((line, packet.seq, slots))
            here = self._seated.get(line.name)
            if here is None:
                continue
            for number, slot, _, _, _ in packet.slots:
                call = here.get(number)
                if call is None:
                    continue
                seat = call.seat
                if not seat.sending:
                    continue
                try:
                    frame = call.playout.pull()
                except Exception:
                    call.broke("playout")
                    continue
                if frame is not None:
                    seat.talk()
                elif seat.pause():
                    frame = QUIET
                else:
                    resting.append(seat.mark_slot)
                    continue
                talking.append(call)
                sound.append(frame)
                places.append((slots, number, slot))
        alarms = 0
        if talking:
            frames, alarms = self._mark(talking, np.concatenate(sound).reshape(len(sound), FRAME))
            rows = np.array([call.seat.row for call in talking], np.intp)
            out = stages.legs.play(rows, frames)
            self._meter.send(rows, out, stages.legs.softened(rows))
            raw, size = out.data.cast("B"), 2 * out.shape[1]
            at = 0
            for call, (slots, number, slot), pcm in zip(talking, places, out, strict=True):
                call.seat.echo.ours.send(pcm)
                slots.append((number, slot, tick.SENDING, 0, raw[at : at + size]))
                at += size
        if resting:
            self._bank.rest(np.array(resting, np.intp), HOPS)
        for line, seq, slots in answers:
            line.answer(tick.pack(seq, slots))
        return len(talking), alarms

    def _mark(self, calls: list[Seated], block: Floats) -> tuple[list[Frame], int]:
        """Marked frames; silence for a call that is muted or whose frame could not be marked, and how many
        could not."""
        marks = [call.seat.mark_slot for call in calls]
        slots = np.array(marks, np.intp)
        hops = list(map(self._bank.position, marks))
        try:
            marked: Sequence[MarkedFrame | Exception] = self._bank.mark(slots, block)
        except Exception as error:
            marked = [error] * len(calls)
        frames: list[Frame] = []
        alarms = 0
        for call, frame, hop in zip(calls, marked, hops, strict=True):
            seat = call.seat
            if isinstance(frame, Exception):
                alarms += 1
                self._meter.flag(seat.row, NOT_MARKED)
                if seat.alarm():
                    call.alarm(frame)
                frames.append(SILENCE)
            elif call.licence.muted is not None:
                frames.append(SILENCE)
            else:
                seat.count_spoken(FRAME)
                frames.append(frame)
                if seat.check.heard(hop, frame.samples):
                    self.inspector.look(seat.check.take(), call.judge_mark, call.id)
        return frames, alarms
