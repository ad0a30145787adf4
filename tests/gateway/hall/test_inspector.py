"""Windows of what was sent, looked into in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway.hall.media.inspector import Inspector
from watermark.detect import Detection
from watermark.selfcheck import Window

FOUND = Detection(True, 1e-9, 40.0)
MISSING = Detection(False, 0.4, 1.0)


class Sent:
    """A window whose verdict is known; None: looking into it fails."""

    def __init__(self, verdict: Detection | None) -> None:
        self._verdict = verdict

    def verdict(self) -> Detection:
        if self._verdict is None:
            raise FloatingPointError("not a number")
        return self._verdict


@pytest.fixture
async def inspector() -> AsyncIterator[Inspector]:
    inspector = Inspector()
    yield inspector
    inspector.close()


async def look(inspector: Inspector, *verdicts: Detection | None) -> list[Detection]:
    """Has the windows looked into, and then one without a mark; returns what was told of the others."""
    told: list[Detection] = []
    last = asyncio.Event()
    for verdict in verdicts:
        inspector.look(cast(Window, Sent(verdict)), told.append, "c1")
    inspector.look(cast(Window, Sent(MISSING)), lambda _: last.set(), "c1")
    async with asyncio.timeout(10):
        await last.wait()
    return told


async def test_each_verdict_is_told(inspector: Inspector) -> None:
    assert await look(inspector, FOUND, MISSING, FOUND) == [FOUND, MISSING, FOUND]
    assert inspector.checked == 4


async def test_a_window_that_cannot_be_looked_into_is_logged_and_proves_nothing(inspector: Inspector) -> None:
    with capture_logs() as logged:
        assert await look(inspector, None) == []
    assert [entry["event"] for entry in logged] == ["mark.not_looked_for"]
    assert "not a number" in logged[0]["error"]
    assert inspector.checked == 1, "the last one"
