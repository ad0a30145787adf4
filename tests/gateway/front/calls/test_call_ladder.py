"""Calls' messages are kept beside the call; those of calls not taken drive out no other's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.front.calls import call_ladder
from gateway.front.calls.call_ladder import CallLadder
from gateway.ipc.wire_message import WireMessage
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey

INVITE = WireMessage(1.0, "caller", "us", "udp", "INVITE sip:x SIP/2.0", "INVITE sip:x SIP/2.0\nFrom: x\n\n")


@pytest.fixture
async def sessions(valkey: Valkey) -> AsyncIterator[Sessions]:
    opened = await Sessions.open(valkey.url, ttl_s=100)
    yield opened
    await opened.close()


async def test_a_flood_of_refused_calls_leaves_the_others(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_ladder, "REFUSED_BYTES", 1_000)
    ladder = CallLadder(sessions)
    ladder.seen("taken", INVITE, "new")
    for n in range(100):
        ladder.seen(f"refused{n}", INVITE, "refused")
    await sessions.writer.flush()
    assert [message["first"] for message in await sessions.ladder("taken")] == [INVITE.first]
    assert await sessions.ladder("refused0") == []
    assert len(await sessions.ladder("refused99")) == 1
