"""Calls' messages are kept beside the call; those of calls not taken drive out no other's."""

from __future__ import annotations

import pytest

from gateway.front.calls import call_ladder
from gateway.front.calls.call_ladder import CallLadder
from gateway.ipc.wire_message import WireMessage
from gateway.store.sessions import Sessions

INVITE = WireMessage(1.0, "caller", "us", "udp", "INVITE sip:x SIP/2.0", "INVITE sip:x SIP/2.0\nFrom: x\n\n")


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
