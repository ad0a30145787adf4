"""The list of calls in Chromium, ten thousand of them: searched, sorted, paged, and as it happens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from gateway.errors import CallRefused
from gateway.front.calls.call_list import SILENT, CallList, CallsWanted, ListedCalls
from gateway.front.calls.refused_list import ListedRefusals, RefusalList
from gateway.front.events.event_shelf import NewEvent
from gateway.store.call_events import CallNotTaken, CallOffered
from gateway.store.call_search import CallSearch
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import CallRow
from tests.browser import FLAGS, until
from tests.gateway.front.calls.test_call_list import BEGAN_AT, MANY, Stores, filled
from tests.gateway.front.http.test_event_feed import Fed, feeding
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = 50
MARKUP = "sip:<img src=x onerror='window.hurt=1'>\u202e</td><script>window.hurt=1</script>@h"


class Kept:
    """A house whose calls are in a registry; what it is asked is counted, and it may refuse."""

    def __init__(self, stores: Stores, fed: Fed) -> None:
        self.stores = stores
        self.fed = fed
        self.asked: list[CallsWanted] = []
        self.refuses: CallRefused | None = None
        fed.house.list_calls = self.listed  # type: ignore[method-assign]
        fed.house.list_refused = self.refused  # type: ignore[method-assign,assignment]

    async def listed(self, wanted: CallsWanted) -> ListedCalls:
        if self.refuses is not None:
            raise self.refuses
        self.asked.append(wanted)
        return await CallList(self.stores.registry, self.stores.redis).page(wanted)  # type: ignore[arg-type]

    async def refused(
        self, search: CallSearch, count: int, cursor: str | None, *, counted: bool
    ) -> ListedRefusals:
        return RefusalList(self.stores.registry).page(search, count, cursor, counted=counted)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kept]:
    folder = tmp_path_factory.mktemp("many")
    stores = Stores(f"sqlite:///{folder / 'calls.db'}")
    filled(stores.registry)
    async with feeding(folder) as fed:
        yield Kept(stores, fed)
    stores.registry.close()


@pytest_asyncio.fixture(loop_scope="module")
async def few(tmp_path: Path) -> AsyncIterator[Kept]:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    async with feeding(tmp_path) as fed:
        yield Kept(stores, fed)
    stores.registry.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page; what it complains of in its log fails the test."""
    page = await browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(HANGS_S * 1000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.route("**/console/calls_list.js", hasty)
    yield page
    await page.context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


async def hasty(route: Route) -> None:
    """A page that waits for less: no test is about how long."""
    answer = await route.fetch()
    text = (await answer.text()).replace("SOON_MS = 2000", "SOON_MS = 200")
    await route.fulfill(response=answer, body=text.replace("AGAIN_MS = 5000", "AGAIN_MS = 500"))


async def open_list(page: Page, kept: Kept, query: str = "") -> None:
    await page.goto(f"{kept.fed.url}/calls{query}")
    await settled(page)


async def settled(page: Page) -> None:
    """What was asked has been shown."""
    await expect(page.get_by_role("table", include_hidden=True)).to_have_attribute("aria-busy", "false")


def asked(page: Page) -> dict[str, str]:
    """What stands in the address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def rows(page: Page) -> Locator:
    return page.locator("#rows tr")


async def column(page: Page, name: str) -> list[str]:
    return await page.locator(f"#rows td.{name}").all_inner_texts()


async def callers(page: Page) -> list[str]:
    return await page.locator("#rows tr td:nth-child(3)").all_inner_texts()


# ── ten thousand ─────────────────────────────────────────────────────────────────────────────────────


async def test_calls_are_searched_sorted_and_paged_and_back_goes_where_one_was(
    page: Page, many: Kept
) -> None:
    await open_list(page, many)
    await expect(rows(page)).to_have_count(PAGE)
    await expect(page.locator("#count")).to_have_text("10,000 calls")
    await expect(page.get_by_role("button", name="Previous")).to_have_attribute("aria-disabled", "true")

    # typed: it is searched by itself, and stands in the address
    await page.get_by_label("Caller", exact=True).press_sequentially("+49 00 079")
    there = many.stores.registry.matches(CallSearch(caller="+49 00 079"), MANY)
    await expect(page.locator("#count")).to_have_text(f"{there} calls")
    assert asked(page) == {"caller": "+49 00 079"}
    assert 1 < there < PAGE
    assert all("4900079" in caller for caller in await callers(page))
    await page.go_back()
    await expect(page.locator("#count")).to_have_text("10,000 calls")
    await expect(page.get_by_label("Caller", exact=True)).to_have_value("")

    # sorted by the head, one way and the other
    await page.get_by_label("How it ended").select_option("Has ended")
    head = page.get_by_role("columnheader", name="Lasted")
    await expect(head).to_have_attribute("aria-sort", "none")
    await head.get_by_role("button").press("Enter")
    await expect(head).to_have_attribute("aria-sort", "descending")
    await expect(page.locator("#rows td.lasted").first).to_have_text("10:00")
    await expect(head.get_by_role("button")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(head).to_have_attribute("aria-sort", "ascending")
    await expect(page.locator("#rows td.lasted").first).to_have_text("0:02")
    assert asked(page) == {"state": "ended", "sort": "duration"}
    await expect(page.locator("#count")).to_have_text("9,900 calls")

    # page by page, and back by the button and by the browser
    pages = [await page.locator("#rows a").evaluate_all("(all) => all.map((a) => a.pathname)")]
    for number in (1, 2):
        await page.get_by_role("button", name="Next").click()
        await expect(page.locator("#rows a").first).not_to_have_attribute("href", pages[-1][0])
        await settled(page)
        pages.append(await page.locator("#rows a").evaluate_all("(all) => all.map((a) => a.pathname)"))
        assert len(pages[number]) == PAGE
    assert len({call for one in pages for call in one}) == 3 * PAGE
    assert "cursor" in asked(page)
    second = page.url
    await page.get_by_role("button", name="Previous").click()
    await expect(page.locator("#rows a").first).to_have_attribute("href", pages[1][0])
    await page.get_by_role("button", name="Previous").click()
    await expect(page.locator("#rows a").first).to_have_attribute("href", pages[0][0])
    await until(page, "() => !location.search.includes('cursor')")
    await page.go_back()
    await expect(page.locator("#rows a").first).to_have_attribute("href", pages[1][0])

    # an address is shared: whoever opens it sees the same
    await page.goto(second)
    await expect(page.locator("#rows a").first).to_have_attribute("href", pages[2][0])
    await expect(page.get_by_label("How it ended")).to_have_value("state=ended")

    await page.get_by_role("button", name="Clear the search").click()
    await expect(page.locator("#count")).to_have_text("10,000 calls")
    assert asked(page) == {"sort": "duration"}


async def test_further_filters_are_counted_and_a_call_is_found_by_its_caller_s_call_id(
    page: Page, many: Kept
) -> None:
    await open_list(page, many, "?route=desk&least_s=400")
    await expect(page.locator("#further-count")).to_have_text(" (2 set)")
    found = await page.locator("#count").inner_text()
    assert 0 < int(found.removesuffix(" calls")) < MANY // 50
    await open_list(page, many)
    await page.get_by_text("More filters").click()
    await page.get_by_label("Call id or SIP Call-ID").fill("01234@pho")
    await expect(page.locator("#count")).to_have_text("1 call")
    link = page.locator("#rows a").first
    call = many.stores.registry.by_sip_call_id("01234@phone")
    assert call is not None
    await expect(link).to_have_attribute("href", f"/calls/{call.call_id}")
    await page.get_by_label("Lasted at least").fill("-1")
    await page.get_by_role("button", name="Search", exact=True).click()
    assert "least_s" not in asked(page), "the field says that it is none"


async def test_one_page_is_one_question(page: Page, many: Kept) -> None:
    many.asked.clear()
    many.stores.asked.clear()
    await open_list(page, many)
    assert len(many.asked) == 1
    assert len(many.stores.asked) <= 3


# ── as it happens ────────────────────────────────────────────────────────────────────────────────────


def offered(kept: Kept, number: int, caller: str, *, at: float) -> str:
    return kept.stores.enter(number, at, ended=False, caller=caller)


async def test_what_happens_is_seen_and_nobody_loses_the_place(page: Page, few: Kept) -> None:
    now = time.time()
    ids = [few.stores.enter(n, now - 1000 + n, caller=f"sip:c{n}@h") for n in range(PAGE + 10)]
    async with page.expect_response("**/api/events?*"):
        await open_list(page, few)
    third = page.locator("#rows a").nth(2)
    await third.focus()
    href = await third.get_attribute("href")

    offered(few, 900, "sip:new@h", at=now)
    await few.fed.tell(NewEvent("c900", now, CallOffered(caller="sip:new@h")))
    await expect(page.locator("#rows td.number").first).to_have_text("sip:new@h")
    await expect(page.locator("#rows td.where").first).to_have_text("unknown")
    focused = "() => document.activeElement.getAttribute('href')"
    assert await page.evaluate(focused) == href, "the focus stays on its call, which is the fourth now"
    await expect(page.locator("#count")).to_have_text("61 calls")

    # the call ends and moves: who has the focus on it goes with it
    few.stores.redis.facts["c900"] = {"state": "talking"}
    await few.fed.tell(NewEvent("c900", now, CallOffered(caller="sip:new@h")))
    await expect(page.locator("#rows td.where").first).to_have_text("talking")
    before = await page.locator("#rows td.lasted").first.inner_text()
    await until(
        page, "(before) => document.querySelector('#rows td.lasted').innerText !== before", before
    )  # its clock goes on
    await page.locator("#rows a").first.focus()
    few.stores.registry.close_call("c900", "hung up")
    offered(few, 901, "sip:newer@h", at=now + 1)
    await few.fed.tell(NewEvent("c901", now, CallOffered(caller="sip:newer@h")))
    await expect(page.locator("#rows td.number").first).to_have_text("sip:newer@h")
    assert await page.evaluate(focused) == "/calls/c900"

    # on a later page new calls push nothing away
    await page.get_by_role("button", name="Next").click()
    await expect(rows(page)).to_have_count(len(ids) + 2 - PAGE)
    last = await callers(page)
    offered(few, 902, "sip:newest@h", at=now + 2)
    asked_before = len(few.asked)
    await few.fed.tell(NewEvent("c902", now, CallOffered(caller="sip:newest@h")))
    await expect(page.locator("#count")).to_have_text("63 calls")
    assert len(few.asked) > asked_before
    assert await callers(page) == last

    # nor is what one writes meanwhile put back
    await page.get_by_label("Caller", exact=True).press_sequentially("no")
    await few.fed.tell(NewEvent("c902", now, CallOffered(caller="sip:newest@h")))
    await page.get_by_label("Caller", exact=True).press_sequentially("body")
    await expect(page.locator("#none")).to_have_text("No call is like that.")
    await expect(page.get_by_label("Caller", exact=True)).to_have_value("nobody")


# ── not taken ────────────────────────────────────────────────────────────────────────────────────────


def turned_away(kept: Kept, caller: str, count: int = 1) -> None:
    table = RefusedCalls(kept.stores.registry)
    table.open()
    call = RefusedCall(
        call_id="r1", sip_call_id="x@y", caller=caller, called="sip:nowhere@gw", source="192.0.2.9",
        transport="udp", status=404, reason="no route takes it", started_at=time.time(),
    )  # fmt: skip
    table.note([call] * count)


async def test_calls_that_were_not_taken_have_a_list_of_their_own(page: Page, few: Kept) -> None:
    few.stores.enter(1, BEGAN_AT)
    async with page.expect_response("**/api/events?*"):
        await open_list(page, few, "?route=demo&sort=caller")
    await page.get_by_role("link", name="Not taken").click()
    await expect(page.locator("#none")).to_have_text("No call was refused yet.")
    assert asked(page) == {"view": "refused"}
    await expect(page.get_by_label("Route")).to_be_hidden()
    turned_away(few, MARKUP, 3)
    facts: Any = {"caller": "x", "called": "y", "source": "z", "transport": "udp"}
    await few.fed.tell(NewEvent("r1", 5.0, CallNotTaken(**facts, status=404, reason="no route takes it")))
    await expect(rows(page)).to_have_count(1)
    line = rows(page).first
    for said in ("404", "no route takes it", "192.0.2.9", MARKUP[:20]):
        await expect(line).to_contain_text(said)
    await expect(line.locator("td").last).to_have_text("3")
    await expect(line.get_by_role("link")).to_have_attribute("href", "/calls/r1")
    assert await page.evaluate("() => window.hurt") is None
    await page.go_back()
    await expect(page.get_by_role("link", name="Taken", exact=True)).to_have_attribute("aria-current", "page")
    await expect(rows(page)).to_have_count(1)


# ── what else there is to say ────────────────────────────────────────────────────────────────────────


async def test_nothing_nothing_like_that_away_and_back(page: Page, few: Kept) -> None:
    await open_list(page, few)
    await expect(page.locator("#none")).to_have_text("No calls yet.")
    few.stores.registry.enter(
        CallRow(call_id="c1", payload=1, route="demo", caller=MARKUP, called=MARKUP, source="x")
    )
    await open_list(page, few, "?caller=nobody")
    await expect(page.locator("#none")).to_have_text("No call is like that.")
    await open_list(page, few, "?cursor=0123456789ab~f0~c1")
    await expect(rows(page)).to_have_count(1)
    await expect(page.locator("#notice")).to_contain_text("this is the first one")
    assert asked(page) == {}
    assert await page.evaluate("() => window.hurt") is None

    few.stores.redis.away = True
    await open_list(page, few)
    await expect(page.locator("#notice")).to_contain_text(SILENT)
    await expect(page.locator("#rows td.where")).to_have_text("unknown")
    few.stores.redis.away = False

    few.refuses = CallRefused(503, "the call registry cannot be read", retry_after_s=5)
    await page.evaluate("() => { for (let i = 0; i < 2; i++) dispatchEvent(new PopStateEvent('popstate')); }")
    await expect(page.get_by_role("alert")).to_contain_text("the call registry cannot be read")
    await expect(rows(page)).to_have_count(1)
    few.refuses = None
    await expect(page.get_by_role("alert")).to_be_hidden()  # it was asked again


async def test_who_has_not_the_right_is_told_so(page: Page, few: Kept) -> None:
    problem = {"status": 403, "detail": "'x' (caller) has not the right calls.read", "right": "calls.read"}

    async def refuse(route: Any) -> None:
        await route.fulfill(status=403, json=problem, content_type="application/problem+json")

    await page.route("**/api/calls?*", refuse)
    await open_list(page, few)
    await expect(page.get_by_role("alert")).to_contain_text("the right calls.read is missing")
    await expect(page.get_by_role("table")).to_be_hidden()


# ── looks ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "look",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "phone"],
)
async def test_it_can_be_read_and_used_everywhere(browser: Browser, few: Kept, look: dict[str, Any]) -> None:
    for number in range(5):
        how = "failed: its line died" if number == 2 else "hung up"
        few.stores.enter(number, time.time() - 90 + number, caller=MARKUP * 3, how=how, sounded=3.0)
    offered(few, 9, "sip:bob@h", at=time.time())
    turned_away(few, MARKUP)
    context = await browser.new_context(**look)
    page = await context.new_page()
    for query in ("?sort=-began&poor=true", "?view=refused", ""):
        await open_list(page, few, query)
        await page.locator("#further").evaluate("(one) => { one.open = true; }")
        wide = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "nobody scrolls the page sideways"
        found = await Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    if "viewport" in look:
        await page.get_by_label("Sort by").select_option("Longest")
        await until(page, "() => location.search.includes('sort=-duration')")
    await context.close()
