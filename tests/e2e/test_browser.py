"""A person opens the page, presses Call, asks aloud, and hears and reads the answer."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from tests.browser import FLAGS
from tests.e2e.gateway_process import House
from tests.firefox import HEARS, KEEP_CONNECTION, firefox
from tests.needs import need_program

pytestmark = pytest.mark.e2e

ASKS_AFTER_S = 12
"""The disclosure and the greeting are over by then."""

Say = Callable[[str], Path]


@pytest.fixture
def microphone(say: Say, tmp_path: Path) -> Path:
    """What its microphone hears: a question about the opening hours."""
    path = tmp_path / "microphone.wav"
    question = say("what are your opening hours")
    sox = need_program("sox")
    subprocess.run([sox, question, "-r", "48000", path, "pad", str(ASKS_AFTER_S), "60"], check=True)
    return path


@pytest_asyncio.fixture
async def page(microphone: Path) -> AsyncIterator[Page]:
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
        )
        yield await browser.new_page()
        await browser.close()


async def test_a_question_is_heard_and_answered(house: House, page: Page) -> None:
    await page.goto(house.url)
    await page.get_by_role("button", name="Call", exact=True).click()
    conversation = page.locator("#conversation")
    await expect(conversation).to_contain_text("a machine with an AI voice")
    await expect(page.locator("#state")).to_have_text("Speaking")
    loud = "() => Number(document.getElementById('bot').getAttribute('aria-valuenow')) > -40"
    await page.wait_for_function(loud)
    await expect(conversation).to_contain_text("opening hours")

    await expect(conversation).to_contain_text("what are your opening hours")
    await expect(conversation).to_contain_text("endpointing")
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await expect(page.locator("#state")).to_have_text("Call ended")
    newest = max(house.calls(), key=lambda call: float(call["started_at"]))
    assert newest["caller"] == "web"
    house.wait_for("its end", lambda: house.get(f"/api/calls/{newest['call_id']}")["state"] == "ended")
    assert house.get(f"/api/calls/{newest['call_id']}")["how"] == "caller hung up"
    house.wait_for("how it sounded", lambda: rated(house, newest["call_id"]))
    told = rated(house, newest["call_id"])
    assert told["codec"] == "opus/48000"
    assert told["far_sent"] > 100, "the browser has told how it heard us"
    assert 1.0 <= told["far_mos"] <= 4.41
    assert 1.0 <= told["mos"] <= 4.41
    assert told["jitter_ms"] >= 0


def rated(house: House, call_id: str) -> dict[str, Any]:
    """What the call's line said of its sound at its end."""
    events = house.get(f"/api/calls/{call_id}")["events"]
    return next((event["data"] for event in events if event["kind"] == "line_quality"), {})


async def test_firefox_hears_the_disclosure(house: House, tmp_path: Path) -> None:
    """On the gateway as it starts: bound to 127.0.0.1, which Firefox neither offers nor reaches."""
    async with firefox(tmp_path / "firefox") as page:
        await page.goto(house.url)
        await page.until("document.getElementById('gateway-text').textContent === 'Ready'")
        await page.evaluate(KEEP_CONNECTION)
        await page.click("#call")
        await page.until("document.getElementById('state').textContent === 'Speaking'")
        await page.until(
            "document.getElementById('conversation').innerText.includes('a machine with an AI voice')"
        )
        await page.until(HEARS)
        await page.click("#call")
        await page.until("document.getElementById('state').textContent === 'Call ended'")
    newest = max(house.calls(), key=lambda call: float(call["started_at"]))
    house.wait_for("its end", lambda: house.get(f"/api/calls/{newest['call_id']}")["state"] == "ended")
    assert house.get(f"/api/calls/{newest['call_id']}")["how"] == "caller hung up"


async def test_a_key_is_pressed(house: House, page: Page) -> None:
    await page.goto(house.url)
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.locator("#conversation")).to_contain_text("a machine with an AI voice")
    await page.keyboard.press("5")
    newest = max(house.calls(), key=lambda call: float(call["started_at"]))

    def digits() -> list[str]:
        events = house.get(f"/api/calls/{newest['call_id']}")["events"]
        return [event["data"]["digit"] for event in events if event["kind"] == "dtmf"]

    await expect(page.locator("#conversation")).to_contain_text("You can ask about our opening hours")
    house.wait_for("the digit", lambda: digits() == ["5"])
    await page.get_by_role("button", name="Hang up", exact=True).click()
