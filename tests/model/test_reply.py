"""A reply ends in exactly one `response.done`, whenever it is cancelled, and runs ahead by its lead only."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from consent.errors import GrantRefused
from consent.grants.boot_clock import boot_time
from model.reply import Reply, ReplyTerms
from tests.model.conftest import Grants
from tests.model.scripted import ScriptedConversation, ScriptedEngine

HOUSE_TIME = True


class Client:
    """Takes events; the `at`-th, if any, waits until `go` is set."""

    def __init__(self, at: int | None = None) -> None:
        self.events: list[Any] = []
        self.at = at
        self.there = asyncio.Event()
        self.go = asyncio.Event()

    async def send(self, event: Any) -> None:
        if len(self.events) == self.at and not self.there.is_set():
            self.there.set()
            await self.go.wait()
        self.events.append(event)

    @property
    def frames(self) -> int:
        """Frames of 80 ms that came."""
        return sum(event["type"] == "response.output_audio.delta" for event in self.events)

    @property
    def dones(self) -> list[str]:
        return [e["response"]["status"] for e in self.events if e["type"] == "response.done"]


@pytest.mark.parametrize("at", range(1, 10))
async def test_a_cancelled_reply_ends_once_wherever_it_is(grants: Grants, at: int) -> None:
    client = Client(at)
    conversation = ScriptedConversation(ScriptedEngine(), 0.1, words=["one", " two"], frames_a_word=1)
    reply = Reply(1, ReplyTerms(grants.issue(), lambda _: False, lead_s=9.0), client.send)
    await reply.start(conversation, None, None, None)
    async with asyncio.timeout(5):
        await client.there.wait()
        cancels = [asyncio.create_task(reply.cancel()) for _ in range(2)]
        await asyncio.sleep(0)
        client.go.set()
        await asyncio.gather(*cancels)
        await reply.cancel()
    # ten events: created, item added, two words each with its sound, and from the sixth on the end
    assert client.dones == ["cancelled" if at < 6 else "completed"]
    assert conversation.ended <= 1


async def test_a_reply_cancelled_before_its_first_step_ends_too(grants: Grants) -> None:
    client = Client()
    reply = Reply(1, ReplyTerms(grants.issue(), lambda _: False), client.send)
    await reply.start(ScriptedConversation(ScriptedEngine(), 0.1), None, None, None)
    await reply.cancel()
    assert client.dones == ["cancelled"]
    assert not reply.in_progress


async def test_a_reply_runs_ahead_by_its_lead_and_no_more(grants: Grants) -> None:
    client = Client()
    conversation = ScriptedConversation(ScriptedEngine(), 0.1, frames_a_word=100)
    reply = Reply(1, ReplyTerms(grants.issue(), lambda _: False, lead_s=0.8), client.send)
    await reply.start(conversation, None, None, None)
    reply.report(0.0)
    await asyncio.sleep(0.45)  # a report holds for half a second
    assert client.frames == 10
    reply.report(0.4)
    await asyncio.sleep(0.45)
    assert client.frames == 15
    await asyncio.sleep(0.05 + 10 * 0.08)
    assert client.frames == 25, "without another it goes by the clock"
    await reply.cancel()


async def test_without_reports_the_lead_goes_by_the_clock(grants: Grants) -> None:
    client = Client()
    conversation = ScriptedConversation(ScriptedEngine(), 0.1, words=["one"], frames_a_word=20)
    reply = Reply(1, ReplyTerms(grants.issue(), lambda _: False, lead_s=0.4), client.send)
    await reply.start(conversation, None, None, None)
    await asyncio.sleep(1.6 - 0.4 - 0.02)
    assert (client.frames, client.dones) == (19, [])
    await asyncio.sleep(0.04)
    assert (client.frames, client.dones) == (20, ["completed"])


def test_a_clock_that_is_set_back_does_not_make_a_grant_last(
    grants: Grants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was so that an hour back gave a reply another hour."""
    terms = ReplyTerms(grants.issue(), lambda _: False)
    terms.check()
    wall, boot = time.time(), boot_time()
    monkeypatch.setattr("consent.grants.grant.boot_time", lambda: boot + 3600.0)
    monkeypatch.setattr(time, "time", lambda: wall)
    with pytest.raises(GrantRefused) as caught:
        terms.check()
    assert caught.value.reason == "expired"
    monkeypatch.setattr("consent.grants.grant.boot_time", lambda: boot)
    monkeypatch.setattr(time, "time", lambda: wall + 3600.0)
    with pytest.raises(GrantRefused):
        terms.check()
