"""A voice that is withdrawn is told to halls within a second, whatever Redis does: the front's own word."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from consent.archive.keys import SigningKey
from consent.grants.grant import GrantVerifier
from consent.grants.revocation import Revocation, signed
from consent.grants.revocation_desk import RevocationDesk
from consent.grants.revocation_feed import RevocationFeed
from gateway.errors import RpcError
from gateway.front.halls.hall_news import HallNews
from gateway.hall.withdrawn import Withdrawn
from gateway.ipc.envelope import Ask
from gateway.ipc.front_messages import AskWithdrawn
from gateway.ipc.hall_messages import VoicesWithdrawn
from model.tasks import Tasks, failures
from tests.consent.grants.hostile_redis import slow

HOUSE_TIME = True

PROMISED_S = 1.0


class HallPeer:
    """A hall as the front's peer; what it hears, it hears as a hall does."""

    def __init__(self, house: House) -> None:
        self._loop = asyncio.get_running_loop()
        self.muted: dict[str, float] = {}
        self.away = False
        self.withdrawn = Withdrawn(RevocationFeed(house.url, house.verifier), self.revoked)

    async def revoked(self, revocation: Revocation) -> None:
        self.muted.setdefault(revocation.voice, self._loop.time())

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> Any:
        if self.away:
            raise RpcError("it does not answer")
        assert isinstance(message, VoicesWithdrawn)
        return await self.withdrawn.told(self, message)  # type: ignore[arg-type]  # it asks nothing of its peer


class House:
    """The front's side, whole, and two halls."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.signer = SigningKey.make()
        self.verifier = GrantVerifier({self.signer.kid: self.signer.private.public_key()})
        self.gone: list[Revocation] = []
        self.broken: Exception | None = None
        self.alarms: list[str] = []
        self.desk = RevocationDesk(url, self.look, self.verifier)
        self.halls = {name: HallPeer(self) for name in ("hall0", "hall1")}
        self.news = HallNews(self.desk, self.halls, 2, self.alarms.append)  # type: ignore[arg-type]  # what it asks of them
        self.tasks = Tasks()

    def look(self) -> list[Revocation]:
        if self.broken is not None:
            raise self.broken
        return list(self.gone)

    def begin(self) -> None:
        self.tasks.lasting(self.desk.run, "front.revocations")
        self.tasks.lasting(self.news.watch, "front.revocations.watch")
        for name, hall in self.halls.items():
            self.tasks.lasting(lambda name=name: self.news.keep(name), "front.hall_news")  # type: ignore[misc]
            self.tasks.lasting(hall.withdrawn.follow, "hall.revocations")
            self.tasks.lasting(hall.withdrawn.watch, "hall.withdrawn")

    def withdraw(self, voice: str) -> float:
        signer = self.signer
        self.gone.append(signed(voice, f"hash-of-{voice}", "revoked", 1.0, signer.private, signer.kid))
        return asyncio.get_running_loop().time()

    async def silences(self, voice: str) -> None:
        """Withdraws it; fails when a hall has not muted it within the second that is promised."""
        began = self.withdraw(voice)
        await asyncio.sleep(PROMISED_S)
        for name, hall in self.halls.items():
            assert voice in hall.muted, f"{name} speaks on"
            assert hall.muted[voice] - began <= PROMISED_S


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        yield Path(name)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[House]:
    house = House(url)
    house.begin()
    try:
        await asyncio.sleep(5.0)
        yield house
    finally:
        await house.tasks.stop()


@pytest.mark.parametrize("how", ["away", "never answers", "answers with junk"])
async def test_silence_within_a_second_whatever_redis_does(folder: Path, how: str) -> None:
    async with contextlib.AsyncExitStack() as held:
        url = f"unix://{folder}/nobody.sock"
        if how == "never answers":
            url = await held.enter_async_context(slow(folder / "mute.sock", None))
        if how == "answers with junk":

            async def junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError):
                    while await reader.read(1 << 16):
                        writer.write(b"*3\r\n$-1\r\n:\xff\r\n+\xff\xfe\r\n" * 3)
                writer.close()

            server = await asyncio.start_unix_server(junk, str(folder / "junk.sock"))
            held.callback(server.close)
            url = f"unix://{folder}/junk.sock"
        async with opened(url) as house:
            for voice in ("ann", "joe", "eve"):
                await house.silences(voice)
            assert house.news.state() == "slow", "the way through Redis is in doubt"
            assert set(house.news.doubts()) == {"front", "hall0", "hall1"}
            assert house.alarms == ["revocations in doubt"]
            assert house.news.figures()["hall0"]["in_doubt"] == 1.0
            assert house.halls["hall0"].withdrawn.doubt is None, "the front's word holds"


async def test_a_hall_that_comes_later_is_told_everything(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        for number in range(120):
            house.withdraw(f"v{number}")
        late = house.halls["hall1"] = HallPeer(house)
        await asyncio.sleep(PROMISED_S)
        assert len(late.muted) == 120


async def test_one_hall_that_does_not_answer_delays_no_other(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        house.halls["hall0"].away = True
        began = house.withdraw("ann")
        await asyncio.sleep(PROMISED_S)
        assert house.halls["hall1"].muted["ann"] - began <= PROMISED_S
        await asyncio.sleep(3.0)
        assert "hall0" in house.news.doubts()
        house.halls["hall0"].away = False
        await asyncio.sleep(PROMISED_S)
        assert "ann" in house.halls["hall0"].muted


async def test_a_ledger_that_cannot_be_read_is_an_alarm_and_looked_at_each_second(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        house.broken = RuntimeError("the database is locked")
        await asyncio.sleep(3.0)
        assert house.news.state() == "down"
        assert "the database is locked" in house.news.doubts()["ledger"]
        house.withdraw("ann")
        house.broken = None
        await asyncio.sleep(PROMISED_S)
        assert all("ann" in hall.muted for hall in house.halls.values())
        assert house.news.state() == "slow"
    assert not failures["front.revocations"], "such a look is no failure of the task"


async def test_a_hall_without_front_and_redis_says_that_it_is_in_doubt(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        hall = house.halls["hall0"]
        assert hall.withdrawn.doubt is None
        hall.away = True
        await asyncio.sleep(4.0)
        assert hall.withdrawn.doubt is not None
        hall.away = False
        await asyncio.sleep(PROMISED_S)
        assert hall.withdrawn.doubt is None


async def test_an_engine_asks_from_where_it_is(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        house.withdraw("ann")
        house.withdraw("joe")
        await asyncio.sleep(PROMISED_S)
        first = await house.news.asked(None, AskWithdrawn("", 0))  # type: ignore[arg-type]  # whoever asks
        assert len(first.tokens) == 2
        assert house.news.withdrawn(first.series, 2).tokens == ()
        assert len(house.news.withdrawn(first.series, 1).tokens) == 1
        assert len(house.news.withdrawn("another front's", 2).tokens) == 2
        assert len(house.news.withdrawn(first.series, -7).tokens) == 2


async def test_a_hall_that_does_not_know_the_key_yet_is_told_again(folder: Path) -> None:
    async with opened(f"unix://{folder}/nobody.sock") as house:
        hall = house.halls["hall0"]
        verifier = hall.withdrawn._feed.revocations._verifier
        keys = dict(verifier._keys)
        verifier._keys.clear()
        house.withdraw("ann")
        await asyncio.sleep(0.3)
        assert "ann" not in hall.muted
        verifier._keys.update(keys)
        await asyncio.sleep(PROMISED_S)
        assert "ann" in hall.muted
