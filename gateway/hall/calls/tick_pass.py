"""The 20 ms pass over every call of the hall's lines, in step with the lines' ticks.

`Floor.turn` is the hot path: once for all ticks gathered in a few milliseconds it changes rates, judges
speech, lets each call take its frame, pulls what each has to say, marks it, and answers the lines. No awaits,
no locks, no logs in the ordinary case, numpy over all calls at once. An error of one call ends that call and
no other.

Calls whose line sends us our own voice are heard after the pass, a few at a time and before the next one:
taking an echo out costs more than all the rest, and no line waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.hall.calls.seat import Seat, Seated
from gateway.hall.calls.sound_meter import SPEECH as SPEECH_FLAG
from gateway.hall.calls.sound_meter import UNDERRUN, SoundMeter
from gateway.hall.calls.ticks import RATES_HZ, TickLine
from gateway.hall.calls.voice_pass import HOPS, VoicePass
from gateway.hall.media.audio import FRAME_S, Floats, Rows, VoiceActivity
from gateway.hall.media.echo import Cancellers, EchoGuard
from gateway.hall.media.key_tones import KeyTones
from gateway.hall.media.noise import NoiseFloor
from gateway.hall.media.rate import CAPACITY, Rate
from gateway.hall.parts.clocks import Clocks
from gateway.ipc import tick
from watermark.keys import MarkKey
from watermark.mark import MarkerBank
from watermark.pcm import float_from_bytes
from watermark.selfcheck import SelfCheck

SPEECH: Final = 0.5
"""Probability of speech from which a guard may look for an echo."""
LOOKS: Final = 4
"""Echoes that are looked for in one turn (.3 ms each); the other calls' guards wait for the next one."""
TOGETHER: Final = 8
"""Calls whose echo is taken out in one go (.2 ms each); between two goes other things may happen."""
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
    underruns: int = 0
    marked_s: float = 0.0
    echoes: int = 0
    """found in calls"""
    echo_looks: int = 0
    echo_frames_late: int = 0
    """that there was no time to take an echo out of"""


class _Heard:
    """What one tick of each line of a rate brought of some calls."""

    __slots__ = ("at", "calls", "pcm", "stages", "toned")

    def __init__(self, stages: Rate, at: float) -> None:
        self.stages = stages
        self.at = at
        """when, monotonic"""
        self.calls: list[Seated] = []
        self.pcm: list[bytes | memoryview] = []
        self.toned: list[int] = []
        """which of the calls may press keys as sound"""

    def keep(self, which: list[bool]) -> None:
        """Forgets the calls that are not to be kept."""
        if all(which):
            return
        moved = {at: now for now, at in enumerate(itertools.compress(range(len(which)), which))}
        self.toned = [moved[at] for at in self.toned if at in moved]
        self.calls = list(itertools.compress(self.calls, which))
        self.pcm = list(itertools.compress(self.pcm, which))

    def rows(self) -> Rows:
        return np.array([call.seat.row for call in self.calls], np.intp)

    def sound(self) -> Floats:
        """float32 `(B, rate_hz * 0.02)`"""
        return float_from_bytes(b"".join(self.pcm)).reshape(len(self.calls), self.stages.frame)


