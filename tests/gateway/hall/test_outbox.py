"""Commands that wait for the engine."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from gateway.hall.dialogue.outbox import OUTBOX, Outbox
from model.client import EngineSession


async def nothing(_: EngineSession) -> None:
    """A command."""


async def test_a_full_outbox_drops_commands_and_says_so_once() -> None:
    with capture_logs() as logged:
        outbox = Outbox(structlog.get_logger())
        for _ in range(OUTBOX + 3):
            outbox.send(nothing)
    assert [entry["event"] for entry in logged] == ["engine.outbox_full"]


async def test_a_cleared_outbox_begins_anew() -> None:
    async def newer(_: EngineSession) -> None:
        """Another one."""

    outbox = Outbox(structlog.get_logger())
    for _ in range(OUTBOX):
        outbox.send(nothing)
    outbox.clear()
    outbox.send(newer)
    assert await outbox.next() is newer
