"""Headless Chromium reads the page of the house: every state, hostile names, a keyboard, small screens."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Dialog, Page, Request, async_playwright, expect

from gateway.config.settings import Settings
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.verbs import Answer
from gateway.errors import DialplanError
from gateway.front.admission.trunks_out import TrunksOut
from gateway.front.calls.house_report import HouseShown, ProcessShown, ReceiverShown
from gateway.front.http import house_desk
from gateway.front.http.app import build_app
from gateway.ipc.binding import Binding
from gateway.ipc.front_messages import Reloaded, TelephoneState, TrunkState
from gateway.store.api_tokens import ApiTokens
from gateway.store.refused_calls import RefusedFor
from gateway.store.registry import Registry
from gateway.store.sip_users import SipUsers
from tests.browser import FLAGS
from tests.gateway.front.http.test_app import HOUSE, TOKEN, FakeHouse
from tests.needs import need_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "<img src=x onerror=\"document.title='owned'\">"
TARGET = "sip:&lt;b&gt;'onload=x@pbx"
"""The worst that a plan may write: of < and > it may not."""
WHY = "10-demo.toml:7: 'discloze' is not a verb; did you mean disclose?"


class Desk(FakeHouse):
    """A house whose plan has hostile names, and that goes away when a test wants."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.trunk = TrunkState("carrier", f"it says {EVIL}", False, calls_at_most=4)
        self.trunks = TrunksOut(folder / "trunks_out.json", lambda: [self.trunk])
        self.shown = HOUSE
        self.at = 1000.0
        self.version = "0123456789ab"
        self.breaks = False
        self.told = 0

    async def house(self) -> HouseShown:
        self.told += 1
        self.at += 5
        return replace(self.shown, at=self.at, plan=self.version)

    def plan(self) -> Dialplan:
        route = Route(name="demo", called=("demo", EVIL), do=(Answer(),), file="/plans/10-demo.toml", line=3)
        return Dialplan((route,), {"desk": TARGET}, Path("/plans"), version=self.version)

    def voices_named(self) -> list[str]:
        return ["heart", EVIL]

    def telephones(self) -> list[tuple[Binding, TelephoneState | None]]:
        held = Binding(
            user="reception", key="k", contact="sip:r@h", call_id_hash="h", cseq=1, transport="udp",
            host="192.0.2.7", port=5060, source="192.0.2.7", user_agent=EVIL, registered_at=1.0,
            expires_at=2.0,
        )  # fmt: skip
        return [(held, TelephoneState("reception", "k", True, 24.0))]

    async def tried_plan(self) -> str:
        if self.breaks:
            raise DialplanError(WHY)
        return self.version

    async def reloaded(self) -> Reloaded:
        if self.breaks:
            return Reloaded(self.version, self.version, {"dialplans": WHY}, (EVIL,))
        was, self.version = self.version, "ba9876543210"
        return Reloaded(self.version, was)


class HouseStage:
    """The app on a free port, and whose tokens open it."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.users = SipUsers(folder)
        self.users.add("reception", "long enough", role="caller")
        self.registry = Registry.open(f"sqlite:///{folder / 'tokens.db'}")
        self.tokens = ApiTokens(self.registry)
        self.tokens.open()
        settings = Settings(host="127.0.0.1", data_dir=folder)
        app = build_app(self.desk, settings, TOKEN, tokens=self.tokens)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._socket.getsockname()[1]}"
        self._serving = asyncio.create_task(self.server.serve([self._socket]))

    async def leave(self) -> None:
        """Nobody answers any more."""
        self.server.should_exit = self.server.force_exit = True
        await self._serving

    async def close(self) -> None:
        await self.leave()
        self.registry.close()


@pytest_asyncio.fixture(loop_scope="module")
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HouseStage]:
    monkeypatch.setattr(house_desk, "SHOWN_FOR_S", 0.0)  # a page hears at once what a test changed
    stage = HouseStage(tmp_path)
    yield stage
    await stage.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page; whatever it complains of in its log, but refused requests, fails the test."""
    context = await browser.new_context(viewport={"width": 1100, "height": 900})
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


