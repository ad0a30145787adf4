"""An engine that captures graphs for two minutes before it is ready: nobody on the way gives it up.

Its server says nothing on its socket until then, its log says how far it is, and the house waits.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import model.server
from consent.office.office import ConsentOffice
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import RpcError, StartError
from gateway.ipc.front_messages import HouseState
from gateway.run.supervisor import Supervisor
from model import own_process
from model.client import EngineClient
from tests.model.scripted import ScriptedEngine

HOUSE_TIME = True

GRAPHS = 40
GRAPH_S = 3.0
"""Two minutes for all."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        yield Path(name)


@pytest.fixture
async def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineClient]:
    """Of a server that has begun to load its engine."""

    async def load(_: str) -> ScriptedEngine:
        for done in range(GRAPHS):
            await asyncio.sleep(GRAPH_S)
            own_process.prepares("graphs", done + 1, GRAPHS)
        return ScriptedEngine()

    monkeypatch.setattr(model.server, "load", load)
    office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder)
    serving = asyncio.create_task(
        model.server.serve("chroma", office.public_keys_path, None, None, uds=str(folder / "engine"))
    )
    yield EngineClient(str(folder / "engine"))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    office.close()


async def test_a_server_is_there_when_its_engine_is_and_its_log_says_how_far(client: EngineClient) -> None:
    began = time.monotonic()
    with capture_logs() as said:
        while not await client.ready():  # noqa: ASYNC110 - as a hall looks
            await asyncio.sleep(1.0)
    assert time.monotonic() - began == pytest.approx(GRAPHS * GRAPH_S, abs=2.0)
    told = [(line["doing"], line["done"], line["of"]) for line in said if line["event"] == "engine.preparing"]
    assert told == [("graphs", done + 1, GRAPHS) for done in range(GRAPHS)]


@pytest.fixture
def shown() -> list[str]:
    return []


def house(folder: Path, client: EngineClient, shown: list[str], **settings: Any) -> Supervisor:
    """Whose front asks the engine, as a hall does for it."""

    found: dict[int, bool] = {}

    async def ask_front(_: object) -> HouseState:
        if not shown:
            raise RpcError("it is not there yet")
        second = int(time.monotonic())
        if second not in found:
            found[second] = await client.ready()
        ready = found[second]
        return HouseState(ready, {"hall": "ready", "engine": "ready" if ready else "down"})

    made = Supervisor(Settings(data_dir=folder, **settings), Runtime(folder), "token", shown.append)
    made.ask_front = ask_front  # type: ignore[method-assign, assignment]  # the front's word
    return made


async def test_a_house_waits_for_an_engine_that_prepares_itself(
    folder: Path, client: EngineClient, shown: list[str]
) -> None:
    began = time.monotonic()
    state = await house(folder, client, shown, engine="chroma", chroma=str(folder)).ready()
    assert state.ready
    assert time.monotonic() - began == pytest.approx(GRAPHS * GRAPH_S, abs=2.0)
    assert (shown[0], shown[-1]) == ("waiting for front", "waiting for engine")


async def test_a_house_with_an_engine_that_is_there_at_once_does_not_wait_so_long(
    folder: Path, client: EngineClient, shown: list[str]
) -> None:
    with pytest.raises(StartError, match="not ready after 60 s; still missing: engine"):
        await house(folder, client, shown, engine="embedded").ready()
