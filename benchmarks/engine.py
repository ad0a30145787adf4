"""What a turn costs at the engine's socket: `python -m benchmarks.engine [--calls 1,20] [--turns 6]`.

An embedded engine in a process of its own on a unix socket, and here its callers: each says a phrase of the
demo plan in real time (100 ms batches, as a hall sends them), is silent for 350 ms, commits,
asks for the reply, and listens to it at the pace of a telephone before it speaks again. Printed: end of turn
(commit) to first sound, p50, p95 and the longest; sound that came later than it had to be played; and the
engine's CPU-seconds per call-second with its recognisers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from model.api import RATE_HZ, Floats
from model.client import Audio, Created, Done, EngineClient, EngineSession
from model.errors import EngineError
from tests.model.embedded.callers import demo, demo_phrases, espeak, hibari, telephone

BATCH_S = 0.1
ENDPOINT_S = 0.35
PREROLL_S = 0.3
REPORT_S = 0.2
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Latencies:
    latencies_s: list[float] = field(default_factory=list)
    late: int = 0
    """frames that came after they should have been heard"""
    frames: int = 0


@contextlib.contextmanager
def engine(folder: Path, office: ConsentOffice, calls: int) -> Iterator[tuple[str, int]]:
    """(socket, process) of an engine."""
    path = folder / "engine.sock"
    argv = [sys.executable, "-m", "model.server", "--uds", str(path), "--keys", str(office.public_keys_path)]
    process = subprocess.Popen(argv, env={**os.environ, "VOICEGATE_ENGINE_CALLS": str(calls)})
    try:
        yield str(path), process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_s(root: int) -> float:
    """CPU of a process and its children so far."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == root or int(fields[1]) == root:
                total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def utterances(count: int) -> list[Floats]:
    """Speech that ends with its last sound: what follows is sent as silence of the line."""
    chance = random.Random(3)
    some = chance.choices([*demo_phrases()], k=count)
    said = [espeak(text, "en-us", 160) if k % 2 else hibari(text) for k, text in enumerate(some)]
    # the last 0.3 s are the line's own noise; the endpointer's silence is more of it
    sounds = [telephone(pcm, text) for pcm, text in zip(said, some, strict=True)]
    pad = round((ENDPOINT_S - PREROLL_S) * RATE_HZ)
    return [np.concatenate((pcm, pcm[-pad:])) for pcm in sounds]


async def turn(session: EngineSession, pcm: Floats, measured: Latencies) -> None:
    """Speaks, commits, and listens to the end of the reply."""
    batch, due = round(BATCH_S * RATE_HZ), time.monotonic()
    for at in range(0, len(pcm), batch):
        due += BATCH_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await session.append(pcm[at : at + batch])
    committed = time.monotonic()
    await session.commit()
    await session.respond()
    item_id, first, received, reported = "", 0.0, 0, 0.0
    async for event in session:
        now = time.monotonic()
        match event:
            case Created():
                item_id = event.item_id
            case Audio():
                first = first or now
                measured.late += now - first > received / RATE_HZ
                measured.frames += 1
                received += len(event.pcm)
                if now - reported > REPORT_S:
                    reported = now
                    await session.playout(item_id, round(min(now - first, received / RATE_HZ) * 1000))
            case Done():
                break
    if received:  # goodbye is a tool without words
        measured.latencies_s.append(first - committed)
        await asyncio.sleep(max(0.0, first + received / RATE_HZ - time.monotonic()))


async def call(
    client: EngineClient, grant: str, sounds: list[Floats], starts_s: float, measured: Latencies
) -> None:
    await asyncio.sleep(starts_s)
    session = await client.connect(grant)
    plan = demo()
    await session.update(
        binary=True,
        answers=plan["answers"],
        facts=plan["facts"],
        phrases={name: plan[name] for name in ("unsure", "not_understood")},
    )
    await asyncio.sleep(2.0)  # the disclosure, during which what is fixed is rendered
    for pcm in sounds:
        await turn(session, pcm, measured)
    await session.aclose()


async def load(path: str, pid: int, office: ConsentOffice, calls: int, turns: int) -> None:
    client = EngineClient(path)
    while not await client.ready():  # noqa: ASYNC110  # it is another process that gets ready
        await asyncio.sleep(0.1)
    sounds = utterances(calls * turns)
    grants = [office.grant(Scope("heart", "support", "demo", "en", f"call-{k}")).token for k in range(calls)]
    measured, chance = Latencies(), random.Random(5)
    began, before = time.monotonic(), cpu_s(pid)
    try:
        await asyncio.gather(
            *(
                call(client, grant, sounds[k::calls], chance.uniform(0, 4.0) if k else 0.0, measured)
                for k, grant in enumerate(grants)
            )
        )
    except EngineError as error:
        raise click.ClickException(str(error)) from None
    seconds, spent = time.monotonic() - began, cpu_s(pid) - before
    ms = 1000 * np.array(measured.latencies_s)
    print(
        f"{calls:3d} calls, {len(ms):3d} turns: end of turn to first sound p50 {np.median(ms):4.0f} ms, "
        f"p95 {np.percentile(ms, 95):4.0f} ms, longest {ms.max():4.0f} ms; "
        f"{measured.late} of {measured.frames} frames late; "
        f"{spent / (seconds * calls):.4f} CPU-s per call-s"
    )


@click.command()
@click.option("--calls", default="1,20", help="simultaneous conversations, one run each")
@click.option("--turns", default=6, help="of each conversation")
def main(calls: str, turns: int) -> None:
    """The embedded engine under live conversations."""
    for count in (int(one) for one in calls.split(",")):
        with tempfile.TemporaryDirectory(prefix="vgb-") as name:
            folder = Path(name)
            # grants that outlast the run: renewing them is not what is measured
            office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder, grant_s=3600.0)
            with engine(folder, office, count) as (path, pid):
                asyncio.run(load(path, pid, office, count, turns))
            office.close()


if __name__ == "__main__":
    main()
