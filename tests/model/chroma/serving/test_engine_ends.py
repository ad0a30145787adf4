"""Two engines on the golden checkpoint, each with its server; one of them fails in the middle of a reply. Its
process and its server end, with the reason in their log, and the call goes on with the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from model import own_process
from model.client import Audio, Done, EngineClient, EngineEvent, EngineSession, Failure
from model.errors import EngineLost
from model.own_process import Cause
from tests.model.chroma.serving.failing_engines import (
    ILLEGAL,
    hung,
    hung_with_the_interpreter,
    sticky,
    without_memory,
)
from tests.model.chroma.serving.test_server import TOKEN, House, noise, short_folder, until_done
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

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


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def survivor(golden: Path) -> AsyncIterator[House]:
    """The engine with which calls go on, and the front of both."""
    with short_folder() as folder:
        house = House(folder, golden, noise(2.0, 9))
        await house.start()
        yield house
        await house.stop()


@pytest.mark.long("each case loads an engine, with torch, and some give it time to hang")
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
    survivor: House, factory: Callable[[], object], status: int, said: str, where: str
) -> None:
    house = survivor.beside(f"{factory.__name__}.sock")
    house.argv = ["-c", SERVER.format(module=factory.__module__, factory=factory.__name__)]
    try:
        await house.start_engine()
        both = EngineClient([house.client._places[0], survivor.client._places[0]], TOKEN)
        session = await both.connect(house.grant("call-1").token)
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

        session = await both.connect(house.grant("call-1").token)
        await session.update(instructions="Be brief.", binary=True, lead_s=10.0)
        await session.respond(say="Hello, a machine speaks.")
        done = (await until_done(session))[-1]
        assert isinstance(done, Done)
        assert (done.status, done.text) == ("completed", "Hello, a machin")
        await session.aclose()
    finally:
        if house.process.poll() is None:
            house.process.kill()
            await asyncio.to_thread(house.process.wait)
