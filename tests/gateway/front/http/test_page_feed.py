"""The page's list of calls goes by what is told on the stream of events, and asks again only without it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from gateway.front.events.event_shelf import NewEvent
from gateway.store.call_events import CallNote, CallOffered
from tests.browser import FLAGS
from tests.gateway.front.http.test_event_feed import Fed, fed
from tests.needs import HANGS_S, need_program

__all__ = ["fed"]

LISTS = re.compile(r"/api/calls(\?|$)")
"""What asks for the list of calls."""


@pytest_asyncio.fixture
async def page(fed: Fed) -> AsyncIterator[Page]:
    """A page whose own questions, beside what it is told, would come in an hour."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        page = await browser.new_page()
        page.set_default_timeout(HANGS_S * 1000)

        async def patient(route: object) -> None:
            answer = await route.fetch()  # type: ignore[attr-defined]
            text = (await answer.text()).replace("TOLD_MS = 15000", "TOLD_MS = 3600000")
            await route.fulfill(response=answer, body=text)  # type: ignore[attr-defined]

        await page.route("**/console/recent_calls.js", patient)
        yield page
        await browser.close()


async def test_what_happens_is_seen_at_once_and_nothing_is_asked_meanwhile(page: Page, fed: Fed) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if LISTS.search(request.url) else None)
    await page.clock.install()
    async with page.expect_response("**/api/events?*"):
        await page.goto(fed.url)
    await fed.tell(NewEvent("c1", 5.0, CallNote(what="hold")))  # nobody asked for those
    before = len(asked)
    for _ in range(10):
        await page.clock.run_for(6_000)  # three looks at the stream
        await page.evaluate("fetch('/readyz').then((answer) => answer.text())")  # what was asked is answered
    assert len(asked) - before <= 2, "what was under way when the stream opened, and nothing since"
    async with page.expect_request(LISTS):
        await fed.tell(NewEvent("c2", 6.0, CallOffered(caller="sip:bob@x")))


@pytest.mark.long("a browser, and a page that asks every two seconds")
async def test_without_the_stream_the_page_asks(page: Page, fed: Fed) -> None:
    fed.feed.close()
    async with page.expect_request(LISTS):
        await page.goto(fed.url)
    for _ in range(2):
        async with page.expect_request(LISTS):
            pass
