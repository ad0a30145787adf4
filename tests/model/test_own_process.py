"""An engine that cannot go on ends its process at once, whoever holds what, and its server knows why."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from consent.grants.grant import VoiceGrant
from model import own_process
from model.api import Reference
from model.errors import EngineEnds, EngineLost
from model.own_process import Cause
from model.proxy import EngineProxy
from tests.model.conftest import Grants
from tests.model.scripted import ScriptedConversation, ScriptedEngine
from tests.model.test_proxy import REFERENCE, runs
from tests.needs import HANGS_S


class Ill(ScriptedEngine):
    """What `open` meets in a thread of the engine's."""

    def __init__(self, meets: Callable[[], object], within_s: float = 0.5) -> None:
        super().__init__(3)
        self.meets = meets
        self.within_s = within_s

    async def open(self, grant: VoiceGrant, reference: Reference) -> ScriptedConversation:
        def work() -> None:
            with own_process.within(self.within_s, "the test's work"):
                self.meets()

        await asyncio.to_thread(work)
        return await super().open(grant, reference)


def hang() -> None:
    time.sleep(1000)


def hang_with_the_interpreter() -> None:
    ctypes.PyDLL(None).sleep(1000)


def crash() -> None:
    ctypes.string_at(0)


def be_quick() -> None:
    for done in range(12):
        own_process.prepares("the test", done, 12)
        time.sleep(0.5)


async def hanging() -> Ill:
    return Ill(hang)


async def holding() -> Ill:
    own_process.HELD_S = 3.0  # type: ignore[misc]  # nobody waits for 20 s here
    return Ill(hang_with_the_interpreter)


async def failing() -> Ill:
    return Ill(lambda: own_process.end(Cause.DEVICE, "frame: an illegal memory access"))


async def crashing() -> Ill:
    return Ill(crash)


async def quick() -> Ill:
    return Ill(be_quick, within_s=5.0)


@pytest.mark.parametrize(
    ("factory", "status", "why", "reason", "where"),
    [
        (failing, Cause.DEVICE, "the device failed", "frame: an illegal memory access", ""),
        (
            hanging,
            Cause.HUNG,
            "took longer than it may",
            "the test's work takes more than 0.5 s",
            "in hang\n",
        ),
        (holding, -14, "something kept the interpreter", "", "in hang_with_the_interpreter\n"),
        (crashing, -11, "", "Fatal Python error: Segmentation fault", "in crash\n"),
    ],
    ids=["failing", "hanging", "holding", "crashing"],
)
async def test_the_process_ends_and_its_server_knows_why(
    grants: Grants, factory: Callable[[], object], status: int, why: str, reason: str, where: str
) -> None:
    died: list[str] = []
    engine = await EngineProxy.start(f"{__name__}:{factory.__name__}", lambda: died.append("died"))
    pid = engine._process.pid
    with capture_logs() as said:
        async with asyncio.timeout(HANGS_S):
            with pytest.raises(EngineLost, match=f"ended with {int(status)}.*{why}"):
                await engine.open(grants.issue(), REFERENCE)
    assert died == ["died"]
    assert not runs(pid)
    (end,) = [line for line in said if line["event"] == "engine.process_died"]
    assert (end["pid"], end["status"]) == (pid, status)
    assert why in end["why"]
    assert reason in end["reason"]
    assert where in f"{end['reason']}\n{end['where']}\n"
    await engine.close()


async def test_what_goes_on_is_not_hung(grants: Grants) -> None:
    """Each step of a preparation has its own time; all of them together take longer."""
    engine = await EngineProxy.start(f"{__name__}:quick", lambda: None)
    conversation = await engine.open(grants.issue(), REFERENCE)
    await conversation.close()
    await engine.close()
    assert engine._process.returncode == 0


async def test_a_process_that_cannot_be_ended_does_not_hold_its_server(
    monkeypatch: pytest.MonkeyPatch, grants: Grants
) -> None:
    """It waits in a driver, in the kernel, and not even SIGKILL is heard there."""
    died: list[str] = []
    engine = await EngineProxy.start(f"{__name__}:quick", lambda: died.append("died"))
    process = engine._process
    gone = asyncio.Event()

    class Stuck:
        pid = process.pid

        async def wait(self) -> int:
            await gone.wait()
            return 0

        def kill(self) -> None:
            pass

    monkeypatch.setattr(engine, "_process", Stuck())
    asking = asyncio.create_task(engine.open(grants.issue(), REFERENCE))
    await asyncio.sleep(0)
    engine.link.cut()
    async with asyncio.timeout(HANGS_S):
        with pytest.raises(EngineLost, match="cannot be ended"):
            await asking
    assert died == ["died"]
    await process.wait()  # it saw its link break


def test_a_process_that_is_not_the_engines_own_is_not_ended() -> None:
    with pytest.raises(EngineEnds, match=r"the device failed.*: broken"):
        own_process.end(Cause.DEVICE, "broken")
    with own_process.within(0.0, "nothing"):
        pass
    assert not own_process.is_own()
    assert "watch" not in [thread.name for thread in threading.enumerate()]
