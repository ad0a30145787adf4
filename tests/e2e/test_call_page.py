"""Real calls on their page: one that was sound (`test_calls`), and one whose caller wrote what would run."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect
from playwright.sync_api import sync_playwright

from tests.browser import FLAGS, PAGE_MS
from tests.e2e.gateway_process import House
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.e2e

MARKUP = "<img src=x onerror=window.hurt=1></script><script>window.hurt=1</script>\u202e"
INVITE = """INVITE sip:nobody@127.0.0.1:{port} SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKpage;rport
From: "{markup}" <sip:mallory@127.0.0.1>;tag=1
To: <sip:nobody@127.0.0.1>
Call-ID: written-to-be-run
CSeq: 1 INVITE
Contact: <sip:mallory@127.0.0.1:{own}>
User-Agent: {markup}
Max-Forwards: 70
Content-Length: 0

"""


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        page = await browser.new_page()
        yield page
        await browser.close()


def seen_to_time(house: House, call_id: str) -> None:
    """A call in which somebody asked when we are open shows its words, levels, SIP and log lines."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PAGE_MS)
        page.goto(f"{house.url}/calls/{call_id}")
        table = page.get_by_role("table")
        table.get_by_text("when are you open").wait_for()
        answer = page.get_by_role("row").filter(has_text="answered after")
        answer.get_by_role("button").first.click()
        stage = page.get_by_role("slider", name="Time in the call")
        words = stage.get_attribute("aria-valuetext") or ""
        assert re.search(r"our voice −\d\d dBFS \(playing", words), words
        assert "on the wire" in page.locator("#answers").inner_text()

        ladder = page.locator("#ladder")
        for said in ("INVITE", "200 OK", "ACK", "BYE"):
            ladder.get_by_role("button", name=re.compile(said)).first.wait_for()
        ladder.get_by_role("button", name=re.compile("INVITE")).click()
        assert "Call-ID: " in ladder.locator("pre").inner_text()
        ended = page.get_by_role("row").filter(has_text="Ended")
        ended.get_by_role("button", name="Log").click()
        page.locator("tr.log").get_by_text("call.ended").wait_for()
        browser.close()


async def test_what_a_stranger_wrote_runs_nothing(house: House, page: Page) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(HANGS_S)
        own = phone.getsockname()[1]
        text = INVITE.format(port=house.sip_port, own=own, markup=MARKUP).replace("\n", "\r\n")
        phone.sendto(text.encode(), ("127.0.0.1", house.sip_port))
        answers = b""
        while b"SIP/2.0 4" not in answers:
            answers = await asyncio.to_thread(phone.recv, 65_535)

    def known() -> bool:
        with_page = "/api/calls/written-to-be-run/course"
        try:
            return bool(house.get(with_page)["causes"])
        except OSError:  # HTTP 404: it is not written down yet
            return False

    await asyncio.to_thread(house.wait_for, "the refusal", known)
    refused = house.get("/api/calls/written-to-be-run/course")["call"]["call_id"]
    await page.goto(f"{house.url}/calls/{refused}")
    await expect(page.locator("#verdict")).to_contain_text("the call was not taken")
    await page.locator("#ladder").get_by_role("button", name=re.compile("INVITE")).click()
    await expect(page.locator("#ladder pre")).to_contain_text("<script>window.hurt=1</script>")
    assert await page.evaluate("window.hurt") is None
    assert await page.locator("main :is(img, script)").count() == 0
