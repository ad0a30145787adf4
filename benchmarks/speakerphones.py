"""What an echo does to a call, and what taking it out costs: `python -m benchmarks.speakerphones`.

First the calls: rooms, levels, delays and callers who interrupt, each row some calls of a hall in memory and
in a time of its own (`tests/gateway/hall/speakerphone.py`), with human prompts for both sides (Debian:
asterisk-core-sounds-en-wav, -it-wav). Then the cost: what the 20 ms pass takes with 40 calls that talk all
the time, when none and when all of them have an echo, in CPU time of its thread; and what a call without an
echo pays to be asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import structlog

from gateway.hall.media.audio import FRAME_S, Floats, VoiceActivity
from gateway.hall.media.echo import LOOK_S, Cancellers, EchoGuard, EchoStage, likeness
from gateway.hall.media.rate import CAPACITY
from tests.gateway.hall.speakerphone import Delay, Scene, Witnessed, prompts, steady, witness
from tests.gateway.hall.virtual_hall import House
from tests.house_time import HouseLoop

SOUNDS = Path("/usr/share/asterisk/sounds")
OURS = SOUNDS / "en_US_f_Allison"
CALLERS = SOUNDS / "it_IT_m_Carlo"
GRACE_S = 3.0
JUMPS_AT_S = 15.0
CALLS = 3
"""Rooms a row."""


def jumping(delay_s: float, by_s: float) -> Delay:
    """This delay until `JUMPS_AT_S`, then so much more."""
    return lambda at: delay_s if at < JUMPS_AT_S else delay_s + by_s


def drifting(delay_s: float, ppm: float) -> Delay:
    """The telephone's clock is wrong by so much."""
    return lambda at: delay_s + at * ppm * 1e-6


def interrupts(
    seed: int, seconds: float, voices: Sequence[Floats], gain: float = 1.0
) -> tuple[tuple[float, Floats], ...]:
    """Somebody speaks every 6.5 s, from the seventh on."""
    chance = np.random.default_rng(seed)
    times = np.arange(7.0, seconds - 3.0, 6.5)
    return tuple((float(at), voices[int(chance.integers(len(voices)))] * np.float32(gain)) for at in times)


def rows(seconds: float) -> dict[str, list[Scene]]:
    """The table's rows: their names and scenes."""
    strangers, ourselves = prompts(CALLERS, 1.5, 4.0), prompts(OURS, 1.5, 4.0)
    seeds = range(CALLS)

    def said(seed: int, gain: float = 1.0) -> tuple[tuple[float, Floats], ...]:
        return interrupts(seed, seconds, strangers, gain)

    found = {"headset, no echo": [Scene(None, steady(0.2), seed, interrupts=said(seed)) for seed in seeds]}
    for level in (-15.0, -30.0, -6.0):
        for delay_s in (0.1, 0.2, 0.3, 0.5, 0.8):
            found[f"{level:.0f} dB, {1000 * delay_s:.0f} ms"] = [
                Scene(level, steady(delay_s), seed, interrupts=said(seed)) for seed in seeds
            ]
    level = -15.0
    far = [Scene(level, steady(0.2), seed, wet=0.3, interrupts=said(seed)) for seed in seeds]
    web = [Scene(level, steady(0.2), seed, rate_hz=48_000, interrupts=said(seed)) for seed in seeds]
    wide = [Scene(level, steady(0.2), seed, rate_hz=16_000, interrupts=said(seed)) for seed in seeds]
    plain = [Scene(level, steady(0.2), seed, disclosed=False, interrupts=said(seed)) for seed in seeds]
    weak = [Scene(level, steady(0.2), seed, interrupts=said(seed, 0.25)) for seed in seeds]
    own = [Scene(level, steady(0.2), seed, interrupts=interrupts(seed, seconds, ourselves)) for seed in seeds]
    alarm = [Scene(None, steady(0.2), seed, interrupts=said(seed), alarmed=True) for seed in seeds]
    return found | {
        "-15 dB, loudspeaker far away": far,
        "-15 dB, web line": web,
        "-15 dB, wide line": wide,
        "-15 dB, no disclosure": plain,
        "-15 dB, caller 12 dB weaker": weak,
        "-15 dB, our own voice calls": own,
        "-15 dB, jumps by 60 ms": [Scene(level, jumping(0.2, 0.06), seed) for seed in seeds],
        "-15 dB, jumps by -60 ms": [Scene(level, jumping(0.2, -0.06), seed) for seed in seeds],
        "-30 dB, jumps by 60 ms": [Scene(-30.0, jumping(0.2, 0.06), seed) for seed in seeds],
        "-30 dB, jumps by -60 ms": [Scene(-30.0, jumping(0.2, -0.06), seed) for seed in seeds],
        "-15 dB, 200 ppm": [
            Scene(level, drifting(0.2, 200.0), seed, interrupts=said(seed)) for seed in seeds
        ],
        "-15 dB, -200 ppm": [
            Scene(level, drifting(0.2, -200.0), seed, interrupts=said(seed)) for seed in seeds
        ],
        "headset, guard always on": alarm,
    }


