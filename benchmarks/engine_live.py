"""The engine's own scheduler under live talk, sockets left out, beside what the simulator says of the same.

    python -m benchmarks.engine_live CHECKPOINT [--calls 1,4,8,16] [--seconds 30]

Each caller of `engine_talk` speaks noise in real time (100 ms at once), commits, and hears the answer at the
pace of a telephone, taking frames up to 1 s ahead as a session does. First the costs of the simulator are
fitted to steps, prefill and hearing as they are timed here; the line in brackets is what it then predicts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.engine_code import ON_A_CPU
from benchmarks.engine_costs import CHUNK, Device, Load, Parts, fitted
from benchmarks.engine_simulator import FRAME_S, Found, World
from benchmarks.engine_talk import ENDPOINT_S, first_pause_s, talk
from consent.grants.grant import VoiceGrant, hash_voice
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from model.api import RATE_HZ, Floats, Reference, Sound
from model.chroma.network import checkpoint
from model.chroma.network import config as chroma_config
from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.weights import Chroma
from model.chroma.serving import admission, chat
from model.chroma.serving.conversation import ChromaConversation
from model.chroma.serving.engine import ChromaEngine
from model.chroma.serving.engine_settings import EngineSettings
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps

BATCH_S = 0.1
SESSION_LEAD_S = 1.0
CONTEXT = 1024
SETTLED_S = 2.0
"""After so long a reply's lead is compared with others'."""

Sample = tuple[Load, int, float]
"""(what is done, for how many replies, seconds)"""


# ── what things cost here ────────────────────────────────────────────────────────────────────────────


def timed(work: object, repeats: int = 7) -> float:
    """Seconds, undisturbed."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        found.append(time.perf_counter() - began)
    return min(found)


@torch.inference_mode()
def samples(model: Chroma, parts: Parts, counts: tuple[int, ...]) -> Iterator[Sample]:
    """Steps of several sizes and contexts, prefills, and the audio encoder."""
    for context in (100, 400, CONTEXT):
        for count in counts:
            both = ON_A_CPU.both_steps(parts, count, context, admission.REPLY)
            took = admission.time_steps(model, SERVING, context, count)
            for load, seconds in zip(both, (took[::2], took[1::2]), strict=True):
                yield load, count, min(seconds)
    slots = Slots.make(model, 1, SERVING, context=CONTEXT)
    steps = Steps(model, slots, SERVING)
    for positions in (12, 50, 256):
        x = model.thinker.embed(torch.zeros(positions, dtype=torch.long))

        def prefill(x: torch.Tensor = x) -> None:
            slots.thinker.cut(0, 0)
            steps.prefill({0: x})

        yield ON_A_CPU.prefill(parts, [positions], positions), 0, timed(prefill)
    mel = Mel(model.config.hearing.mels)
    for chunks in (1, 2):
        sound = torch.randn(chunks * 2 * EAR_HZ + 400)

        def hear(sound: torch.Tensor = sound) -> None:
            ear = Ear(model.thinker.audio_tower, mel)
            ear.push(sound)
            ear.listen()

        yield ON_A_CPU.hearing(parts, chunks, CHUNK), 0, timed(hear)


def fit(model: Chroma, parts: Parts, counts: tuple[int, ...]) -> tuple[Device, str]:
    """A device that costs what this one does, and how well it fits: half of the samples are left out."""
    found = list(samples(model, parts, counts))
    device = fitted("here", found[::2], memory=64e9)

    def error(some: list[Sample]) -> str:
        off = [abs(device.seconds(load, rows) / seconds - 1) for load, rows, seconds in some]
        return f"mean {np.mean(off):.0%}, largest {max(off):.0%}"

    return (
        device,
        f"fitted to {len(found[::2])}: {error(found[::2])} off; of the others: {error(found[1::2])}",
    )


# ── the talk ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class LiveFigures:
    first_s: list[float] = field(default_factory=list)
    frames: int = 0
    late: int = 0
    leads: dict[int, tuple[float, int]] = field(default_factory=dict)
    """by caller: when its reply began to sound, frames since"""
    spreads: list[float] = field(default_factory=list)


class Talker:
    def __init__(self, conversation: ChromaConversation, seed: int, measured: LiveFigures) -> None:
        self._conversation = conversation
        self._seed = seed
        self._measured = measured
        self._noise: Floats = (0.1 * np.random.default_rng(seed).standard_normal(6 * RATE_HZ)).astype("f4")

    async def run(self) -> None:
        await asyncio.sleep(first_pause_s(self._seed))
        for number, exchange in enumerate(talk(self._seed)):
            await self._speak(exchange.speech_s)
            committed = time.monotonic()
            await self._conversation.commit()
            heard_s = exchange.reply_s if exchange.barge_s is None else exchange.barge_s
            await self._hear(f"item{number}", committed, round(heard_s / FRAME_S))
            if exchange.barge_s is None:
                await asyncio.sleep(exchange.pause_s)

    async def _speak(self, seconds: float) -> None:
        size, due = round(BATCH_S * RATE_HZ), time.monotonic()
        for at in range(0, round(seconds * RATE_HZ), size):
            due += BATCH_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._conversation.hear(self._noise[at : at + size])
        await asyncio.sleep(ENDPOINT_S)

    async def _hear(self, item: str, committed: float, frames: int) -> None:
        measured, outputs = self._measured, self._conversation.respond(item)
        count, first = 0, 0.0
        async for output in outputs:
            if not isinstance(output, Sound):
                continue
            now = time.monotonic()
            if not count:
                first = now
                measured.first_s.append(now - committed)
            measured.late += now > first + count * FRAME_S and count > 0
            measured.frames += 1
            count += 1
            measured.leads[self._seed] = first, count
            if count == frames:
                break
            await asyncio.sleep(max(0.0, first + count * FRAME_S - SESSION_LEAD_S - time.monotonic()))
        await outputs.aclose()  # type: ignore[attr-defined]  # it is an async generator
        measured.leads.pop(self._seed, None)
        await asyncio.sleep(max(0.0, first + count * FRAME_S - time.monotonic()))


