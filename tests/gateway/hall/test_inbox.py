"""A call's events, to its end."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import structlog

from gateway.hall.parts.inbox import INBOX, CallEnded, Dtmf, Inbox, Refused
from gateway.hall.parts.playout import Item, Playout
from gateway.ipc.ending import CallEnding, End


@pytest.fixture
def playout() -> Playout:
    return Playout(0.0)


@pytest.fixture
def inbox(playout: Playout) -> Inbox:
    return Inbox(playout, structlog.get_logger())


async def test_events_come_in_their_order_and_the_end_after_them(inbox: Inbox) -> None:
    inbox.post(Dtmf("1"))
    inbox.end(CallEnding(End.VOICE))
    assert await inbox.next() == Dtmf("1")
    with pytest.raises(CallEnded, match="hung up"):
        await inbox.next()


async def test_the_first_reason_of_an_end_stays(inbox: Inbox) -> None:
    inbox.end(CallEnding(End.CALLER))
    inbox.end(CallEnding(End.LINE_DIED))
    assert inbox.how == "caller hung up"


async def test_the_end_silences_what_waits_to_be_said(inbox: Inbox, playout: Playout) -> None:
    item = Item("a")
    playout.put(item, np.zeros(4_800, np.float32))
    inbox.end(CallEnding(End.VOICE))
    assert item.cut
    assert item.done.is_set()


async def test_an_inbox_that_nobody_reads_ends_its_call(inbox: Inbox) -> None:
    for _ in range(INBOX):
        inbox.post(Dtmf("1"))
    assert not inbox.ended.is_set()
    inbox.post(Dtmf("2"))
    assert inbox.how == "failed: events were not taken"
    for _ in range(INBOX - 1):
        assert await inbox.next() == Dtmf("1")
    with pytest.raises(CallEnded):
        await inbox.next()


async def test_the_time_for_an_event_begins_when_something_else_is_over(inbox: Inbox) -> None:
    said = asyncio.Event()
    waiting = asyncio.ensure_future(inbox.next(0.0, after=said))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    said.set()
    assert await waiting is None


async def test_who_waits_for_something_else_leaves_the_events_and_is_woken_by_the_end(inbox: Inbox) -> None:
    inbox.post(Dtmf("1"))
    never = asyncio.Event()
    assert not await inbox.until(never.wait(), 0.001)
    waiting = asyncio.ensure_future(inbox.until(never.wait()))
    await asyncio.sleep(0)
    inbox.end(CallEnding(End.VOICE))
    with pytest.raises(CallEnded, match="hung up"):
        await waiting
    assert await inbox.next() == Dtmf("1")


async def test_an_engine_that_refused_is_not_waited_for(inbox: Inbox) -> None:
    waiting = asyncio.ensure_future(inbox.until_or_gone(asyncio.Event()))
    await asyncio.sleep(0)
    inbox.post(Refused("busy", "no slot"))
    inbox.post(Refused("lost", "nobody there"))
    await waiting
    assert inbox.refused == Refused("busy", "no slot")