class TimedHouse(House):
    """Measures its passes: the thread's CPU time until the lines had their answers, and for taking echoes out
    after that."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, activity=VoiceActivity(CAPACITY))
        self.pass_s: list[float] = []
        self.echo_s: list[float] = []
        self._echo_s = 0.0
        floor = self.hall.floor
        hear = floor._hear_past_echo

        def timed(*heard: Any, **how: Any) -> None:
            began = time.thread_time()
            hear(*heard, **how)
            self._echo_s += time.thread_time() - began

        floor._hear_past_echo = timed  # type: ignore[method-assign]

    def turn(self) -> None:
        for line in self.lines.values():
            line.turn()
        self.echo_s.append(self._echo_s)
        self._echo_s = 0.0
        began = time.thread_time()
        self.hall.floor.turn([line for line in self.lines.values() if line.waiting])  # type: ignore[misc]
        self.pass_s.append(time.thread_time() - began)


async def _calls(house: House, scenes: Sequence[Scene], seconds: float) -> list[Witnessed]:
    await house.open()
    try:
        return await witness(house, OURS, scenes, seconds)
    finally:
        await house.close()


def played(scenes: Sequence[Scene], seconds: float) -> tuple[list[Witnessed], TimedHouse]:
    """The scenes' calls, and the house that had them."""
    loop = HouseLoop()
    asyncio.set_event_loop(loop)
    with tempfile.TemporaryDirectory() as folder:

        async def have() -> tuple[list[Witnessed], TimedHouse]:
            house = TimedHouse(Path(folder))
            return await _calls(house, scenes, seconds), house

        try:
            return loop.run_until_complete(have())
        finally:
            loop.close()


def row(name: str, scenes: Sequence[Scene], seconds: float) -> str:
    """One line of the table."""
    seen, _ = played(scenes, seconds)
    pairs = list(zip(seen, scenes, strict=True))
    early = sum(len(one.false(0.0, scene, GRACE_S)) for one, scene in pairs)
    late = sum(len(one.false(GRACE_S, scene)) for one, scene in pairs)
    per_minute = late / (len(scenes) * (seconds - GRACE_S) / 60)
    ducks = [one.after(one.onsets, at) for one, scene in pairs for at, _ in scene.interrupts]
    cuts = [one.after(one.turns, at) for one, scene in pairs for at, _ in scene.interrupts]
    lost = sum(map(np.isinf, cuts))
    said = f"| {name} | {early} | {late} ({per_minute:.1f}) "
    if not cuts:
        return said + "| – | – | – |"
    (duck, duck90), (cut, cut90) = np.percentile(ducks, (50, 90)), np.percentile(cuts, (50, 90))
    return (
        said + f"| {len(cuts) - lost} of {len(cuts)} | {duck:.2f} / {duck90:.2f} | {cut:.2f} / {cut90:.2f} |"
    )