async def watch(measured: LiveFigures) -> None:
    while True:
        await asyncio.sleep(0.25)
        now = time.monotonic()
        leads = [
            first + count * FRAME_S - now
            for first, count in measured.leads.values()
            if now - first > SETTLED_S
        ]
        if len(leads) > 1:
            measured.spreads.append(max(leads) - min(leads))


def grant_of(office: ConsentOffice, call_id: str, reference: Reference) -> VoiceGrant:
    grant = office.grant(Scope("heart", "benchmark", "bench", "en", call_id))
    return dataclasses.replace(grant, voice_hash=reference.voice_hash)


async def live(engine: ChromaEngine, office: ConsentOffice, calls: int, seconds: float) -> LiveFigures:
    pcm: Floats = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE_HZ)).astype("f4")
    text = "The words of the clip."
    reference = Reference("heart", hash_voice(pcm.tobytes(), text), pcm, text, stock=False)
    measured = LiveFigures()
    opened = [await engine.open(grant_of(office, f"call{k}", reference), reference) for k in range(calls)]
    tasks = [asyncio.create_task(Talker(c, k, measured).run()) for k, c in enumerate(opened)]
    tasks.append(asyncio.create_task(watch(measured)))
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for conversation in opened:
        await conversation.close()
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise click.ClickException(f"a caller failed: {error!r}")
    return measured


async def run(engine: ChromaEngine, calls: int, seconds: float) -> LiveFigures:
    with tempfile.TemporaryDirectory(prefix="vgb-") as name:
        office = ConsentOffice.open(f"sqlite:///{name}/consent.sqlite", Path(name))
        try:
            return await live(engine, office, calls, seconds)
        finally:
            await engine.close()
            office.close()


def predicted(device: Device, parts: Parts, calls: int, seconds: float) -> Found:
    world = World(device, parts, ON_A_CPU, slots=calls, context=400, reply=300)
    for k in range(calls):
        world.call(k, 0.0)
    return world.run(seconds)


def of(name: str, values: list[float], *shares: float) -> str:
    """Percentiles in ms."""
    if not values:
        return f"{name} –"
    found = np.percentile(1000 * np.array(values), [100 * share for share in shares])
    return f"{name} " + " / ".join(f"{value:.0f}" for value in found)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True))
@click.option("--calls", default="1,4,8,16", help="conversations at once, one run each")
@click.option("--seconds", default=30.0, help="of each run")
def main(directory: Path, calls: str, seconds: float) -> None:
    """The Chroma engine under live conversations, without sockets."""
    torch.set_num_threads(1)
    counts = [int(one) for one in calls.split(",")]
    model = checkpoint.load(directory, device=torch.device("cpu"), dtype=torch.float32)
    parts = Parts(model.config, 4)
    device, how = fit(model, parts, (1, 2, 4, 8, 16))
    load = os.getloadavg()[0]
    click.echo(
        f"{directory.name} on a CPU, one thread, {os.cpu_count()} cores at a load of {load:.1f}; costs {how}"
    )
    for count in counts:
        settings = EngineSettings(conversations=count, context=CONTEXT, reply_s=10.0)
        engine = ChromaEngine(
            model, chat.load(directory, chroma_config.read(directory / "config.json")), settings
        )
        before = time.process_time()
        measured = asyncio.run(run(engine, count, seconds))
        core = (time.process_time() - before) / seconds
        frame_s = [took for _, took in engine.meters.recent]
        guess = predicted(device, parts, count, seconds)
        click.echo(
            f"{count:3d} calls: {measured.late} of {measured.frames} frames late; "
            f"{of('first sound p50/p95 ms', measured.first_s, 0.5, 0.95)} ({len(measured.first_s)} turns); "
            f"{of('frame p50/p99', frame_s, 0.5, 0.99)}; "
            f"{of('spread of leads p50/max', measured.spreads, 0.5, 1.0)}; {core:.0%} of a core\n"
            f"          [{guess.misses} of {len(guess.frame_s)} late; "
            f"{of('first sound', guess.first_s, 0.5, 0.95)}; {of('frame', guess.longest_s, 0.5, 0.99)}]"
        )


if __name__ == "__main__":
    main()
