"""What the hall's 20 ms pass costs, by stage: `python -m benchmarks.hall_pass [--calls 40] [--scene talk]`.

Synthetic calls on the real floor, without a network: their ticks are packed beforehand, read and answered as
the hall reads and answers them. Each caller is silent most of the time and says a human prompt now and then,
over G.711; we talk in turn. In the scene "silent" nobody says anything, in "talk" only we do. Two commits are
compared turn about, each by its own copy of this.

CPU microseconds of the pass's thread per call and pass. A stage's own share is what is spent within it; "the
rest" is what the pass does call by call. "Beside it" is what other threads and what comes after the pass
spend (looking for the mark in what was sent). On a busy machine the least and the quarters are the steadier
figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

import click
import numpy as np
import structlog

from gateway.dialplan import Route, Say
from gateway.hall.calls.call_ear import CallEar
from gateway.hall.calls.seat import Seat
from gateway.hall.calls.tick_pass import Floor
from gateway.hall.calls.ticks import TickLine
from gateway.hall.media.audio import FRAME_S, Floats
from gateway.hall.parts.inbox import Inbox
from gateway.hall.parts.licence import Licence
from gateway.hall.parts.playout import Item, Playout
from gateway.ipc import tick
from gateway.ipc.line_messages import KeyWay
from gateway.rtp.payloads import g711
from tests.gateway.hall.speakerphone import prompts, talk
from tests.needs import SOUNDS
from watermark.detect import Detection
from watermark.keys import KeyRing
from watermark.mark import MarkerBank
from watermark.pcm import float_from_int16, int16_from_float

RATE_HZ: Final = 8_000
FRAME: Final = 160
LOOP_S: Final = 30.0
"""What a caller sends repeats itself after so long."""
TALK_S: Final = (3.0, 4.0, 5.0)
"""The lengths of what we say, in turn."""
PAUSE_TICKS: Final = 40
"""How long the caller and we are silent before we say something."""
VOICE: Final = "it_IT_m_Carlo"
OUR_VOICE: Final = "en_US_f_Allison"
HISS_DB: Final = -62.0
BUSY: Final = 0.4
"""The share of the time in which a caller speaks."""


class NoEngine:
    """What an ear uses of `Speech`."""

    wants_words = False
    early = None
    knows_asides = False

    def append(self, sound: Floats) -> None:
        pass

    def clear(self) -> None:
        pass


class PassClock:
    """Time goes on by 20 ms with each pass, however fast they follow each other."""

    def __init__(self) -> None:
        self._began_at = time.time()
        self._now = 0.0

    def go_on(self) -> None:
        self._now += FRAME_S

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._began_at + self._now


@dataclass(eq=False)
class BenchCall:
    """One call, as the pass sees it, and its telephone."""

    number: int
    sent: list[bytes]
    """20 ms each, int16"""
    ours: Floats
    """what we say, 24 kHz"""
    seat: Seat
    played: int = 0
    said: int = 0
    quiet_at: int = -200
    scene: str = "mixed"
    failed: int = 0
    id: str = field(init=False)
    playout: Playout = field(default_factory=lambda: Playout(0.003))
    licence: Licence = field(default_factory=lambda: Licence(Route(name="bench", do=(Say(text="x"),))))
    ear: CallEar = field(init=False)
    inbox: Inbox = field(init=False)

    def __post_init__(self) -> None:
        self.id = f"call{self.number}"
        self.inbox = Inbox(self.playout, structlog.get_logger())
        self.ear = CallEar(self.playout, NoEngine(), self.inbox)  # type: ignore[arg-type]  # all it uses
        self.ear.listen()

    def press(self, digit: str, way: KeyWay) -> None:
        pass

    def alarm(self, error: Exception) -> None:
        self.failed += 1

    def hear_echo(self, delay_s: float) -> None:
        """By chance: one voice is like another now and then."""

    def judge_mark(self, verdict: Detection) -> None:
        self.failed += not verdict.detected

    def keep_sound(self, row: str) -> None:
        pass

    def broke(self, where: str) -> None:
        raise  # inside the floor's `except`

    def hear(self, spoke: bool) -> None:
        """The line has played 20 ms, of our voice or of none."""
        self.played += FRAME * spoke

    def live(self, now: int) -> None:
        """What else happens in a call: what waits is read, who interrupts cuts us, and something is said."""
        if self.ear.turns.counts and self.playout.busy:
            self.playout.cut()
        while not self.inbox._events.empty():
            self.inbox._events.get_nowait()
        if self.scene == "silent":
            return
        if self.ear.turns.speaking or self.playout.busy:
            self.quiet_at = now
        elif now - self.quiet_at > (PAUSE_TICKS if self.scene == "mixed" else 0):
            seconds = TALK_S[self.said % len(TALK_S)]
            item = Item(f"{self.id}-{self.said}")
            self.said += 1
            begin = (self.said * 48_000) % (len(self.ours) - round(seconds * 24_000))
            self.playout.put(item, self.ours[begin : begin + round(seconds * 24_000)])
            self.playout.end(item)


class TickedLine(TickLine):
    """One whose socket is a list."""

    def __init__(self, name: str) -> None:
        super().__init__(name, RATE_HZ, None)  # type: ignore[arg-type]  # `answer` is all that uses it
        self.calls: list[BenchCall] = []
        self.answered: bytes = b""

    def answer(self, packet: bytes) -> None:
        self.answered = packet

    def tick(self, now: int) -> bytes:
        """The line's packet; what was answered before was played."""
        if self.answered:
            spoke = {slot.call for slot in tick.unpack(self.answered).slots}
            for call in self.calls:
                call.hear(call.number in spoke)
        flags = tick.SENDING | tick.RECEIVING
        return tick.pack(
            now,
            [
                tick.SlotAudio(call.number, slot, flags, call.played, call.sent[now % len(call.sent)])
                for slot, call in enumerate(self.calls)
            ],
        )