class Floor:
    """Where calls stand, row by row, and the pass over them."""

    def __init__(
        self,
        bank: MarkerBank,
        mark_key: MarkKey,
        *,
        activity: VoiceActivity | None = None,
        noise: NoiseFloor | None = None,
        clocks: Clocks = time,
    ) -> None:
        self.counters = Counters()
        self.rates = {rate_hz: Rate(rate_hz) for rate_hz in RATES_HZ}
        self._bank = bank
        self._mark_key = mark_key
        self._vad = activity or VoiceActivity(CAPACITY)
        self._key_tones = KeyTones(CAPACITY)
        self._clocks = clocks
        self._cancellers = Cancellers()
        self._echoing: deque[_Heard] = deque()
        """what calls with an echo said in the last turn; it waits until the lines have their answers"""
        self._noise = noise or NoiseFloor(CAPACITY)
        self._looks = LOOKS
        """echoes that may still be looked for in this turn"""
        self._free = list(range(CAPACITY - 1, -1, -1))
        self._on_line: dict[str, dict[int, Seated]] = {}
        """by their line's name and their number there"""
        self._meter = SoundMeter(CAPACITY, clocks)
        self._voices = VoicePass(bank, self._on_line, self._meter)
        self.inspector = self._voices.inspector

    def open_seat(self, payload: int, age_s: float = 0.0) -> Seat | None:
        """A seat for a call, whose marks carry `payload`; None when the hall is full.

        A call that is `age_s` old was marked before: its marks go on from there, so that none is used twice.
        Raises `ValueError` when `payload` does not fit into a mark.
        """
        if not self._free:
            return None
        check = SelfCheck(self._mark_key, payload)
        mark_slot = self._bank.open(payload, round(age_s / FRAME_S) * HOPS)
        row = self._free.pop()
        self._meter.admit(row, age_s)
        return Seat(row, mark_slot, check, EchoGuard(self._cancellers))

    def seat(self, call: Seated, line: str, number: int, rate_hz: int) -> None:
        """The call's sound comes on `line` under `number` from now on."""
        self._unseat(call.seat)
        call.seat.move(self.rates[rate_hz])
        self._vad.reset(call.seat.row)
        self._noise.reset(call.seat.row)
        self._key_tones.reset(call.seat.row)
        self._on_line.setdefault(line, {})[number] = call
        self._meter.begin(call)

    def leave(self, seat: Seat) -> None:
        """The call is over; its row is free again."""
        self._unseat(seat)
        self._bank.close(seat.mark_slot)
        seat.echo.close()
        self._meter.end(seat.row)
        self._free.append(seat.row)

    def _unseat(self, seat: Seat) -> None:
        for line, here in list(self._on_line.items()):
            for number in [number for number, seated in here.items() if seated.seat is seat]:
                del here[number]
            if not here:
                del self._on_line[line]

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def turn(self, lines: list[TickLine]) -> None:
        began = time.perf_counter()
        now = self._clocks.monotonic()
        self._meter.turn(now)
        by_rate: dict[int, list[tuple[TickLine, list[tick.Tick]]]] = defaultdict(list)
        for line in lines:
            waiting = line.take_waiting()
            if waiting:
                by_rate[line.rate_hz].append((line, waiting))
        self._looks = LOOKS
        while self._echoing:  # there was no time for these: the hall has more to do than it can
            self._hear_past_echo(self._echoing.popleft(), late=True)
        for rate_hz, members in by_rate.items():
            stages = self.rates[rate_hz]
            for depth in range(max(len(waiting) for _, waiting in members)):
                ticks = [(line, waiting[depth]) for line, waiting in members if depth < len(waiting)]
                self._listen(stages, ticks, now)
                newest = [(line, waiting[depth]) for line, waiting in members if depth == len(waiting) - 1]
                marked, alarms = self._voices.speak(stages, newest)
                self.counters.marked_s += marked * FRAME_S
                self.counters.mark_alarms += alarms
            for line, waiting in members:
                line.count_late(len(waiting) - 1)
                self.counters.late_ticks += len(waiting) - 1
        if self._echoing:
            asyncio.get_running_loop().call_soon(self._hear_some_past_echo)
        took = time.perf_counter() - began
        self.counters.turns += 1
        self.counters.busy_s += took
        self.counters.late_turns += took > LATE_S

    def _listen(self, stages: Rate, ticks: list[tuple[TickLine, tick.Tick]], now: float) -> None:
        """The callers' 20 ms of one tick of each line; those of calls with an echo wait."""
        plain, echoing = _Heard(stages, now), _Heard(stages, now)
        waiting: list[_Heard] = []
        whole, rate_hz = 2 * stages.frame, stages.rate_hz
        nothing = bytes(whole)
        for line, packet in ticks:
            here = self._on_line.get(line.name)
            if here is None:
                continue
            for number, _, flags, played, pcm in packet.slots:
                call = here.get(number)
                if call is None:
                    continue
                seat = call.seat
                came = len(pcm) == whole
                try:
                    if flags & tick.UNDERRUN:
                        self.counters.underruns += 1
                        self._meter.flag(seat.row, UNDERRUN)
                    heard_of_us = seat.tick(flags, played, pcm if came else nothing, rate_hz)
                    if heard_of_us is not None:
                        call.playout.played(heard_of_us)
                    if not came:
                        if flags & tick.TONES:
                            self._key_tones.miss(seat.row)
                        if not call.ear.rests(None, now, sending=seat.sending):
                            call.ear.hear(None, None, now, sending=seat.sending)
                        continue
                except Exception:
                    call.broke("tick")
                    continue
                if seat.echo.on and len(echoing.calls) == TOGETHER:
                    waiting.append(echoing)
                    echoing = _Heard(stages, now)
                heard = echoing if seat.echo.on else plain
                if flags & tick.TONES:
                    heard.toned.append(len(heard.calls))
                heard.calls.append(call)
                heard.pcm.append(pcm)
        if echoing.calls:
            waiting.append(echoing)
        self._echoing.extend(waiting)
        self.counters.frames += len(plain.calls) + sum(len(heard.calls) for heard in waiting)
        if plain.calls:
            self._hear(plain)

    def _hear(self, heard: _Heard) -> None:
        """Some callers' 20 ms of one tick, as they came. Those in whose calls nobody says anything are only
        judged: they need not be at another rate."""
        rows, sound, stages = heard.rows(), heard.sound(), heard.stages
        self._meter.hear(rows, sound)
        narrow = stages.narrow(rows, sound)
        judged = self._judge(rows, narrow, [call.ear.turns.speaking for call in heard.calls])
        if heard.toned:
            self._hear_keys(heard, narrow, judged)
        awake: list[tuple[int, Seated, float | None]] = []
        for at, call in enumerate(heard.calls):
            seat, ear = call.seat, call.ear
            try:
                likely = judged.get(seat.row)
                if likely is not None and likely >= SPEECH:
                    likely = self._doubt(call, likely)
                    if likely >= SPEECH:
                        self._meter.flag(seat.row, SPEECH_FLAG)
                rested = ear.turns.resting
                if ear.rests(likely, heard.at, sending=seat.sending):
                    continue
                if rested:
                    self._wake(call, stages)
                awake.append((at, call, likely))
            except Exception:
                call.broke("hear")
        if awake:
            which = [at for at, _, _ in awake]
            house = stages.to_house.change(rows[which], sound[which])
            for (_, call, likely), frame in zip(awake, house, strict=True):
                try:
                    call.ear.hear(frame, likely, heard.at, sending=call.seat.sending)
                except Exception:
                    call.broke("hear")
        stages.to_house.pass_by(rows, sound)

    def _wake(self, call: Seated, stages: Rate) -> None:
        """The call's ear needs what came before these 20 ms, which nobody heard."""
        turns = call.ear.turns
        turns.wake(stages.to_house.again(call.seat.echo.heard_last(turns.preroll_frames + 1)))

    def _judge(self, rows: Rows, narrow: Floats, speaking: Sequence[bool]) -> dict[int, float]:
        """Row -> probability of a caller's speech; none of what is noise. `speaking`: who is in a turn."""
        judged = self._vad.judge(rows, narrow, self._noise.hear(rows, narrow))
        if any(judged.values()):
            self._noise.doubt(rows, judged, speaking)
        return judged

    def _doubt(self, call: Seated, likely: float) -> float:
        """The probability of a caller's speech; none when what sounds like it is our own voice."""
        seat = call.seat
        if not self._looks or not seat.echo.curious():
            return likely
        self._looks -= 1
        self.counters.echo_looks += 1
        if not seat.echo.look():
            return likely
        self.counters.echoes += 1
        if seat.rate is not None:
            seat.rate.echo.reset(seat.row)
        call.hear_echo(seat.echo.delay_s)
        return 0.0

    def _hear_some_past_echo(self) -> None:
        """After a turn, when the lines have their answers: a few calls, so that nobody waits for all."""
        if not self._echoing:
            return
        began = time.perf_counter()
        self._hear_past_echo(self._echoing.popleft())
        self.counters.busy_s += time.perf_counter() - began
        asyncio.get_running_loop().call_soon(self._hear_some_past_echo)

    def _hear_past_echo(self, heard: _Heard, *, late: bool = False) -> None:
        """Some callers' 20 ms of one tick, without our voice in it; `late`: nobody is believed to speak."""
        heard.keep([call.seat.echo.on for call in heard.calls])  # the others' seats may be another call's
        if not heard.calls:
            return
        rows, calls, sound = heard.rows(), heard.calls, heard.sound()
        self._meter.hear(rows, sound)
        guards = [call.seat.echo for call in calls]
        speaking = [call.ear.turns.speaking for call in calls]
        house, narrow = heard.stages.echo.clean(rows, sound, guards, speaking, late=late)
        self.counters.echo_frames_late += late * len(calls)
        judged = self._judge(rows, narrow, speaking)
        if heard.toned:
            self._hear_keys(heard, heard.stages.narrow(rows, sound), judged)
        for at, (call, guard) in enumerate(zip(calls, guards, strict=True)):
            seat, likely, raw = call.seat, judged.get(call.seat.row), None
            if guard.deaf(late=late) and likely is not None:
                likely = 0.0
            if likely is not None and likely >= SPEECH:
                self._meter.flag(seat.row, SPEECH_FLAG)
            try:
                if call.ear.turns.resting:
                    self._wake(call, heard.stages)
                if call.ear.tapped:
                    raw = heard.stages.to_house.change(rows[at : at + 1], sound[at : at + 1])[0]
                call.ear.hear(house[at], likely, heard.at, sending=seat.sending, raw=raw)
                if self._looks and guard.due():
                    self._looks -= 1
                    self.counters.echo_looks += 1
                    guard.follow()
            except Exception:
                call.broke("hear")

    def _hear_keys(self, heard: _Heard, narrow: Floats, judged: dict[int, float]) -> None:
        """Finds the keys that callers press as sound. `narrow` is what came of all of them, `(B, 160)` at
        8 kHz. `judged` says who speaks; nobody does while their key sounds."""
        rows = heard.rows()[heard.toned]
        for index, digit in self._key_tones.hear(rows, narrow[heard.toned]):
            call = heard.calls[heard.toned[index]]
            try:
                call.press(digit, "tone")
            except Exception:
                call.broke("keys")
        for row in rows[self._key_tones.sounding(rows)].tolist():
            if row in judged:
                judged[row] = 0.0

    def snapshot(self) -> dict[str, float]:
        """Counters for the metrics."""
        return {name: getattr(self.counters, name) for name in Counters.__slots__} | {
            "marks_checked": self.inspector.checked,
            "seated": sum(map(len, self._on_line.values())),
        }
