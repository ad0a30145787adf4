"""What an engine's own process is worth: `python -m benchmarks.engine_process CHECKPOINT [--calls 1,4,8]`.

Chroma behind its server, in the server's process and in one of its own, by turns. Callers here speak for a
second in real time (100 ms batches), commit, ask for the reply, and listen to it at the pace of a telephone.
Printed: asked to first sound; CPU per frame of sound, of all and of the process with the sockets; and what
the latter takes per call, in binary frames and in base64. A call begins every 150 ms, so that turns do not
coincide.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from benchmarks.engine import TICKS_PER_S
from consent.office import ConsentOffice
from model import events
from model.api import RATE_HZ, Floats
from model.client import Audio, Done, EngineClient, EngineSession
from tests.model.chroma.test_server import TOKEN, Front, noise

TOGETHER = (
    "import model.server as s; from model import engines; s.load = lambda _: engines.chroma(); s.main()"
)
APART = "import model.server as s; s.main()"
BATCH_S = 0.1
SPEECH_S = 1.0
REPLY_S = 2.4


@dataclass
class Measured:
    latencies_s: list[float] = field(default_factory=list)
    frames: int = 0
    late: int = 0
    """frames that came after they should have been heard"""


def cpu_s(pid: int) -> float:
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / TICKS_PER_S


def processes(root: int) -> list[int]:
    """A server and what it started."""
    found = [root]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == root:
                found.append(int(stat.parent.name))
    return found


@contextlib.asynccontextmanager
async def server(
    checkpoint: Path, script: str, calls: int
) -> AsyncIterator[tuple[EngineClient, int, ConsentOffice]]:
    with tempfile.TemporaryDirectory(prefix="vgb-") as name:
        folder = Path(name)
        office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder, grant_s=3600.0)
        front = await asyncio.start_unix_server(Front(office, noise(2.0, 9)), folder / "front")
        environ = {
            **os.environ,
            "VOICEGATE_CHROMA": str(checkpoint),
            "VOICEGATE_BOOT_TOKEN": TOKEN,
            "VOICEGATE_ENGINE_CALLS": str(calls),
            "VOICEGATE_CHROMA_CONTEXT": "1024",
            "VOICEGATE_CHROMA_REPLY_S": str(REPLY_S),
            "OMP_NUM_THREADS": "1",
        }
        argv = [
            sys.executable, "-c", script, "--engine", "chroma", "--uds", str(folder / "engine"),
            "--front", str(folder / "front"), "--keys", str(office.public_keys_path),
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(argv, env=environ, stdout=quiet, stderr=quiet)  # noqa: ASYNC220
        client = EngineClient(str(folder / "engine"), TOKEN)
        while not await client.ready():  # noqa: ASYNC110  # it is another process that gets ready
            await asyncio.sleep(0.1)
        try:
            yield client, process.pid, office
        finally:
            process.terminate()
            process.wait()
            front.close()
            office.close()


async def turn(session: EngineSession, pcm: Floats, binary: bool, measured: Measured) -> None:
    """Speaks, asks, and listens to the end of the reply."""
    batch, due = round(BATCH_S * RATE_HZ), time.monotonic()
    for at in range(0, len(pcm), batch):
        due += BATCH_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        piece = pcm[at : at + batch]
        if binary:
            await session.append(piece)
        else:
            audio = base64.b64encode(events.pcm_to_bytes(piece)).decode()
            await session._say("input_audio_buffer.append", audio=audio)
    await session.commit()
    asked, first, received = time.monotonic(), 0.0, 0
    await session.respond()
    async for event in session:
        now = time.monotonic()
        if isinstance(event, Audio):
            first = first or now
            measured.late += now - first > received / RATE_HZ
            measured.frames += 1
            received += len(event.pcm)
        elif isinstance(event, Done):
            break
    measured.latencies_s.append(first - asked)
    await asyncio.sleep(max(0.0, first + received / RATE_HZ - time.monotonic()))


async def call(
    client: EngineClient, token: str, number: int, turns: int, binary: bool, measured: Measured
) -> None:
    await asyncio.sleep(0.15 * number)
    session = await client.connect(token)
    await session.update(binary=binary)
    for k in range(turns):
        await turn(session, noise(SPEECH_S, 100 * number + k), binary, measured)
    await session.aclose()


async def run(checkpoint: Path, name: str, script: str, calls: int, turns: int, binary: bool) -> None:
    ids = itertools.count()
    async with server(checkpoint, script, calls) as (client, pid, office):

        def token() -> str:
            return office.grant(
                voice="heart", purpose="test", dialplan="test", language="en", call_id=f"call-{next(ids)}"
            ).token

        await call(client, token(), 0, 1, binary, Measured())  # the first prepares the voice
        measured = Measured()
        pids = processes(pid)
        began, before = time.monotonic(), [cpu_s(one) for one in pids]
        await asyncio.gather(
            *(call(client, token(), number, turns, binary, measured) for number in range(calls))
        )
        seconds = time.monotonic() - began
        spent = [cpu_s(one) - was for one, was in zip(pids, before, strict=True)]
    ms = 1000 * np.array(measured.latencies_s)
    print(
        f"{calls:3d} calls {name:9s} {'binary' if binary else 'base64'}: "
        f"first sound p50 {np.median(ms):6.1f} ms, "
        f"p95 {np.percentile(ms, 95):6.1f}; {measured.late:3d} of {measured.frames:4d} frames late; "
        f"CPU per frame {1000 * sum(spent) / measured.frames:6.2f} ms, "
        f"at the sockets {1000 * spent[0] / measured.frames:6.2f} ms, "
        f"that is {spent[0] / (seconds * calls):.4f} CPU-s per call-s",
        flush=True,
    )


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--calls", default="1,4,8", help="simultaneous conversations, a run each")
@click.option("--turns", default=6, help="of each conversation")
def main(checkpoint: Path, calls: str, turns: int) -> None:
    """Chroma in its server's process against one of its own."""
    for count in (int(one) for one in calls.split(",")):
        for name, script, binary in (
            ("together", TOGETHER, True),
            ("apart", APART, True),
            ("together", TOGETHER, True),
            ("apart", APART, True),
            ("apart", APART, False),
        ):
            asyncio.run(run(checkpoint, name, script, count, turns, binary))


if __name__ == "__main__":
    main()
