"""Debian's Firefox presses Call on a gateway that is bound to loopback; the hall is this test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ipc.line_messages import CallConfirmed, CallLeft, CallStarted, KeyPressed, ShownState, ShownWords
from tests.firefox import HEARS, KEEP_CONNECTION, firefox
from tests.gateway.front.http.page_stage import Stage, stage
from tests.needs import HANGS_S

__all__ = ["stage"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_call_from_firefox(stage: Stage, tmp_path: Path) -> None:
    async with firefox(tmp_path / "firefox") as page:
        await page.goto(stage.url)
        await page.until("document.getElementById('gateway-text').textContent === 'Ready'")
        await page.evaluate(KEEP_CONNECTION)
        await page.click("#call")
        started = await stage.hall.hears(CallStarted, within_s=HANGS_S)
        await stage.hall.hears(CallConfirmed, within_s=HANGS_S)

        # the page hears the hall's 440 Hz, and the hall hears Firefox's fake microphone
        await page.until(HEARS)
        await stage.hall.hears_sound(started.call, seconds=1.0, within_s=HANGS_S)
        assert max(memoryview(bytes(stage.hall.heard[started.call])).cast("h")) > 1000

        await stage.show("c1", ShownState("announcing"))
        await stage.show("c1", ShownWords("i1", "You talk to a machine.", final=True))
        await page.until("document.getElementById('state').textContent === 'Speaking'")
        assert "You talk to a machine." in await page.text()

        await page.click("[data-key='5']")
        assert (await stage.hall.hears(KeyPressed, within_s=HANGS_S)).digit == "5"

        await page.click("#call")
        assert (await stage.hall.hears(CallLeft, within_s=HANGS_S)).how == "caller hung up"
        await page.until("document.getElementById('state').textContent === 'Call ended'")
        await page.until("document.getElementById('call').innerText.trim() === 'Call again'")
        assert await page.evaluate("document.getElementById('problem').hidden")

        # a page that goes without its `bye` hung up too; only a browser that vanishes is lost
        await page.click("#call")
        await stage.hall.hears(CallConfirmed, within_s=HANGS_S)
        await page.until(HEARS)
        await page.evaluate("window.connection.close()")
        assert (await stage.hall.hears(CallLeft, within_s=HANGS_S)).how == "caller hung up"
