"""Callers who talk at once to a process of ears, in real time: how long words take, and what they cost.

Their turns end as a hall ends them: by its voice activity, its `Turns`, and what is heard early. No plan
waits for what they say, so that a turn ends after .5 s of quiet, or 1.1 s where its words ask for more. Only
the turns of those who end in the same breath end after `ENDPOINT_S`, nearly as soon as after a sure answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from benchmarks.ears_sounds import WHISPER_HZ, Prompt, g711
from benchmarks.turn_ends import AFTER_S, LEAD_S, HeardCaller, LineUtterance, heard
from gateway.hall.calls.call_ear import APPEND_FRAMES
from gateway.hall.media.audio import FRAME_S
from gateway.hall.media.turns import TurnEvent, Turns
from model.api import RATE_HZ, EarlyHearing, Floats
from model.ears import ONE_THREAD
from model.ears.ears_client import Ears
from model.ears.last_words import early_hearing
from model.ears.listening import Listening
from model.ears.words_heard import Words

ENDPOINT_S: Final = 0.25
"""Those who end in the same breath are over after so much silence."""
REPLY_S: Final = (3.0, 6.0)
"""How long a caller listens and thinks between two utterances."""
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Talk:
    """What became of some callers' turns."""

    waited_s: list[float] = field(default_factory=list)
    """from the end of a turn until its words were there"""
    spoken_s: list[float] = field(default_factory=list)
    """from the end of an utterance until its last words were there"""
    texts: int = 0
    asked: int = 0
    """questions to the ears"""
    most_wait_s: float = 0.0


class Counting(Ears):
    """Ears that count what they are asked."""

    def __init__(self, socket: Path, talk: Talk) -> None:
        super().__init__(socket)
        self._talk = talk

    async def transcribe(self, *args: object, **named: object) -> Words:  # passes all on
        self._talk.asked += 1
        self._talk.most_wait_s = max(self._talk.most_wait_s, self.wait_s)
        return await super().transcribe(*args, **named)  # type: ignore[arg-type]


async def speak(listening: Listening, pcm: Floats, until: float) -> None:
    """Says it in real time, ending at the loop's time `until`, with the endpointer's silence behind it."""
    frame = RATE_HZ // 50
    pad = np.random.default_rng(4).normal(0, 1e-3, round(ENDPOINT_S * RATE_HZ)).astype(np.float32)
    whole = np.concatenate((pcm, pad))
    begun = until - len(whole) / RATE_HZ
    for at in range(0, len(whole), frame):
        await asyncio.sleep(max(0.0, begun + at / RATE_HZ - asyncio.get_running_loop().time()))
        listening.hear(whole[at : at + frame])


async def turn(listening: Listening, pcm: Floats, until: float, talk: Talk) -> None:
    await speak(listening, pcm, until)
    began = time.monotonic()
    words = await listening.finish()
    talk.waited_s.append(time.monotonic() - began)
    talk.texts += bool(words.text)


def on_a_line(pcm: Floats) -> Floats:
    """An utterance (float32 24 kHz) with the quiet of a line around it."""
    chance = np.random.default_rng(4)
    before, after = (
        chance.normal(0, 1e-3, round(seconds * RATE_HZ)).astype(np.float32) for seconds in (LEAD_S, AFTER_S)
    )
    return np.concatenate((before, pcm, after))


