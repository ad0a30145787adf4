"""Webhooks change while they are told: what waits goes to where they are now, and to nobody who is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.front.events import courier as couriers
from gateway.front.events.cdr_files import CdrFiles
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf, NewEvent
from gateway.front.events.receivers import Receivers
from gateway.store.call_events import CallDetail, CallSettled
from tests.full_disk import full_disk
from tests.gateway.front.events.hook_receiver import STALLS, HookReceiver
from tests.gateway.front.events.test_webhooks import Told, hook, is_signed, life

ANOTHER: bytes = b"fedcba9876543210fedcba9876543210"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who failed is not tried again within a test, unless something changes."""
    monkeypatch.setattr(couriers, "FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_S", 3600.0)


@pytest.fixture
async def two() -> AsyncIterator[tuple[HookReceiver, HookReceiver]]:
    made = HookReceiver(), HookReceiver()
    for one in made:
        await one.start()
    yield made
    for one in made:
        await one.stop()


async def test_a_changed_url_and_secret_apply_to_what_waits(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    old, new = two
    old.answers = lambda _: 500
    told = Told(tmp_path, hook(old))
    ids = await told.tell(*life("c1"), *life("c2"))
    await old.has(2)
    assert await told.receivers.take_webhooks([hook(new, secrets=(ANOTHER,))]) == {}
    got = await new.has(6)
    assert sorted(one.event["id"] for one in got) == sorted(ids)
    assert all(is_signed(one, ANOTHER) for one in got)
    for call_id in ("c1", "c2"):
        assert [one.event["call_number"] for one in got if one.event["call_id"] == call_id] == [1, 2, 3]
    await told.empties()
    await told.close()


async def test_one_that_stalls_is_not_waited_for(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    old, new = two
    old.answers = lambda _: STALLS
    told = Told(tmp_path, hook(old))
    (event_id,) = await told.tell(*life("c1")[:1])
    await old.has(1)
    await told.receivers.take_webhooks([hook(new)])
    assert (await new.has(1))[0].event["id"] == event_id
    await told.close()


async def test_a_removed_one_is_told_no_more_and_a_new_one_from_now_on(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    old, new = two
    old.answers = lambda _: 500
    told = Told(tmp_path, hook(old, name="old"))
    await told.tell(*life("c1"))
    await old.has(1)
    with capture_logs() as lines:
        assert await told.receivers.take_webhooks([hook(new, name="new")]) == {"old": 3}
    said = {line["event"]: line for line in lines}
    assert said["receiver.removed"]["dropped"] == 3
    assert said["receiver.added"]["receiver"] == "new"
    assert "of=voicegate" not in str(lines), "the URL may have a token in it"
    ids = await told.tell(*life("c2"))
    assert [one.event["id"] for one in await new.has(3)] == ids
    await told.empties()
    assert told.receivers.state() == {"new": (0, 0)}
    assert len(old.got) == 1
    # one that comes back under its name begins from now on, too
    assert await told.receivers.take_webhooks([hook(old, name="old")]) == {"new": 0}
    old.answers = lambda _: 200
    (later,) = await told.tell(*life("c3")[:1])
    assert [one.event["id"] for one in (await old.has(2))[1:]] == [later]
    await told.close()


async def test_one_that_is_as_before_goes_on_undisturbed(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    stays, comes = two
    told = Told(tmp_path, hook(stays, name="stays"))
    stays.answers = lambda _: STALLS
    await told.tell(*life("c1")[:1])
    await stays.has(1)
    await told.receivers.take_webhooks([hook(stays, name="stays"), hook(comes, name="comes")])
    await told.tell(*life("c2")[:1])
    await comes.has(1)
    assert [one.event["call_id"] for one in stays.got] == ["c1"], "what is on its way is not told again"
    await told.close()


async def test_types_and_words_that_it_may_not_have_any_more_do_not_reach_it(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    old, new = two
    old.answers = lambda _: 500
    told = Told(tmp_path, hook(old, personal=True))
    await told.tell(*life("c1"))
    await old.has(1)
    await told.receivers.take_webhooks([hook(new, types=frozenset({"call.offered", "call.answered"}))])
    await told.empties()
    assert [one.event["type"] for one in new.got] == ["call.offered", "call.answered"]
    assert "caller" not in new.got[0].event["data"]
    await told.close()


async def test_others_than_webhooks_stay(tmp_path: Path, two: tuple[HookReceiver, HookReceiver]) -> None:
    bell = asyncio.Event()
    shelf = EventShelf(tmp_path / "events.db", 3600.0).open()
    files = CdrFiles(tmp_path / "cdr", ("json",), 1_000_000, 3600.0)
    receivers = Receivers(shelf, [files], lambda: bell)
    await receivers.take_webhooks([hook(two[0])])
    assert await receivers.take_webhooks([]) == {"crm": 0}
    receivers.start()
    detail = CallDetail(call_id="c1", ended_at=9.0, how="hung up", party="hung up")
    shelf.keep([NewEvent("c1", 9.0, CallSettled(how="hung up", cdr=detail))])
    bell.set()
    while receivers.state() != {"cdr files": (0, 0)}:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0.01)
    (file,) = (tmp_path / "cdr").iterdir()
    assert '"call_id":"c1"' in file.read_text()
    await receivers.close()
    shelf.close()


async def test_a_full_disk_leaves_the_old_ones(
    tmp_path: Path, two: tuple[HookReceiver, HookReceiver]
) -> None:
    old, new = two
    old.answers = lambda _: 500
    told = Told(tmp_path, hook(old))
    ids = await told.tell(*life("c1"))
    await old.has(1)
    old.answers = lambda _: 200
    with capture_logs(), full_disk(), pytest.raises(ShelfError):
        await told.receivers.take_webhooks([hook(new, name="new")])
    await told.receivers.take_webhooks([hook(old, retry_s=60.0)])
    await told.empties()
    assert [one.event["id"] for one in old.got[1:]] == ids
    assert not new.got
    assert told.receivers.state() == {"crm": (0, 0)}
    await told.close()
