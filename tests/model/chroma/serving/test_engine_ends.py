"""Two engines on the golden checkpoint, each with its server; one of them fails in the middle of a reply. Its
process and its server end, with the reason in their log, and the call goes on with the other."""

from __future__ import annotations

import asyncio
import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from consent.grants.grant import VoiceGrant
from consent.grants.scope import Scope
from model import engines, own_process
from model.api import Engine
from model.chroma.serving import fates
from model.chroma.serving.engine import ChromaEngine
from model.client import Audio, Done, EngineClient, EngineEvent, EngineSession, Failure
from model.errors import EngineLost
from model.own_process import Cause
from tests.model.chroma.serving.test_server import TOKEN, House, noise, short_folder, until_done
from tests.needs import HANGS_S

SOUND_STEPS: Final = 6
"""Steps that go well, before one that does not."""
ILLEGAL: Final = "CUDA error: an illegal memory access was encountered"


async def _ill(meets: Callable[[], object]) -> Engine:
    """The engine, whose steps meet that."""
    engine = await engines.chroma()
    assert isinstance(engine, ChromaEngine)
    run, steps = engine.steps.run, iter(range(1_000_000))

    def step(*given: Any) -> Any:
        if next(steps) >= SOUND_STEPS:
            meets()
        return run(*given)

    engine.steps.run = step  # type: ignore[method-assign]  # that is the injection
    return engine


def _fail(error: Exception) -> None:
    raise error


async def sticky() -> Engine:
    return await _ill(lambda: _fail(torch.AcceleratorError(ILLEGAL)))


async def without_memory() -> Engine:
    return await _ill(lambda: _fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))


async def hung() -> Engine:
    fates.HUNG_AFTER_S["cpu"] = (2.0, 300.0)  # nobody waits for a minute here
    return await _ill(lambda: time.sleep(1000))


async def hung_with_the_interpreter() -> Engine:
    own_process.HELD_S = 3.0  # type: ignore[misc]  # nor for this
    return await _ill(lambda: ctypes.PyDLL(None).sleep(1000))


SERVER = """
import model.server
from model.proxy import EngineProxy

async def load(_):
    return await EngineProxy.start("{module}:{factory}", model.server._end)

model.server.load = load
model.server.main()
"""


async def said_until_lost(session: EngineSession) -> list[EngineEvent]:
    found: list[EngineEvent] = []

    async def listen() -> None:
        async for event in session:
            found.append(event)

    async with asyncio.timeout(HANGS_S):
        with pytest.raises(EngineLost):
            await listen()
    return found


@pytest.mark.long("two engines load, with torch, and one of them is given time to hang")
@pytest.mark.parametrize(
    ("factory", "status", "said", "where"),
    [
        (sticky, Cause.DEVICE, f"frame: AcceleratorError: {ILLEGAL}", ""),
        (without_memory, Cause.MEMORY, "frame: OutOfMemoryError: CUDA out of memory.", ""),
        (hung, Cause.HUNG, "work of kind frame takes more than 2 s", "in step\n"),
        (hung_with_the_interpreter, -14, "", "in step\n"),
    ],
    ids=["sticky", "memory", "hung", "holds the interpreter"],
)
async def test_a_call_goes_on_elsewhere_when_its_engine_fails(
    golden: Path, factory: Callable[[], object], status: int, said: str, where: str
) -> None:
    with short_folder() as folder:
        house = House(folder, golden, noise(2.0, 9))
        house.argv = ["-c", SERVER.format(module=__name__, factory=factory.__name__)]
        other = house.beside("other.sock")
        await asyncio.gather(house.start(), other.start_engine())
        try:
            both = EngineClient([house.client._places[0], other.client._places[0]], TOKEN)

            def grant() -> VoiceGrant:
                return house.office.grant(Scope("heart", "test", "test", "en", "call-1"))

            session = await both.connect(grant().token)
            await session.update(instructions="Be brief.", binary=True, lead_s=0.2)
            await session.respond(say="Hello, a machine speaks.")
            heard = await said_until_lost(session)
            assert any(isinstance(event, Audio) for event in heard), "it had begun to speak"
            assert not [event for event in heard if isinstance(event, Done | Failure)], "it is asked again"
            assert await asyncio.to_thread(house.process.wait, HANGS_S) == 1

            log = [json.loads(line) for line in house.log_path.read_text().splitlines()]
            (died,) = [line for line in log if line["event"] == "engine.process_died"]
            assert died["status"] == status
            assert died["why"] == own_process.WHY[status]
            assert said in died["reason"]
            assert where in f"{died['reason']}\n{died['where']}\n"
            own = [line for line in log if line["event"] == "engine.ends"]
            assert [line["reason"] for line in own] == ([died["reason"]] if status > 0 else [])

            session = await both.connect(grant().token)
            await session.update(instructions="Be brief.", binary=True, lead_s=10.0)
            await session.respond(say="Hello, a machine speaks.")
            done = (await until_done(session))[-1]
            assert isinstance(done, Done)
            assert (done.status, done.text) == ("completed", "Hello, a machin")
            await session.aclose()
        finally:
            await other.stop_engine()
            if house.process.poll() is None:
                house.process.kill()
                await asyncio.to_thread(house.process.wait)
            await house.front.stop()
