"""One grant opens one session, whichever of two engines it comes to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from consent.grants.grant import VoiceGrant
from gateway.errors import RpcError
from gateway.front.halls.grant_door import GrantDoor
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.registry import Registry, RegistryError
from model.client import EngineClient, EngineSession
from model.errors import EngineBusy, EngineError, GrantSpent
from model.reference import ReferenceDesk
from model.server import EngineApp
from tests.model.conftest import Grants
from tests.model.scripted import ScriptedEngine


class Door(ReferenceDesk):
    """An engine's way to the front, without a socket between."""

    def __init__(self, door: GrantDoor) -> None:
        super().__init__(None, None)
        self._door = door
        self.away = False

    async def redeem(self, grant: VoiceGrant, connection: str) -> bool:
        if self.away:
            raise EngineError("the grant cannot be redeemed: the front is away")
        try:
            return await self._door.redeem(grant.token, connection, False)
        except RpcError as error:
            raise EngineError(str(error)) from None

    async def give_back(self, grant: VoiceGrant, connection: str) -> None:
        await self._door.redeem(grant.token, connection, True)


class Cluster:
    """Two engines that redeem at one front."""

    def __init__(self, urls: list[str], engines: list[ScriptedEngine], doors: list[Door]) -> None:
        self.urls = urls
        self.engines = engines
        self.doors = doors

    async def open(self, grant: VoiceGrant, at: int) -> EngineSession:
        return await EngineClient(self.urls[at]).connect(grant.token)


@contextlib.asynccontextmanager
async def listening(app: EngineApp) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app.asgi(), log_level="error", ws="websockets-sansio")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.shutdown([listener])


@pytest.fixture
def redeemed(tmp_path: Path) -> Iterator[RedeemedGrants]:
    registry = Registry.open(f"sqlite:///{tmp_path}/registry.db")
    table = RedeemedGrants(registry)
    table.open()
    yield table
    registry.close()


@pytest.fixture
async def cluster(grants: Grants, redeemed: RedeemedGrants) -> AsyncIterator[Cluster]:
    engines = [ScriptedEngine(slots=2) for _ in range(2)]
    doors = [Door(GrantDoor(redeemed, grants.office.public_keys_path)) for _ in range(2)]
    async with contextlib.AsyncExitStack() as held:
        urls = [
            await held.enter_async_context(
                listening(EngineApp(engine, grants.verifier, door.fetch, door=door))
            )
            for engine, door in zip(engines, doors, strict=True)
        ]
        yield Cluster(urls, engines, doors)


async def test_a_second_engine_refuses_what_the_first_one_has(cluster: Cluster, grants: Grants) -> None:
    grant = grants.issue()
    session = await cluster.open(grant, 0)
    for at in (1, 0):
        with pytest.raises(GrantSpent):
            await cluster.open(grant, at)
    await session.aclose()


async def test_a_grant_is_not_good_again_after_its_connection_closed(
    cluster: Cluster, grants: Grants
) -> None:
    grant = grants.issue()
    await (await cluster.open(grant, 0)).aclose()
    for at in (0, 1):
        with pytest.raises(GrantSpent):
            await cluster.open(grant, at)
    with pytest.raises(GrantSpent):
        await cluster.open(grants.office.renew(grant), 1)  # the same id, renewed
    await (await cluster.open(grants.issue(), 1)).aclose()


async def test_of_many_who_bring_it_at_the_same_time_one_gets_in(cluster: Cluster, grants: Grants) -> None:
    grant = grants.issue()
    tries = await asyncio.gather(*(cluster.open(grant, n % 2) for n in range(12)), return_exceptions=True)
    opened = [one for one in tries if isinstance(one, EngineSession)]
    assert len(opened) == 1
    assert all(isinstance(one, EngineSession | GrantSpent) for one in tries)
    assert sum(len(engine.conversations) for engine in cluster.engines) == 1
    await opened[0].aclose()


async def test_an_engine_that_is_full_gives_the_grant_back(cluster: Cluster, grants: Grants) -> None:
    async def full(*_: object) -> None:
        raise EngineBusy("no slot")

    cluster.engines[0].open = full  # type: ignore[method-assign, assignment]
    grant = grants.issue()
    with pytest.raises(EngineBusy):
        await cluster.open(grant, 0)
    await (await cluster.open(grant, 1)).aclose()


async def test_a_call_that_lost_its_engine_gets_another_grant_and_goes_on_elsewhere(
    cluster: Cluster, grants: Grants
) -> None:
    grant = grants.issue()
    lost = await cluster.open(grant, 0)
    began = time.monotonic()
    again = await cluster.open(grants.office.grant(grant.scope), 1)
    assert time.monotonic() - began < 60, "it waits for no lease to end"
    await again.aclose()
    await lost.aclose()


async def test_a_session_does_not_take_another_grant_over(cluster: Cluster, grants: Grants) -> None:
    session = await cluster.open(grants.issue(), 0)
    other = grants.issue()
    await session.update(grant=other.token)
    async for event in session:
        if getattr(event, "code", "").startswith("grant_"):
            break
    await (await cluster.open(other, 1)).aclose()
    await session.aclose()


async def test_without_the_front_or_its_database_nobody_gets_in(
    cluster: Cluster, grants: Grants, redeemed: RedeemedGrants, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise RegistryError("a grant was not redeemed: the disk is full")

    cluster.doors[0].away = True
    with pytest.raises(EngineError, match="redeemed"):
        await cluster.open(grants.issue(), 0)
    monkeypatch.setattr(redeemed, "redeem", broken)
    with pytest.raises(EngineError, match="the disk is full"):
        await cluster.open(grants.issue(), 1)
    assert all(not engine.conversations for engine in cluster.engines)


def test_what_was_redeemed_is_forgotten_after_the_longest_call(
    redeemed: RedeemedGrants, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redeemed.redeem("a", "one")
    assert redeemed.redeem("a", "one"), "asked again, because the answer was lost"
    assert not redeemed.redeem("a", "two")
    redeemed.give_back("a", "two")
    assert not redeemed.redeem("a", "two"), "only the connection that has it gives it back"
    now: Callable[[], float] = time.time
    later = now() + 3 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert redeemed.redeem("b", "two")
    assert redeemed.redeem("a", "two")


async def test_a_door_asks_for_a_valid_grant(grants: Grants, redeemed: RedeemedGrants) -> None:
    door = GrantDoor(redeemed, grants.office.public_keys_path)
    grant = grants.issue()
    for token, connection in (("", "c"), ("a.b.c", "c"), (grant.token, ""), (grant.token, "c" * 65)):
        with pytest.raises(RpcError):
            await door.redeem(token, connection, False)
    assert await door.redeem(grant.token, "c", False)
