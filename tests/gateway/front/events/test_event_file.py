"""The events' file is hurt in all the ways a disk knows: calls go on, it is told, and it begins anew."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.front.events import courier as couriers
from gateway.front.events import event_intake
from gateway.front.events.deliveries import Deliveries
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf
from gateway.store.call_session import TOLD
from tests.full_disk import full_disk
from tests.gateway.conftest import Valkey
from tests.gateway.front.events.event_house import EventHouse
from tests.gateway.front.events.hook_receiver import HookReceiver
from tests.gateway.front.events.test_event_intake import TYPES_OF_A_LIFE, lives
from tests.gateway.front.events.test_webhooks import Told, hook, life
from tests.needs import HANGS_S


def overwritten(path: Path) -> None:
    """The whole of it, as by a disk that mixes its blocks up."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(os.urandom(size))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def inside(path: Path) -> None:
    """The header is well, and no page behind it."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


Hurt = Callable[[Path], None]
HURTS = (overwritten, cut, inside)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_intake, "PAUSE_S", 0.01)
    monkeypatch.setattr(couriers, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_S", 0.05)


@pytest.fixture
async def receiver() -> AsyncIterator[HookReceiver]:
    made = HookReceiver()
    await made.start()
    yield made
    await made.stop()


def a_full_one(folder: Path) -> Path:
    shelf = EventShelf(folder / "events.db", 3600.0).open()
    Deliveries(shelf, {})
    for k in range(50):
        shelf.keep(life(f"c{k}"))
    shelf.close()
    return folder / "events.db"


@pytest.mark.parametrize("hurt", HURTS)
async def test_a_broken_file_at_the_start_is_put_aside_and_calls_are_told(
    tmp_path: Path, valkey: Valkey, hurt: Hurt
) -> None:
    path = a_full_one(tmp_path)
    hurt(path)
    broken = path.read_bytes()
    with capture_logs() as lines:
        house = await EventHouse.open(tmp_path, valkey.url)
        house.begin()
        lives(house.sessions, "c1")
        async with asyncio.timeout(HANGS_S):
            events = await house.has(len(TYPES_OF_A_LIFE))
    assert [event.type for event in events] == TYPES_OF_A_LIFE
    await house.close()
    assert (tmp_path / "events.db.broken").read_bytes() == broken
    (said,) = (line for line in lines if line["event"] == "events.file_broken")
    assert (said["log_level"], said["put_aside"]) == ("error", f"{path}.broken")


@pytest.mark.parametrize("hurt", [overwritten, inside])
async def test_a_file_that_breaks_while_receivers_are_told(
    tmp_path: Path, receiver: HookReceiver, hurt: Hurt
) -> None:
    """What comes after it has a number of another series, and reaches them."""
    told = Told(tmp_path, hook(receiver))
    await told.tell(*life("c1"))
    await told.empties()
    told.shelf.file.shorten()  # all of it is in the file itself
    hurt(tmp_path / "events.db")
    for connection in (told.shelf.file._writer, told.shelf.file._reader):
        assert connection is not None
        connection.execute("PRAGMA shrink_memory")
    with capture_logs() as lines:
        async with asyncio.timeout(HANGS_S):
            while True:
                try:
                    (event_id,) = await told.tell(*life("c2")[:1])
                    break
                except ShelfError:
                    continue
        got = await receiver.has(4)
    assert [one.event["call_id"] for one in got] == ["c1", "c1", "c1", "c2"]
    assert got[-1].event["id"] == event_id
    assert event_id.partition("-")[0] != got[0].event["id"].partition("-")[0]
    assert [line["event"] for line in lines].count("events.file_broken") == 1
    await told.empties()
    await told.close()


async def test_what_is_put_aside_goes_with_the_events_of_its_time(tmp_path: Path) -> None:
    path = a_full_one(tmp_path)
    overwritten(path)
    shelf = EventShelf(path, 3600.0).open()
    shelf.keep(life("c1"))
    shelf.forget()
    aside = tmp_path / "events.db.broken"
    assert aside.exists()
    shelf.file.forget_broken(time.time() + 1)
    assert not aside.exists(), "callers' words are in it"
    shelf.close()


def test_breaking_again_and_again_fills_no_disk(tmp_path: Path) -> None:
    broken = 0

    def note() -> None:
        nonlocal broken
        broken += 1

    for k in range(3):
        (tmp_path / "events.db").write_bytes(os.urandom(20_000))
        shelf = EventShelf(tmp_path / "events.db", 3600.0, note).open()
        assert shelf.keep(life("c1"))[0].number == 1
        shelf.close()
        assert broken == k + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.db", "events.db.broken"]


async def test_a_place_where_nothing_can_be_written_yet_ends_no_start(tmp_path: Path, valkey: Valkey) -> None:
    """As on a disk that may only be read, until it is mounted anew: nothing that happens is lost."""
    (tmp_path / "house").mkdir()
    path = tmp_path / "house" / "events.db"
    path.mkdir()  # no file can be there
    with capture_logs() as lines:
        house = await EventHouse.open(tmp_path / "house", valkey.url)
        house.begin()
        lives(house.sessions, "c1")
        await house.sessions.writer.flush()
        async with asyncio.timeout(HANGS_S):
            while not house.alarms:  # noqa: ASYNC110  # it tells the log alone
                await asyncio.sleep(0.01)
        assert await house.sessions.redis.xlen(TOLD) == len(TYPES_OF_A_LIFE)
        with pytest.raises(ShelfError):
            house.shelf.last()
        path.rmdir()
        async with asyncio.timeout(HANGS_S):
            events = await _once_there(house, len(TYPES_OF_A_LIFE))
    assert events == TYPES_OF_A_LIFE
    await house.close()
    said = [line["event"] for line in lines if line["event"].startswith("events.")]
    assert said == ["events.not_kept", "events.not_kept", "events.kept_again"], (
        "at the start, and by the intake"
    )


async def _once_there(house: EventHouse, count: int) -> list[str]:
    while True:
        bell = house.intake.bell()
        try:
            types = [event.type for event in house.shelf.after(0, count=1000).events]
        except ShelfError:
            types = []
        if len(types) >= count:
            return types
        await bell.wait()


async def test_a_full_disk_between_a_receiver_and_the_note_that_it_has_it(
    tmp_path: Path, receiver: HookReceiver
) -> None:
    """It is told again, and what waits is counted as if the disk had never been full."""
    told = Told(tmp_path, hook(receiver))
    await receiver.stop()
    (event_id,) = await told.tell(*life("c1")[:1])
    with capture_logs() as lines, full_disk():
        with pytest.raises(ShelfError):
            told.shelf.keep(life("c2"))
        await receiver.start()
        await receiver.has(2)
    await told.empties()
    assert {one.event["id"] for one in receiver.got} == {event_id}
    assert [line["event"] for line in lines].count("receiver.not_told") == 1
    await told.tell(*life("c3"))
    await told.empties()
    await told.close()


def test_a_row_that_cannot_be_read_is_as_good_as_forgotten(tmp_path: Path) -> None:
    shelf = EventShelf(tmp_path / "events.db", 3600.0).open()
    shelf.keep(life("c1"))
    with shelf.file.writing() as connection:
        connection.execute("UPDATE events SET data = '{\"who' WHERE number = 2")
        connection.execute("UPDATE events SET data = '[]' WHERE number = 3")
    page = shelf.after(0)
    assert ([event.number for event in page.events], page.upto) == ([1], 3)
    assert shelf.numbered(2) is None
    assert shelf.unreadable == 3
    shelf.close()


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    shelf = EventShelf(tmp_path / "events.db", 3600.0).open()

    def fails(error: Exception) -> None:
        with shelf.file.writing() as connection:
            connection.execute("INSERT INTO places VALUES ('x', '1')")
            raise error

    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())
    with pytest.raises(ShelfError):
        fails(sqlite3.OperationalError("disk I/O error"))
    assert shelf.place("x") == ""
    assert shelf.keep(life("c1"))
    shelf.close()
