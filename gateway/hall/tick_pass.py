"""The hall: every call of its lines, in one asyncio process, in step with the lines' ticks.

`turn` is the hot path: once for all ticks gathered in a few milliseconds it changes rates, judges speech,
lets each call take its frame, pulls what each has to say, marks it, and answers the lines. No awaits, no
locks, no logs in the ordinary case, numpy over all calls at once. An error of one call ends that call and no
other.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.hall.audio import FRAME_S, HOUSE_HZ, VAD_HZ, Floats, RateChanger, VoiceActivity, to_float
from gateway.hall.call import Call
from gateway.hall.leg import Legs
from gateway.hall.playout import FRAME
from gateway.hall.ticks import RATES_HZ, TickLine
from gateway.ipc import tick
from watermark.carrier import HOPS_HZ
from watermark.frames import Frame, MarkedFrame, Silence
from watermark.mark import MarkerBank

CAPACITY: Final = 256
"""Calls one hall can hold; its rows in every batched stage."""
HOPS: Final = round(FRAME_S * HOPS_HZ)
"""The marker's hops in a frame."""
QUIET: Final = np.zeros(FRAME, np.float32)
SILENCE: Final = Silence(FRAME)
LATE_S: Final = 0.010
"""A turn that takes longer is counted as late: half of a frame is gone."""


@dataclass(slots=True)
class Counters:
    """What the hall counts; the front turns it into metrics."""

    turns: int = 0
    frames: int = 0
    late_turns: int = 0
    late_ticks: int = 0
    busy_s: float = 0.0
    mark_alarms: int = 0
    marks_checked: int = 0
    underruns: int = 0
    marked_s: float = 0.0


