"""What an engine's own process is worth: `python -m benchmarks.engine_process CHECKPOINT [--calls 1,4,8]`.

Chroma behind its server, in the server's process ("together") and in one of its own ("apart"): both are up,
and rounds go to one and the other by turns, so that both meet whatever else the machine does. In a round
each caller speaks for a second in real time (100 ms batches), commits, asks for the reply, and listens to it
at the pace of a telephone. Printed: asked to first sound; CPU per frame of sound, of all and of the process
with the sockets; and what the latter takes per call, in binary frames and in base64.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
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
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from model.api import RATE_HZ, Floats
from model.client import Audio, Done, EngineClient, EngineSession
from tests.model.chroma.serving.test_server import TOKEN, Front, noise
from watermark.pcm import bytes_from_float

TOGETHER = "import model.server as s; from model import engines as e; s.load = lambda _: e.chroma(); s.main()"
APART = "import model.server as s; s.main()"
BATCH_S = 0.1
SPEECH_S = 1.0
REPLY_S = 2.4
APART_S = 0.15
"""between two callers' turns, so that they do not coincide"""


@dataclass
class Serving:
    """One way to serve, and what was measured of it."""

    name: str
    binary: bool
    client: EngineClient
    pids: list[int]
    """the server's, then what it started"""
    sessions: list[EngineSession] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    frames: int = 0
    late: int = 0
    """frames that came after they should have been heard"""
    call_s: float = 0.0
    cpu_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """at the sockets, elsewhere"""

    def report(self) -> str:
        ms, frames = 1000 * np.array(self.latencies_s), self.frames
        return (
            f"{len(self.sessions):3d} calls {self.name:15s} "
            f"first sound p50 {np.median(ms):6.1f} ms, p95 {np.percentile(ms, 95):6.1f}; "
            f"{self.late:3d} of {frames:4d} frames late; "
            f"CPU per frame {1000 * sum(self.cpu_s) / frames:6.2f} ms, "
            f"at the sockets {1000 * self.cpu_s[0] / frames:6.2f} ms = "
            f"{self.cpu_s[0] / self.call_s:.4f} CPU-s per call-s"
        )


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
    checkpoint: Path, folder: Path, office: ConsentOffice, script: str, calls: int
) -> AsyncIterator[tuple[EngineClient, list[int]]]:
    environ = {
        **os.environ,
        "VOICEGATE_CHROMA": str(checkpoint),
        "VOICEGATE_BOOT_TOKEN": TOKEN,
        "VOICEGATE_ENGINE_CALLS": str(calls),
        "VOICEGATE_CHROMA_CONTEXT": "2048",
        "VOICEGATE_CHROMA_REPLY_S": str(REPLY_S),
        "OMP_NUM_THREADS": "1",
    }
    path = str(folder / f"engine{len(script)}")
    argv = [
        sys.executable, "-c", script, "--engine", "chroma", "--uds", path,
        "--front", str(folder / "front.sock"), "--keys", str(office.public_keys_path),
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(argv, env=environ, stdout=quiet, stderr=quiet)  # noqa: ASYNC220
    client = EngineClient(path, TOKEN)
    try:
        while not await client.ready():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)
        yield client, processes(process.pid)
    finally:
        process.terminate()
        process.wait()


async def turn(kind: Serving, session: EngineSession, pcm: Floats, starts_s: float) -> None:
    """Speaks, asks, and listens to the end of the reply."""
    await asyncio.sleep(starts_s)
    began = due = time.monotonic()
    batch = round(BATCH_S * RATE_HZ)
    for at in range(0, len(pcm), batch):
        due += BATCH_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        piece = pcm[at : at + batch]
        if kind.binary:
            await session.append(piece)
        else:
            audio = base64.b64encode(bytes_from_float(piece)).decode()
            await session._say("input_audio_buffer.append", audio=audio)
    await session.commit()
    asked, first, received = time.monotonic(), 0.0, 0
    await session.respond()
    async for event in session:
        now = time.monotonic()
        if isinstance(event, Audio):
            first = first or now
            kind.late += now - first > received / RATE_HZ
            kind.frames += 1
            received += len(event.pcm)
        elif isinstance(event, Done):
            break
    kind.latencies_s.append(first - asked)
    await asyncio.sleep(max(0.0, first + received / RATE_HZ - time.monotonic()))
    kind.call_s += time.monotonic() - began


async def turn_of_all(kind: Serving, number: int) -> None:
    before = [cpu_s(pid) for pid in kind.pids]
    await asyncio.gather(
        *(
            turn(kind, session, noise(SPEECH_S, 1000 * number + k), APART_S * k)
            for k, session in enumerate(kind.sessions)
        )
    )
    spent = [cpu_s(pid) - was for pid, was in zip(kind.pids, before, strict=True)]
    kind.cpu_s[0] += spent[0]
    kind.cpu_s[1] += sum(spent[1:])


async def run(checkpoint: Path, calls: int, rounds: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vgb-")))
        office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder, grant_s=3600.0)
        stack.callback(office.close)
        front = Front(folder, office, noise(2.0, 9))
        await front.start()
        stack.push_async_callback(front.stop)
        kinds = []
        for name, script, forms in (("together", TOGETHER, (True,)), ("apart", APART, (True, False))):
            client, pids = await stack.enter_async_context(
                server(checkpoint, folder, office, script, calls * len(forms))
            )
            for binary in forms:
                kind = Serving(f"{name}, {'binary' if binary else 'base64'}", binary, client, pids)
                kinds.append(kind)
                for k in range(calls):
                    grant = office.grant(
                        Scope(
                            voice="heart", purpose="test", dialplan="test", language="en", call_id=f"call-{k}"
                        )
                    )
                    kind.sessions.append(await client.connect(grant.token))
                    await kind.sessions[-1].update(binary=binary)
        for number in range(rounds):
            for kind in kinds:
                await turn_of_all(kind, number)
        for kind in kinds:
            print(kind.report(), flush=True)
            for session in kind.sessions:
                await session.aclose()


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--calls", default="1,4,8", help="simultaneous conversations, a run each")
@click.option("--rounds", default=12, help="turns of each conversation")
def main(checkpoint: Path, calls: str, rounds: int) -> None:
    """Chroma in its server's process against one of its own."""
    for count in (int(one) for one in calls.split(",")):
        asyncio.run(run(checkpoint, count, rounds))


if __name__ == "__main__":
    main()
