"""An engine in a process of its own: all of it crosses, nothing is left behind, no end outlives the other.

The engine over there is scripted; what its conversations do is told them by `SessionConfig.phrases`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from consent.grants.grant import VoiceGrant
from model.api import (
    FRAME,
    Forgot,
    HistoryItem,
    Limits,
    Output,
    Reference,
    SessionConfig,
    Sound,
    Text,
    Tool,
    Understood,
)
from model.client import Done, EngineClient, EngineEvent, Failure
from model.errors import EngineBusy, EngineError, EngineLost, ProtocolError, VoiceError
from model.link import AHEAD
from model.proxy import ConversationProxy, EngineProxy
from tests.model.conftest import Grants
from tests.model.scripted import ScriptedConversation, ScriptedEngine
from tests.needs import HANGS_S

REFERENCE = Reference("heart", "hash", np.linspace(-1, 1, 500_000, dtype=np.float32), "words", stock=True)
SHORT = np.zeros(240, np.float32)
SLOTS = 3


class FarConversation(ScriptedConversation):
    holds = 0
    """commits to be held up"""

    async def configure(self, config: SessionConfig) -> None:
        await super().configure(config)
        for name, value in config.phrases.items():
            setattr(self, name, value)

    async def commit(self) -> Understood:
        if self.holds:
            self.holds -= 1
            self.engine.held += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.engine.held -= 1
        return await super().commit()


class FarEngine(ScriptedEngine):
    held = 0
    """commits under way"""

    async def open(self, grant: VoiceGrant, reference: Reference) -> ScriptedConversation:
        if reference.text == "unusable":
            raise VoiceError(f"the voice {reference.voice!r} will not do")
        if reference.text == "slow":
            await asyncio.sleep(0.001)
        conversation = await super().open(grant, reference)
        conversation.__class__ = FarConversation
        return conversation

    async def metrics(self) -> str:
        counts = {
            "taken": self.taken,
            "ended": sum(conversation.ended for conversation in self.conversations),
            "made": sum(conversation.frames_made for conversation in self.conversations),
            "held": self.held,
            "restored": sum(len(conversation.restored) for conversation in self.conversations),
            "forgotten": len(self.forgotten),
        }
        return "".join(f"{name} {count}\n" for name, count in counts.items())


async def far() -> FarEngine:
    return FarEngine(SLOTS)


async def nowhere() -> FarEngine:
    raise ModuleNotFoundError("No module named 'gpu'")


FAR = f"{__name__}:far"


def never() -> None:
    raise AssertionError("it died")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[EngineProxy]:
    engine = await EngineProxy.start(FAR, never)
    yield engine
    await engine.close()


@pytest.fixture
def grant(grants: Grants) -> VoiceGrant:
    return grants.issue()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def counts(engine: EngineProxy) -> dict[str, int]:
    return {name: int(count) for name, count in map(str.split, (await engine.metrics()).splitlines())}


async def opened(engine: EngineProxy, grant: VoiceGrant, **does: Any) -> ConversationProxy:
    conversation = await engine.open(grant, REFERENCE)
    await conversation.configure(SessionConfig(phrases=does))
    return conversation


async def all_of(outputs: AsyncIterator[Output]) -> list[Output]:
    return [output async for output in outputs]


def idle(engine: EngineProxy) -> bool:
    """Whether nobody waits for anything."""
    return not engine._answers and not engine._outputs


# ── all of it crosses ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_conversation_crosses(engine: EngineProxy, grant: VoiceGrant) -> None:
    assert engine.limits == Limits(conversations=SLOTS, transcribes=True)
    tool = Tool("hang_up", {"intent": "goodbye"})
    conversation = await opened(engine, grant, tool=tool, forgot=2)
    conversation.hear(np.full(100, 0.5, np.float32))
    conversation.clear()
    for _ in range(3):
        conversation.hear(np.full(2_400, 0.25, np.float32))
    assert await conversation.commit() == Understood(0.3, "hello", 0.5)
    said = await all_of(conversation.respond("item"))
    assert said[0] == Forgot(2)
    assert said[-1] == tool
    assert [output.delta for output in said if isinstance(output, Text)] == ["one", " two", " three"]
    sounds = [output.pcm for output in said if isinstance(output, Sound)]
    assert [(pcm.shape, pcm.dtype) for pcm in sounds] == [((FRAME,), np.float32)] * 6
    assert len({float(pcm[0]) for pcm in sounds}) == 1
    assert Text("word for word") in await all_of(conversation.respond("item", "word for word"))
    assert await conversation.truncate("item", 0.5) == "0.5 s"
    before = await counts(engine)
    await conversation.restore(HistoryItem("user", pcm=np.zeros(500_000, np.float32)))
    engine.forget("hash")
    after = await counts(engine)
    assert (after["restored"] - before["restored"], after["forgotten"] - before["forgotten"]) == (1, 1)
    await conversation.close()
    await conversation.close()
    assert (await counts(engine))["taken"] == 0
    assert idle(engine)


async def test_errors_cross_as_themselves(engine: EngineProxy, grant: VoiceGrant) -> None:
    with pytest.raises(VoiceError, match="the voice 'heart' will not do"):
        await engine.open(grant, dataclasses.replace(REFERENCE, text="unusable"))
    several = [await opened(engine, grant) for _ in range(SLOTS)]
    with pytest.raises(EngineBusy, match="3 conversations are all"):
        await engine.open(grant, REFERENCE)
    with pytest.raises(ProtocolError) as wrong:
        await several[0].configure(SessionConfig(instructions="nonsense"))
    assert (wrong.value.param, wrong.value.code) == ("session.instructions", "unknown_parameter")
    await several[0].configure(SessionConfig(phrases={"fails": EngineError("tired")}))
    with pytest.raises(EngineError, match=r"^tired$"):
        await all_of(several[0].respond("item"))
    await several[0].configure(SessionConfig(phrases={"fails": ZeroDivisionError("no")}))
    with pytest.raises(EngineError, match=r"^ZeroDivisionError: no$"):
        await all_of(several[0].respond("item"))
    for conversation in several:
        await conversation.close()
    assert (await counts(engine))["taken"] == 0


async def test_a_factory_that_fails_says_why_and_leaves_no_process() -> None:
    with pytest.raises(EngineError, match="ModuleNotFoundError: No module named 'gpu'"):
        await EngineProxy.start(f"{__name__}:nowhere", never)
    assert not children(os.getpid(), "nowhere")


# ── who does not listen, who leaves ─────────────────────────────────────────────────────────────────────────


async def test_a_listener_that_waits_is_waited_for(engine: EngineProxy, grant: VoiceGrant) -> None:
    slow = await opened(engine, grant, frames_a_word=1_000_000)
    quick = await opened(engine, grant)
    before = (await counts(engine))["made"]
    outputs = slow.respond("item")
    for taken in range(1, 60):
        await anext(outputs)
        for _ in range(2):
            made = (await counts(engine))["made"]
        assert made - before <= taken + AHEAD
    assert len(await all_of(quick.respond("item"))) == 9, "others are not held up"
    await slow.close()
    assert len(await all_of(outputs)) <= AHEAD, "what was under way"
    await quick.close()
    assert idle(engine)


async def test_a_reply_is_over_there_when_its_iterator_is_closed_here(
    engine: EngineProxy, grant: VoiceGrant
) -> None:
    conversation = await opened(engine, grant, frames_a_word=1_000_000)
    before = (await counts(engine))["ended"]
    for taken in range(1, 12):
        outputs: Any = conversation.respond(f"item {taken}")
        for _ in range(taken):
            await anext(outputs)
        await outputs.aclose()
        assert (await counts(engine))["ended"] - before == taken
    await conversation.close()
    assert idle(engine)


async def test_cancelled_at_any_point_nothing_is_left(engine: EngineProxy, grant: VoiceGrant) -> None:
    """A whole call, from `open` on, is cancelled after a number of passes of the loop."""

    async def call() -> None:
        conversation = await engine.open(grant, dataclasses.replace(REFERENCE, text="slow", pcm=SHORT))
        try:
            await conversation.configure(SessionConfig(phrases={"frames_a_word": 3}))
            conversation.hear(SHORT)
            await conversation.commit()
            await all_of(conversation.respond("item"))
        finally:
            await conversation.close()

    for passes in (*range(12), *range(12, 60, 2)):
        task = asyncio.create_task(call())
        for _ in range(passes):
            await asyncio.sleep(0 if passes < 12 else 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        now = await counts(engine)
        assert (now["taken"], now["held"]) == (0, 0), passes
        assert idle(engine), passes


async def test_a_slot_whose_taker_left_while_it_was_told_is_free_again(
    engine: EngineProxy, grant: VoiceGrant
) -> None:
    task = asyncio.create_task(engine.open(grant, dataclasses.replace(REFERENCE, pcm=SHORT)))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the answer comes, and nobody looks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert (await counts(engine))["taken"] == 0


async def test_what_nobody_waits_for_any_more_ends_over_there(engine: EngineProxy, grant: VoiceGrant) -> None:
    conversation = await opened(engine, grant, holds=2)
    conversation.hear(SHORT)
    commit = asyncio.create_task(conversation.commit())
    while not (await counts(engine))["held"]:
        pass
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    assert (await counts(engine))["held"] == 0
    commit = asyncio.create_task(conversation.commit())
    while not (await counts(engine))["held"]:
        pass
    await conversation.close()
    assert (await counts(engine))["held"] == 0, "a conversation that is closed ends what it was about"
    await commit


# ── neither end outlives the other ──────────────────────────────────────────────────────────────────────────


async def test_whoever_waits_for_a_dead_engine_is_told_last(grant: VoiceGrant) -> None:
    told: list[str] = []
    engine = await EngineProxy.start(FAR, lambda: told.append("died"))
    conversation = await opened(engine, grant, frames_a_word=1_000_000, holds=1)

    async def waiting(work: Any) -> None:
        with pytest.raises(EngineLost):
            await work
        told.append("lost")

    tasks = [
        asyncio.create_task(waiting(work))
        for work in (conversation.commit(), all_of(conversation.respond("item")))
    ]
    while not (await counts(engine))["made"]:
        pass
    os.kill(engine._process.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
        assert told == ["died", "lost", "lost"]
        conversation.hear(SHORT)
        with pytest.raises(EngineLost):
            await engine.open(grant, REFERENCE)
        with pytest.raises(EngineLost):
            await all_of(conversation.respond("item"))
        await conversation.close()
        await engine.close()
        await engine.close()
    assert idle(engine)


SERVER = f"""
import model.server
from model.link import AHEAD
from model.proxy import EngineProxy