async def utter(ears: Ears, one: HeardCaller, talk: Talk) -> None:
    """Says an utterance in real time to a hall, which says when its turns are over."""
    turns = Turns()
    early: EarlyHearing | None = None

    def pause(words: Words) -> None:
        nonlocal early
        hearing = early_hearing(words)
        if hearing is not None:
            early, listening.open = hearing, hearing.state == "unfinished"

    listening = Listening(ears, pause)
    now = asyncio.get_running_loop().time
    begun = now()
    last: float | None = None
    for at in range(len(one.caller.pcm) // len(one.frames[0])):
        await asyncio.sleep(max(0.0, begun + (at + 1) * FRAME_S - now()))
        event = turns.hear(one.frames[at], one.judged[at], we_talk=False, early=early)
        if event is not None or turns.frames_waiting >= APPEND_FRAMES or turns.pausing:
            sound = turns.take()
            if sound is not None:
                listening.hear(sound)
        if event is TurnEvent.END:
            early, ended = None, now()
            words = await listening.finish()
            last = now()
            talk.waited_s.append(last - ended)
            talk.texts += bool(words.text)
        elif event is TurnEvent.TRIFLE:
            listening.clear()
    if last is not None:
        talk.spoken_s.append(last - begun - (len(one.caller.pcm) / RATE_HZ - AFTER_S))


async def caller(
    ears: Ears, callers: list[HeardCaller], chance: random.Random, until: float, talk: Talk
) -> None:
    """Talks, listens, and talks again."""
    now = asyncio.get_running_loop().time
    await asyncio.sleep(chance.uniform(0, 4.0))
    while now() < until:
        await utter(ears, chance.choice(callers), talk)
        await asyncio.sleep(max(0.0, chance.uniform(*REPLY_S) - LEAD_S - AFTER_S))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.asynccontextmanager
async def ears_process(models: Path) -> AsyncIterator[tuple[Path, int]]:
    """(socket, process) of ears."""
    with tempfile.TemporaryDirectory(prefix="vgb-") as folder:
        socket = Path(folder, "ears.sock")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "model.ears.ears_process", "--uds", str(socket), "--models", str(models),
            env={**os.environ, **ONE_THREAD},  # as in a house
        )  # fmt: skip
        try:
            yield socket, process.pid
        finally:
            process.terminate()
            await process.wait()


def told(waited_s: list[float]) -> str:
    ms = 1000 * np.array(waited_s)
    return (
        f"words {np.median(ms):4.0f} ms after the end of the turn "
        f"(p95 {np.percentile(ms, 95):4.0f}, longest {ms.max():4.0f})"
    )


async def report_calls(models: Path, counts: list[int], seconds: float, prompts: list[Prompt]) -> None:
    chance = np.random.default_rng(5)
    sounds = [
        np.asarray(soxr.resample(g711(one.pcm, chance), WHISPER_HZ, RATE_HZ), np.float32)
        for one in prompts
        if len(one.pcm) < 5 * WHISPER_HZ
    ]
    spoken_s = np.mean([len(sound) for sound in sounds]) / RATE_HZ
    cores = len(os.sched_getaffinity(0))
    print(f"\ncallers at once, {cores} cores; {spoken_s:.1f} s an utterance, {REPLY_S} s between two")
    callers = heard([LineUtterance("prompts", "", on_a_line(sound)) for sound in sounds])
    async with ears_process(models) as (socket, pid):
        for count in counts:
            await together(socket, pid, count, seconds, callers)
        for each in (1, 2, 3, 4):
            await in_one_breath(socket, each * cores, sounds)


async def together(socket: Path, pid: int, count: int, seconds: float, callers: list[HeardCaller]) -> None:
    """Callers who each talk when they like."""
    talk = Talk()
    ears = Counting(socket, talk)
    await ears.ready()
    until = asyncio.get_running_loop().time() + seconds
    began, before = time.monotonic(), cpu_s(pid)
    await asyncio.gather(*(caller(ears, callers, random.Random(k), until, talk) for k in range(count)))
    spent, took = cpu_s(pid) - before, time.monotonic() - began
    await ears.close()
    turns = len(talk.waited_s)
    print(
        f"  {count:3d} calls, {turns:4d} turns: {told(talk.waited_s)}, "
        f"{np.median(talk.spoken_s):.2f} s after the last sound; "
        f"{talk.asked / turns:.2f} questions a turn; {spent / took / count:.2%} of a core per call; "
        f"longest expected wait {talk.most_wait_s:.2f} s; "
        f"{talk.texts} turns had words",
        flush=True,
    )


async def in_one_breath(socket: Path, count: int, sounds: list[Floats]) -> None:
    """Callers whose turns end at the same moment, eight times."""
    talk, chance = Talk(), random.Random(7)
    ears = Counting(socket, talk)
    await ears.ready()
    for _ in range(8):
        until = asyncio.get_running_loop().time() + 6.0
        await asyncio.gather(
            *(turn(Listening(ears), chance.choice(sounds), until, talk) for _ in range(count))
        )
    await ears.close()
    print(f"  {count} end in the same breath: {told(talk.waited_s)}", flush=True)