def cost(calls: int, seconds: float) -> None:
    """Prints what the pass takes with so many calls, without and with echo."""
    for name, level in (("none", None), ("all", -15.0)):
        scenes = [Scene(level, steady(0.2), seed) for seed in range(calls)]
        seen, house = played(scenes, seconds)
        skip = round(GRACE_S / FRAME_S)
        passes, echoes = 1000 * np.array(house.pass_s[skip:]), 1000 * np.array(house.echo_s[skip:])
        share = 100 * float(passes.mean() + echoes.mean()) / (1000 * FRAME_S)
        guarded = sum(bool(one.guarded) for one in seen)
        click.echo(
            f"| {calls} calls, {name} with echo ({guarded} guarded) "
            f"| {np.median(passes):.1f} / {np.percentile(passes, 99):.1f} "
            f"| {np.median(echoes):.1f} / {np.percentile(echoes, 99):.1f} | {share / calls:.2f} |"
        )


def question() -> None:
    """Prints what the guard costs by itself."""
    chance = np.random.default_rng(1)
    guard = EchoGuard(Cancellers())
    guard.reset(8_000, 0)
    pcm = (1000 * chance.standard_normal((100, 160))).astype(np.int16)
    raw = [frame.tobytes() for frame in (1000 * chance.standard_normal((100, 160))).astype(np.int16)]

    played = itertools.count(160, 160)

    def ticks() -> None:
        for at in range(100):
            guard.ours.send(pcm[at])
            guard.tick(next(played), raw[at])

    def stage() -> None:
        echo.clean(one, heard, [guard], [False])

    tick_us = _us(ticks, 20) / 100
    look_us = _us(lambda: likeness(*guard._both(LOOK_S)), 50)
    guard._start(1_600)
    echo, one = EchoStage(8_000, 1), np.zeros(1, np.intp)
    heard = (0.1 * chance.standard_normal((1, 160))).astype(np.float32)
    ticks()
    clean_us = _us(stage, 200)
    click.echo(
        f"a guard that is off: {tick_us:.1f} us a tick ({tick_us / 200:.4f} %), {look_us:.0f} us a look; "
        f"20 ms of one call through the canceller: {clean_us:.0f} us ({clean_us / 200:.2f} % of a core)"
    )


def _us(work: object, times: int) -> float:
    assert callable(work)
    work()
    began = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - began) / times


def asked(seconds: float) -> None:
    """Prints how often callers without an echo are asked."""
    scenes = [
        Scene(None, steady(0.2), seed, interrupts=interrupts(seed, seconds, prompts(CALLERS, 1.5, 4.0)))
        for seed in range(8)
    ]
    seen, house = played(scenes, seconds)
    count = house.hall.floor.counters
    minutes = len(scenes) * seconds / 60
    times = sum(len(scene.interrupts) for scene in scenes) / minutes
    guarded = 100 * sum(len(one.guarded) for one in seen) * FRAME_S / (60 * minutes)
    click.echo(
        f"{len(scenes)} headsets, {times:.1f} interruptions a minute: {count.echo_looks / minutes:.1f} looks "
        f"a minute and call, {count.echoes} false alarms, guards on for {guarded:.1f} % of the time"
    )


@click.command()
@click.option("--seconds", default=40.0, show_default=True, help="of each call")
@click.option("--calls", default=40, show_default=True, help="of which the pass's time is told")
@click.option("--only", default="", help="rows whose name holds this; '-' for the cost alone")
@click.option("--cost-only", is_flag=True, hidden=True)
def main(seconds: float, calls: int, only: str, cost_only: bool) -> None:
    """Calls with an echo, and what they cost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if cost_only:
        question()
        asked(seconds)
        click.echo("| CPU-ms, p50 / p99 | the pass | echoes, after it | % of a core per call |")
        cost(calls, 8.0)
        return
    click.echo(
        "| | false turns by 3 s | after (a minute) | interruptions heard | ducked, s p50 / p90 | cut |"
    )
    for name, scenes in rows(seconds).items():
        if only in name:
            click.echo(row(name, scenes, seconds))
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as the supervisor starts a hall
    command = [sys.executable, "-m", "benchmarks.speakerphones", "--cost-only"]
    arguments = ["--seconds", str(seconds), "--calls", str(calls)]
    subprocess.run([*command, *arguments], env=os.environ | one, check=True)


if __name__ == "__main__":
    main()