async def load(name):
    return await EngineProxy.start({FAR!r}, model.server._end)

model.server.load = load
model.server.main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:  # pytest's own is too long for a socket's path
        yield Path(name)


Serving = tuple[subprocess.Popen[bytes], int, EngineClient]


@pytest_asyncio.fixture(loop_scope="module")
async def serving(folder: Path, grants: Grants) -> AsyncIterator[Serving]:
    """A server's process, the process of its engine, and a client of both."""
    path, keys = str(folder / "s"), str(grants.office.public_keys_path)
    argv = [sys.executable, "-c", SERVER, "--uds", path, "--keys", keys]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(argv, stdout=log, stderr=log)  # noqa: ASYNC220
    client = EngineClient(path)
    async with asyncio.timeout(HANGS_S):
        while not await client.ready():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
    (worker,) = children(process.pid, "model.worker")
    yield process, worker, client
    process.kill()
    process.wait()


def children(pid: int, of: str) -> list[int]:
    """Processes that `pid` started, with `of` in their command."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and of in command:
            found.append(int(stat.parent.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANGS_S):
        while not true():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)


async def test_a_server_whose_engine_dies_ends_at_once(
    serving: Serving, grants: Grants, folder: Path
) -> None:
    process, worker, client = serving
    session = await client.connect(grants.issue().token)
    await session.update(phrases={"frames_a_word": 1_000_000})
    await session.respond()
    os.kill(worker, signal.SIGKILL)
    events: list[EngineEvent] = []

    async def listen() -> None:
        async for event in session:
            events.append(event)

    async with asyncio.timeout(HANGS_S):
        with pytest.raises(EngineLost):
            await listen()
    assert not [event for event in events if isinstance(event, Done | Failure)], "its hall asks for it again"
    assert await asyncio.to_thread(process.wait, 5) == 1
    log = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    (died,) = [line for line in log if line["event"] == "engine.process_died"]
    assert (died["pid"], died["status"]) == (worker, -9)


async def test_an_engine_whose_server_dies_is_over(serving: Serving) -> None:
    process, worker, _ = serving
    process.kill()
    await until(lambda: not runs(worker))


async def test_a_server_that_is_told_to_stop_takes_its_engine_along(serving: Serving, grants: Grants) -> None:
    process, worker, client = serving
    session = await client.connect(grants.issue().token)
    os.kill(worker, signal.SIGTERM)  # as a terminal or systemd would, to both
    process.terminate()
    assert await asyncio.to_thread(process.wait, 5) == 0
    await until(lambda: not runs(worker))
    await session.aclose()
