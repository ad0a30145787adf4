"""JsSIP and SIP.js, unchanged, in Chromium and Firefox: calls by SIP over WebSocket, heard by a web line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from gateway.store.sip_users import SipUsers
from tests.browser import FLAGS
from tests.e2e.gateway_process import House
from tests.e2e.registering import bindings
from tests.e2e.sip_page import LIBRARIES, SipPage, phone_shop
from tests.firefox import firefox
from tests.needs import need_program

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield await browser.new_page()
        await browser.close()


def newest(house: House) -> dict[str, Any]:
    call: dict[str, Any] = max(house.calls(), key=lambda call: float(call["started_at"]))
    return call


def events(house: House, call_id: str, kind: str) -> list[dict[str, Any]]:
    told = house.get(f"/api/calls/{call_id}")["events"]
    return [event["data"] for event in told if event["kind"] == kind]


async def test_jssip_calls_and_is_heard_held_and_hung_up(house: House, page: Page) -> None:
    await whole_call(house, await SipPage.open(page, house, "jssip"))


@pytest.mark.prove
@pytest.mark.parametrize("library", LIBRARIES)
async def test_each_library(house: House, page: Page, library: str) -> None:
    await whole_call(house, await SipPage.open(page, house, library))


@pytest.mark.long("a gateway of its own, which names the page's origin, and a Firefox")
@pytest.mark.prove
@pytest.mark.parametrize("library", LIBRARIES)
async def test_each_library_in_firefox(own_house: Callable[..., House], tmp_path: Path, library: str) -> None:
    """On a page of another origin, which the operator named."""
    async with phone_shop() as shop, firefox(tmp_path / "firefox") as page:
        house = own_house(web_origins=shop)
        await whole_call(house, await SipPage.open_firefox(page, shop, house, library))


async def whole_call(house: House, phone: SipPage) -> None:
    await phone.do("call", "sip:demo@127.0.0.1")
    await phone.until("phone.confirmed")
    await phone.until_louder()
    call_id = newest(house)["call_id"]
    assert newest(house)["transport"] == "ws"

    await phone.do("info", "5")
    house.wait_for("a key by INFO", lambda: [e["digit"] for e in events(house, call_id, "dtmf")] == ["5"])
    await phone.do("event", "6")
    house.wait_for("a key by RTP", lambda: [e["digit"] for e in events(house, call_id, "dtmf")] == ["5", "6"])

    await phone.do("hold")
    house.wait_for("hold", lambda: len(events(house, call_id, "hold")) == 1)
    assert events(house, call_id, "hold")[0] == {"sending": False, "receiving": False}
    before = await phone.do("heard")
    await phone.do("resume")
    house.wait_for("resumption", lambda: len(events(house, call_id, "hold")) == 2)
    assert events(house, call_id, "hold")[1] == {"sending": True, "receiving": True}
    await phone.until_louder(before["energy"])

    await phone.do("hangUp")
    house.wait_for("its end", lambda: house.get(f"/api/calls/{call_id}")["state"] == "ended")
    assert house.get(f"/api/calls/{call_id}")["how"] == "caller hung up"
    house.wait_for("how it sounded", lambda: events(house, call_id, "line_quality"))
    assert events(house, call_id, "line_quality")[-1]["packets"] > 50, "the browser was heard"


@pytest.mark.prove
@pytest.mark.parametrize("library", LIBRARIES)
async def test_we_hang_up(house: House, page: Page, library: str) -> None:
    phone = await SipPage.open(page, house, library)
    await phone.do("call", "sip:demo@127.0.0.1")
    await phone.until("phone.confirmed")
    await phone.until_louder()
    house.delete(f"/api/calls/{newest(house)['call_id']}")
    await phone.until("phone.ended === 'remote'")


@pytest.mark.prove
@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_password_is_asked(own_house: Callable[..., House], page: Page, library: str) -> None:
    house = own_house(sip_auth="on")
    user, password = first_user(house)
    phone = await SipPage.open(page, house, library, user, password)
    await phone.do("call", "sip:demo@127.0.0.1")
    await phone.until("phone.confirmed")
    await phone.until_louder()
    assert newest(house)["user"] == user
    await phone.do("hangUp")
    if library == "jssip":  # which registers by RFC 5626, with a Contact that nobody could reach
        await phone.do("register")
        (kept,) = bindings(house)
        assert (kept.user, kept.transport, kept.lost_at, kept.reg_id) == (user, "ws", None, 1)
        assert ".invalid" in kept.contact
        await page.close()
        house.wait_for("its connection's end", lambda: bindings(house)[0].lost_at is not None)


def first_user(house: House) -> tuple[str, str]:
    found = SipUsers(house.folder / "data").first()
    assert found is not None
    return found