async def logged_in(page: Page, house: HouseStage, role: str = "") -> None:
    """The page of whoever has that role; of the console's own token where none is named."""
    token = house.tokens.make(role, role, 60, "a test")[1] if role else TOKEN
    await page.goto(f"{house.url}/login?then=/house")
    await page.fill("#token", token)
    await page.click("button[type=submit]")
    await page.wait_for_url(f"{house.url}/house")


async def faults(page: Page) -> list[str]:
    """What axe finds in a view that is serious, critical or moderate."""
    found = (await Axe().run(page)).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] != "minor"]


async def asked_again(page: Page) -> None:
    """Has the page ask now, without five seconds of waiting, and waits until it was answered."""
    async with page.expect_response("**/api/house"):
        await page.evaluate("dispatchEvent(new Event('house:changed'))")


async def test_an_operator_finds_the_page_and_reads_how_the_house_is(page: Page, house: HouseStage) -> None:
    house.desk.shown = replace(
        HOUSE, ready=False, why=("engine: down",), parts={"hall": "ready", "engine": "down"},
        processes=(
            ProcessShown("engine", "failing", 900.0, 3, None, f"no memory was left for it {EVIL}"),
            ProcessShown("front", "up", 900.0, 0, 50_000_000),
        ),
        alarms={"mark failed": 2},
        receivers=(ReceiverShown("crm", 3, 7),), refused=(RefusedFor(503, EVIL, 4, 990.0),),
    )  # fmt: skip
    await page.goto(house.url)
    await page.get_by_role("navigation").get_by_role("link", name="House").click()
    await expect(page.locator("#gateway-text")).to_have_text("Takes no calls")
    await expect(page.locator("#why")).to_have_text("engine: down")
    engine = page.get_by_role("row", name="engine dies again and again")
    await expect(engine).to_contain_text("no memory was left for it <img")
    await expect(page.get_by_role("table", name="Alarms since the front began")).to_contain_text(
        "mark failed"
    )
    await expect(page.get_by_role("table", name="Receivers of events")).to_contain_text("crm")
    await expect(page.get_by_role("table", name="Refused calls by reason")).to_contain_text(EVIL)
    await expect(page.get_by_role("button", name="Reload")).to_be_hidden()
    await expect(page.locator("#plan-no-right")).to_be_visible()
    await expect(page.get_by_role("heading", name="Users and telephones")).to_be_hidden()
    assert await page.locator("main img").count() == 0
    assert await page.title() == "House – voicegate"
    assert await faults(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await faults(page) == []


async def test_names_of_an_enemys_are_read_as_text(page: Page, house: HouseStage) -> None:
    await logged_in(page, house)
    await expect(page.get_by_role("table", name="Routes in order")).to_contain_text(f"called demo, {EVIL}")
    await expect(page.get_by_role("table", name="Targets")).to_contain_text(TARGET)
    await expect(page.locator("#voices")).to_contain_text(EVIL)
    await expect(page.get_by_role("table", name="Users, and the telephones")).to_contain_text(EVIL)
    await expect(page.get_by_role("row", name="reception")).to_contain_text("answers in 24 ms")
    await page.get_by_label("Caller").fill(EVIL)
    await page.get_by_label("Called").fill("<b>nobody</b>")
    await page.keyboard.press("Enter")
    await expect(page.locator("#tried")).to_contain_text("no route takes a call to <b>nobody</b>")
    await page.get_by_label("Called").fill("demo")
    await page.get_by_role("button", name="Which route?").click()
    await expect(page.locator("#tried")).to_contain_text("Route demo takes it (10-demo.toml:3).")
    assert await page.locator("main img").count() == 0
    assert await page.title() == "House – voicegate"
    assert await faults(page) == []


async def test_what_does_not_load_is_said_with_its_line_and_the_old_plan_stays(
    page: Page, house: HouseStage
) -> None:
    await logged_in(page, house, "operator")
    await expect(page.locator("#plan-version")).to_have_text("0123456789ab")
    house.desk.breaks = True
    await page.get_by_role("button", name="Check what lies there").click()
    told = page.locator("#plan-told")
    await expect(told).to_contain_text(WHY)
    await expect(told).to_contain_text("In force stays 0123456789ab.")
    reload = page.get_by_role("button", name="Reload")
    await reload.focus()
    await page.keyboard.press("Enter")
    await expect(told).to_contain_text("Not all was taken:")
    await expect(told).to_contain_text("In force is plan 0123456789ab; dialplans stay as they were.")
    await expect(told).to_contain_text(EVIL)
    await expect(reload).to_be_focused()
    assert await faults(page) == []
    house.desk.breaks = False
    await page.keyboard.press("Enter")
    await expect(told).to_contain_text("In force is ba9876543210; before it was 0123456789ab.")
    await expect(page.locator("#plan-version")).to_have_text("ba9876543210")
    await expect(reload).to_be_focused()


async def test_a_trunk_is_taken_out_of_service_by_keyboard_and_put_back(
    page: Page, house: HouseStage
) -> None:
    await logged_in(page, house, "operator")
    row = page.get_by_role("row", name="carrier")
    await expect(row).to_contain_text(f"it says {EVIL}")
    await expect(page.get_by_role("button", name="Take out: carrier")).to_have_count(0)
    await logged_in(page, house)
    asked: list[str] = []
    answers = iter((False, True))

    async def confirm(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await (dialog.accept() if next(answers) else dialog.dismiss())

    page.on("dialog", confirm)
    await page.get_by_role("button", name="Take out: carrier").focus()
    await page.keyboard.press("Enter")
    await expect(row).to_contain_text("down")
    await page.keyboard.press("Enter")
    await expect(page.locator("#trunks-told")).to_have_text("carrier is out of service.")
    back = page.get_by_role("button", name="Put back: carrier")
    await expect(back).to_be_focused()
    await expect(row).to_contain_text("taken out by console")
    assert await faults(page) == []
    await page.keyboard.press("Enter")
    await expect(page.locator("#trunks-told")).to_have_text("carrier is in service again.")
    await expect(row).to_contain_text("down")
    assert len(asked) == 2
    assert all("carrier" in question for question in asked)


async def test_what_is_read_stays_where_it_is_while_the_page_asks_again(
    page: Page, house: HouseStage
) -> None:
    await page.goto(f"{house.url}/house")
    table = page.get_by_role("group", name="Processes")
    await expect(table).to_contain_text("50 MB")
    await page.get_by_label("Caller").fill("anna")
    await table.focus()
    cell = page.get_by_role("rowheader", name="front")
    await cell.evaluate("(one) => { one.dataset.mine = '1'; getSelection().selectAllChildren(one); }")
    front, ears = HOUSE.processes[0], ProcessShown("ears", "up", 900.0, 0, 10_000_000)
    house.desk.shown = replace(HOUSE, processes=(ears, replace(front, memory_bytes=60_000_000, restarts=1)))
    await asked_again(page)
    await expect(table).to_contain_text("60 MB")
    assert await cell.get_attribute("data-mine") == "1", "the row is the same element"
    assert await page.evaluate("getSelection().toString()") == "front"
    await expect(table).to_be_focused()
    assert await page.get_by_label("Caller").input_value() == "anna"
    rows = page.get_by_role("table", name="Processes of the house").get_by_role("rowheader")
    assert await rows.all_inner_texts() == ["ears", "front"]
    house.desk.shown = replace(HOUSE, processes=(front,))  # the row above it goes
    await asked_again(page)
    await expect(rows).to_have_text(["front"])
    assert await cell.get_attribute("data-mine") == "1"
    assert await page.evaluate("getSelection().toString()") == "front"
    house.desk.shown = replace(HOUSE, processes=())
    await asked_again(page)
    await expect(table).to_contain_text("Nobody says.")


async def test_a_house_that_is_away_leaves_what_was_read_and_says_as_of_when(
    page: Page, house: HouseStage
) -> None:
    await page.goto(f"{house.url}/house")
    await expect(page.get_by_role("group", name="Processes")).to_contain_text("50 MB")
    await house.leave()
    await page.evaluate("dispatchEvent(new Event('house:changed'))")
    await expect(page.get_by_role("alert")).to_contain_text("does not answer. What stands below is as of")
    await expect(page.locator("#gateway-text")).to_have_text("Does not answer")
    await expect(page.get_by_role("group", name="Processes")).to_contain_text("50 MB")
    await page.get_by_role("button", name="Which route?").click()
    await expect(page.locator("#tried")).to_have_text("The gateway does not answer.")
    assert await faults(page) == []


async def test_who_may_not_read_is_told_so_and_led_to_the_login(page: Page, house: HouseStage) -> None:
    await logged_in(page, house, "caller")
    blank = page.get_by_label("State", exact=True)
    await expect(blank).to_contain_text(
        "caller (caller) may not see the house: that needs the right calls.read."
    )
    await expect(blank.get_by_role("link", name="Log in")).to_have_attribute("href", "/login?then=/house")
    await expect(page.get_by_role("heading", name="Processes")).to_be_hidden()
    assert house.desk.told == 0
    assert await faults(page) == []


async def test_a_right_that_is_taken_back_is_gone_from_the_page(page: Page, house: HouseStage) -> None:
    await logged_in(page, house, "operator")
    await expect(page.get_by_role("button", name="Reload")).to_be_visible()
    await expect(page.get_by_role("table", name="Targets")).to_contain_text(TARGET)
    (token,) = house.tokens.listed()
    house.tokens.revoke(token.token_id, "a test")
    await page.evaluate("dispatchEvent(new Event('house:changed'))")
    await expect(page.get_by_role("link", name="Log in", exact=True).first).to_be_visible()
    await expect(page.get_by_role("button", name="Reload")).to_be_hidden()
    await expect(page.locator("#targets")).not_to_contain_text(TARGET)


@pytest.mark.parametrize(("width", "height"), [(360, 740), (550, 450)], ids=["a telephone", "200 per cent"])
async def test_on_small_screens_nothing_is_cut_off(
    page: Page, house: HouseStage, width: int, height: int
) -> None:
    long = "x" * 200
    house.desk.shown = replace(HOUSE, ledger=long, refused=(RefusedFor(503, long, 4, 990.0),))
    await page.set_viewport_size({"width": width, "height": height})
    await logged_in(page, house)
    await expect(page.get_by_role("group", name="Processes")).to_contain_text("50 MB")
    await expect(page.get_by_role("table", name="Routes in order")).to_contain_text("demo")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    small = await page.evaluate(
        "() => [...document.querySelectorAll('button, input, nav a')].filter((one) => one.offsetParent"
        " && one.getBoundingClientRect().height < 43.5).map((one) => one.outerHTML)"
    )
    assert small == [], "each can be hit with a thumb"
    assert await faults(page) == []


async def test_nobody_is_asked_while_nobody_looks(page: Page, house: HouseStage) -> None:
    await page.clock.install()
    await page.goto(f"{house.url}/house")
    await expect(page.get_by_role("heading", name="Processes")).to_be_visible()
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/api/house"):
            asked.append(request.url)

    page.on("request", note)
    async with page.expect_response("**/api/house"):
        await page.clock.run_for(5_000)
    await page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true, configurable: true })")
    before = len(asked)
    await page.clock.run_for(60_000)
    assert len(asked) == before
    await page.evaluate("delete document.hidden")
    async with page.expect_response("**/api/house"):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_a_screen_reader_is_told_of_changes_alone(page: Page, house: HouseStage) -> None:
    await page.goto(f"{house.url}/house")
    await expect(page.locator("#gateway-text")).to_have_text("Ready")
    live = await page.locator("[role=status], [role=alert], [aria-live]").evaluate_all(
        "(all) => all.map((one) => one.id)"
    )
    assert set(live) == {"gateway", "blank-text", "stale", "trunks-told", "plan-told", "tried"}
    await page.evaluate(
        """() => {
          window.said = [];
          const watch = new MutationObserver((all) => all.forEach((one) => said.push(one.target.id)));
          watch.observe(document.getElementById("gateway"), { childList: true, subtree: true });
        }"""
    )
    for _ in range(3):
        await asked_again(page)
    assert json.loads(await page.evaluate("JSON.stringify(said)")) == []