class Rate:
    """The stages of all lines of one rate."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.frame = round(rate_hz * FRAME_S)
        self.to_house = RateChanger(rate_hz, HOUSE_HZ, CAPACITY)
        self.to_vad = RateChanger(rate_hz, VAD_HZ, CAPACITY) if rate_hz != VAD_HZ else None
        self.legs = Legs(rate_hz, CAPACITY)

    def reset(self, row: int) -> None:
        self.to_house.reset(row)
        if self.to_vad is not None:
            self.to_vad.reset(row)
        self.legs.reset(row)


class Floor:
    """Where calls stand, row by row, and the pass over them."""

    def __init__(self, bank: MarkerBank, activity: VoiceActivity | None = None) -> None:
        self.counters = Counters()
        self.rates = {rate_hz: Rate(rate_hz) for rate_hz in RATES_HZ}
        self.bank = bank
        self._vad = activity or VoiceActivity(CAPACITY)
        self.check_due: Callable[[Call], None] = lambda _: None
        """told when a call has been sent enough voice to look for its mark"""
        self._free = list(range(CAPACITY - 1, -1, -1))
        self._on_line: dict[tuple[str, int], Call] = {}

    def take_row(self) -> int | None:
        """A row for a new call; None when the hall is full."""
        return self._free.pop() if self._free else None

    def seat(self, call: Call, line: str, number: int, rate_hz: int) -> None:
        """The call's sound comes on `line` under `number` from now on."""
        self._unseat(call)
        call.rate_hz = rate_hz
        call.number = number
        call.played_seen = None
        self.rates[rate_hz].reset(call.row)
        self._vad.reset(call.row)
        self._on_line[line, number] = call

    def aim(self, call: Call, gain: float) -> None:
        """The gain that the call's leg ramps to within its next frame."""
        if call.rate_hz:
            self.rates[call.rate_hz].legs.aim(call.row, gain)

    def leave(self, call: Call) -> None:
        """The call is over; its row is free again."""
        self._unseat(call)
        if call.mark_slot >= 0:
            self.bank.close(call.mark_slot)
            call.mark_slot = -1
        self._free.append(call.row)

    def _unseat(self, call: Call) -> None:
        for key in [key for key, seated in self._on_line.items() if seated is call]:
            del self._on_line[key]

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def turn(self, lines: list[TickLine]) -> None:
        began = time.perf_counter()
        now = time.monotonic()
        by_rate: dict[int, list[tuple[TickLine, list[tick.Tick]]]] = defaultdict(list)
        for line in lines:
            waiting, line.waiting = line.waiting, []
            if waiting:
                by_rate[line.rate_hz].append((line, waiting))
        for rate_hz, members in by_rate.items():
            stages = self.rates[rate_hz]
            for depth in range(max(len(waiting) for _, waiting in members)):
                ticks = [(line, waiting[depth]) for line, waiting in members if depth < len(waiting)]
                self._listen(stages, ticks, now)
                newest = [(line, waiting[depth]) for line, waiting in members if depth == len(waiting) - 1]
                self._speak(stages, newest)
            for line, waiting in members:
                line.late += len(waiting) - 1
                self.counters.late_ticks += len(waiting) - 1
        took = time.perf_counter() - began
        self.counters.turns += 1
        self.counters.busy_s += took
        self.counters.late_turns += took > LATE_S

    def _listen(self, stages: Rate, ticks: list[tuple[TickLine, tick.Tick]], now: float) -> None:
        """The callers' 20 ms of one tick of each line."""
        calls: list[Call] = []
        pcm: list[bytes | memoryview] = []
        seated = self._on_line
        whole = 2 * stages.frame
        for line, packet in ticks:
            for audio in packet.slots:
                call = seated.get((line.name, audio.call))
                if call is None:
                    continue
                flags = audio.flags
                call.sending = bool(flags & tick.SENDING)
                call.receiving = bool(flags & tick.RECEIVING)
                if flags & tick.UNDERRUN:
                    call.underruns += 1
                    self.counters.underruns += 1
                try:
                    call.count_played(audio.played)
                    if len(audio.pcm) != whole:
                        call.hear(None, None, now)
                        continue
                except Exception:
                    call.broke("tick")
                    continue
                calls.append(call)
                pcm.append(audio.pcm)
        if not calls:
            return
        self.counters.frames += len(calls)
        rows = np.fromiter((call.row for call in calls), np.intp, len(calls))
        heard = to_float(np.frombuffer(b"".join(pcm), "<i2").reshape(len(calls), stages.frame))
        house = stages.to_house.change(rows, heard)
        narrow = heard if stages.to_vad is None else stages.to_vad.change(rows, heard)
        judged = self._vad.judge(rows, narrow)
        for call, frame in zip(calls, house, strict=True):
            try:
                call.hear(frame, judged.get(call.row), now)
            except Exception:
                call.broke("hear")

    def _speak(self, stages: Rate, ticks: list[tuple[TickLine, tick.Tick]]) -> None:
        """Answers each line's newest tick with what its calls have to say."""
        talking: list[Call] = []
        sound: list[Floats] = []
        answers: list[tuple[TickLine, int, list[tick.SlotAudio]]] = []
        places: list[tuple[list[tick.SlotAudio], tick.SlotAudio]] = []
        """for each talking call, its line's answers and the slot it is in"""
        resting: list[int] = []
        """mark slots of calls that say nothing: their carriers' time goes on"""
        seated = self._on_line
        for line, packet in ticks:
            slots: list[tick.SlotAudio] = []
            answers.append((line, packet.seq, slots))
            for audio in packet.slots:
                call = seated.get((line.name, audio.call))
                if call is None or not call.sending:
                    continue
                try:
                    frame = call.playout.pull()
                except Exception:
                    call.broke("playout")
                    continue
                if frame is None:
                    if not call.tail:
                        resting.append(call.mark_slot)
                        continue
                    call.tail = False
                    frame = QUIET
                else:
                    call.tail = True
                talking.append(call)
                sound.append(frame)
                places.append((slots, audio))
        if talking:
            frames = self._mark(talking, np.stack(sound))
            rows = np.fromiter((call.row for call in talking), np.intp, len(talking))
            out = stages.legs.play(rows, frames)
            for (slots, audio), pcm in zip(places, out, strict=True):
                slots.append(tick.SlotAudio(audio.call, audio.slot, tick.SENDING, 0, pcm.data.cast("B")))
        if resting:
            self.bank.rest(np.array(resting, np.intp), HOPS)
        for line, seq, slots in answers:
            line.answer(tick.pack(seq, slots))

    def _mark(self, calls: list[Call], block: Floats) -> list[Frame]:
        """Marked frames; silence for a call that is muted or whose frame could not be marked."""
        slots = np.fromiter((call.mark_slot for call in calls), np.intp, len(calls))
        hops = [self.bank.position(call.mark_slot) for call in calls]
        try:
            marked: Sequence[MarkedFrame | Exception] = self.bank.mark(slots, block)
        except Exception as error:
            marked = [error] * len(calls)
        frames: list[Frame] = []
        for call, frame, hop in zip(calls, marked, hops, strict=True):
            if isinstance(frame, Exception):
                self.counters.mark_alarms += 1
                call.alarm(frame)
                frames.append(SILENCE)
            elif call.muted is not None:
                frames.append(SILENCE)
            else:
                call.spoken_samples += FRAME
                frames.append(frame)
                if call.check is not None and call.check.heard(hop, frame.samples):
                    self.check_due(call)
        self.counters.marked_s += len(frames) * FRAME_S
        return frames

    def snapshot(self) -> dict[str, float]:
        """Counters for the metrics."""
        return {name: getattr(self.counters, name) for name in Counters.__slots__} | {
            "seated": len(self._on_line)
        }