def caller(seed: int, hiss_db: float, busy: float) -> list[bytes]:
    """`LOOP_S` of a caller who speaks so much of the time, frame by frame."""
    chance = np.random.default_rng(seed)
    sound = chance.normal(0, 10 ** (hiss_db / 20), round(LOOP_S * RATE_HZ)).astype(np.float32)
    said = prompts(SOUNDS / VOICE, 1.5, 4.0)
    at, spoken = round(chance.uniform(1.0, 4.0) * RATE_HZ), 0
    while busy:
        words = said[chance.integers(len(said))]
        if at + len(words) > len(sound) or spoken > busy * len(sound):
            break
        sound[at : at + len(words)] += 0.5 * words
        spoken += len(words)
        at += len(words) + round(len(words) * (1 / busy - 1) * chance.uniform(0.5, 1.3))
    pcm = g711.decode("PCMU", g711.encode("PCMU", int16_from_float(sound)))
    assert not busy or float(np.abs(float_from_int16(pcm)).max()) > 0.01  # else nobody speaks
    return [pcm[begin : begin + FRAME].tobytes() for begin in range(0, len(pcm), FRAME)]


class StageWatch:
    """CPU time by stage; a stage within a stage counts for the inner one."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]
        self._stack = stack

    def over(self, owner: Any, method: str, stage: str) -> None:
        """Counts what `owner.method` spends for `stage` from now on; does nothing without such a method."""
        work: Callable[..., Any] | None = getattr(owner, method, None)
        if work is None:
            return

        def watched(*args: Any, **named: Any) -> Any:
            began = time.thread_time()
            self._inner.append(0.0)
            try:
                return work(*args, **named)
            finally:
                took = time.thread_time() - began
                self.spent[stage] += took - self._inner.pop()
                self._inner[-1] += took

        self._stack.enter_context(mock.patch.object(owner, method, watched))


async def measure(calls: int, a_line: int, passes: int, scene: str, *, staged: bool) -> dict[str, float]:
    """Microseconds per call and pass, by stage where `staged`."""
    with tempfile.TemporaryDirectory() as folder:
        key = KeyRing.create(Path(folder, "keys")).current
    clock = PassClock()
    floor = Floor(MarkerBank(key), key, clocks=clock)
    ours = talk(SOUNDS / OUR_VOICE, 1, 60.0)
    lines = [TickedLine(f"r{at}") for at in range(-(-calls // a_line))]
    hiss = [HISS_DB, -50.0, -200.0]
    busy = BUSY if scene == "mixed" else 0.0
    made = [caller(seed, hiss[seed % 3], busy) for seed in range(min(calls, 12))]
    for number in range(calls):
        sent = made[number % len(made)]
        begin = 97 * number % len(sent)
        seat = floor.open_seat(number + 1)
        assert seat is not None  # there is room for 256
        call = BenchCall(number, sent[begin:] + sent[:begin], ours, seat, scene=scene)
        line = lines[number // a_line]
        line.calls.append(call)
        floor.seat(call, line.name, number, RATE_HZ)
    stack = contextlib.ExitStack()
    watch = StageWatch(stack)
    if staged:
        rate = floor.rates[RATE_HZ]
        watch.over(floor._vad._network, "judge", "speech: network")
        watch.over(floor._vad, "judge", "speech")
        for method in ("doubt", "hear", "stirs"):
            watch.over(floor._noise, method, "noise floor")
        watch.over(rate.to_house, "change", "rate in")
        watch.over(rate.legs, "play", "leg")
        watch.over(rate.legs._change, "change", "rate out")
        watch.over(floor._bank, "mark", "mark")
        watch.over(floor._bank, "rest", "mark")
        for method in ("turn", "hear", "send"):
            watch.over(floor._meter, method, "sound track")
        for line in lines:
            for call in line.calls:
                watch.over(call.ear, "hear", "ear")
                watch.over(call.playout, "pull", "playout")
                watch.over(call.playout, "played", "playout")
                watch.over(call.seat.check, "heard", "mark kept to be looked for")
    spent, began_all = 0.0, 0.0
    gc.collect()
    gc.freeze()
    each: list[float] = []
    for now in range(-200, passes):
        if now == 0:
            spent, began_all = 0.0, time.process_time()
            watch.spent.clear()
            each.clear()
            outside = 0.0
        began_outside = time.thread_time()
        packets = [line.tick(now % 100_000) for line in lines]
        for line in lines:
            for call in line.calls:
                call.live(now)
        clock.go_on()
        began = time.thread_time()
        if now >= 0:
            outside += began - began_outside
        for line, packet in zip(lines, packets, strict=True):
            line.waiting.append(tick.unpack(packet))
        floor.turn(lines)  # type: ignore[arg-type]  # they are
        took = time.thread_time() - began
        spent += took
        each.append(took)
        await asyncio.sleep(0)
    whole = time.process_time() - began_all
    failed = sum(call.failed for line in lines for call in line.calls)
    assert not failed, failed
    scale = 1e6 / passes / calls
    found = {stage: took * scale for stage, took in watch.spent.items()}
    if staged:
        found["the rest"] = spent * scale - sum(found.values())
    found["whole pass"] = spent * scale
    for share, name in ((0, "the least"), (25, "a quarter is below"), (50, "half are below")):
        found[f"whole pass, {name}"] = float(np.percentile(each, share)) * 1e6 / calls
    found["beside it"] = (whole - spent - outside) * scale
    found["turns"] = floor.counters.turns
    floor.inspector.close()
    stack.close()
    return found


@click.command()
@click.option("--calls", default=40, show_default=True)
@click.option("--line", "a_line", default=48, show_default=True, help="calls of one line process")
@click.option("--passes", default=1500, show_default=True)
@click.option("--scene", type=click.Choice(["mixed", "silent", "talk"]), default="mixed", show_default=True)
@click.option("--stages/--no-stages", default=True, show_default=True, help="watching costs some, too")
def main(calls: int, a_line: int, passes: int, scene: str, stages: bool) -> None:
    """What the hall's pass costs."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when numpy is loaded
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.hall_pass", *sys.argv[1:]])
    found = asyncio.run(measure(calls, a_line, passes, scene, staged=stages))
    turns = found.pop("turns")
    for stage, took in sorted(found.items(), key=lambda pair: pair[1]):
        click.echo(f"{stage:31} {took:7.2f} us  {took / (FRAME_S * 1e4):.3f} % of a core")
    click.echo(f"{calls} calls, {a_line} a line, {turns:.0f} passes")


if __name__ == "__main__":
    main()
