"""Whatever somebody may do to our Redis: neither side of the revocations ends, or misses one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from consent.archive.keys import SigningKey
from consent.grants.grant import GrantVerifier
from consent.grants.revocation import KEY, Revocation, RevocationList, signed
from consent.grants.revocation_desk import RevocationDesk
from consent.grants.revocation_feed import RevocationFeed
from tests.consent.conftest import Valkey
from tests.consent.grants.hostile_redis import HOSTILE
from tests.needs import HANGS_S

TIMES = 60
ENDLESS = {"no memory", "writes paused", "all paused"}
"""After these Redis stays as it is: only the front's own word is left (`tests/gateway/front`)."""


class House:
    """A front's desk and halls' feeds at one Redis, and an office that withdraws what it is told to."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("consent.grants.revocation_desk.RECHECK_ROUNDS", 2)
        self.url = url
        self.signer = SigningKey.make()
        self.verifier = GrantVerifier({self.signer.kid: self.signer.private.public_key()})
        self.gone: list[Revocation] = []
        self.desk = RevocationDesk(url, lambda: list(self.gone), self.verifier)
        self.redis: Any = Redis.from_url(url)
        self.tasks: list[asyncio.Task[None]] = []

    def withdraw(self, voice: str) -> None:
        signer = self.signer
        self.gone.append(signed(voice, f"hash-of-{voice}", "revoked", 1.0, signer.private, signer.kid))

    def hall(self) -> tuple[RevocationFeed, asyncio.Queue[str]]:
        feed = RevocationFeed(self.url, self.verifier)
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def told(revocation: Revocation) -> None:
            heard.put_nowait(revocation.voice)

        self.tasks.append(asyncio.create_task(feed.run(told)))
        return feed, heard


@asynccontextmanager
async def opened(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    house = House(valkey.url, monkeypatch)
    house.tasks.append(asyncio.create_task(house.desk.run()))
    try:
        yield house
        assert not any(task.done() for task in house.tasks), "none of them ended, whatever came"
    finally:
        for task in house.tasks:
            task.cancel()
        await asyncio.gather(*house.tasks, return_exceptions=True)
        await house.redis.aclose()


async def heard(queue: asyncio.Queue[str], *voices: str) -> None:
    """Waits until those voices are told, in whatever order."""
    async with asyncio.timeout(HANGS_S):
        missing = set(voices)
        while missing:
            missing.discard(await queue.get())


async def until(happened: Any) -> None:
    """Polls: nothing in another process can be awaited."""
    async with asyncio.timeout(HANGS_S):
        while not happened():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - ENDLESS))
async def test_whatever_is_written_there_the_next_revocation_is_heard(
    kind: str, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        _, early = house.hall()
        house.withdraw("ann")
        await heard(early, "ann")
        await HOSTILE[kind](house.redis, house.signer, TIMES)
        house.withdraw("joe")
        await heard(early, "joe")
        _, late = house.hall()
        await heard(late, "ann", "joe")  # the set is ours again, or still
        await until(lambda: house.desk.redis_doubt is None)


async def test_a_set_of_another_type_is_replaced_and_said_so(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        await house.redis.set(KEY, "x")
        house.withdraw("ann")
        async with asyncio.timeout(HANGS_S):
            while await house.redis.type(KEY) != b"hash":  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)


async def test_a_field_of_ours_that_was_spoilt_is_written_again(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        house.withdraw("ann")
        await until(lambda: house.desk.published)
        await house.redis.hset(KEY, "hash-of-ann", b"\xff")
        async with asyncio.timeout(HANGS_S):
            good = house.gone[0].token.encode()
            while await house.redis.hget(KEY, "hash-of-ann") != good:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)


async def test_hostile_messages_are_counted_and_put_no_feed_in_doubt(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        feed, _ = house.hall()
        await until(lambda: feed.doubt is None)
        await HOSTILE["invalid UTF-8"](house.redis, house.signer, 40)
        await until(lambda: feed.revocations.forged == 40)
        assert (feed.doubt, feed.failed) == (None, 0)


async def test_a_feed_says_that_it_is_in_doubt_and_comes_back_by_itself(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        feed, queue = house.hall()
        await until(lambda: feed.doubt is None and house.desk.redis_doubt is None)
        valkey.kill()
        await until(lambda: feed.doubt is not None and house.desk.redis_doubt is not None)
        valkey.start()
        await until(lambda: feed.doubt is None)
        house.withdraw("ann")
        await heard(queue, "ann")


async def test_who_fails_to_hear_of_one_voice_hears_of_the_next(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, monkeypatch) as house:
        feed = RevocationFeed(valkey.url, house.verifier)
        told: list[str] = []

        async def fails(revocation: Revocation) -> None:
            told.append(revocation.voice)
            if len(told) == 1:
                raise RuntimeError("a call that could not be muted")

        house.tasks.append(asyncio.create_task(feed.run(fails)))
        house.withdraw("ann")
        await until(lambda: told)
        house.withdraw("joe")
        await until(lambda: told == ["ann", "joe"])
        assert feed.failed == 1


async def test_a_ledger_that_cannot_be_read_is_looked_at_again(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError("a mistake of ours"), OSError("the disk"), RecursionError()):
        async with opened(valkey, monkeypatch) as house:
            await until(lambda: house.desk.ledger_doubt is None)

            def broken(error: Exception = error) -> list[Revocation]:
                raise error

            monkeypatch.setattr(house.desk, "_withdrawn", broken)
            await until(lambda: house.desk.ledger_doubt is not None)
            house.withdraw("ann")
            monkeypatch.setattr(house.desk, "_withdrawn", lambda: list(house.gone))
            await until(lambda: house.desk.ledger_doubt is None and house.desk.published)


@pytest.mark.parametrize("junk", [None, 5, 1.5, [], {}, b"\xff", "é", "a" * 9000, b"." * 200, object()])
def test_a_list_takes_whatever_comes(junk: object) -> None:
    signer = SigningKey.make()
    revocations = RevocationList(GrantVerifier({signer.kid: signer.private.public_key()}))
    assert revocations.take(junk) is None
    assert (revocations.forged, len(revocations)) == (1, 0)
