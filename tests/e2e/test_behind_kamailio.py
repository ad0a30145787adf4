"""A Kamailio stands before the gateway and stays in each dialog (Record-Route): what callers and we say
within a call finds its way through it, from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.browser import FLAGS
from tests.e2e.gateway_process import House
from tests.e2e.kamailio_edge import Edge, kamailio_edge
from tests.e2e.sip_page import LIBRARIES, SipPage
from tests.e2e.test_linphone import Linphone
from tests.e2e.test_trunks import certificate
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S, need_program

pytestmark = [pytest.mark.e2e, pytest.mark.prove, pytest.mark.long("a whole gateway, and Kamailio")]


@contextmanager
def before(house: House, folder: Path, transport: str = "udp", **more: Any) -> Iterator[Edge]:
    """A Kamailio whose every call goes to that house."""
    folder.mkdir(parents=True, exist_ok=True)
    port = house.sip_tls_port if transport == "tls" else house.sip_port
    with (
        certificate(folder) as chain,
        kamailio_edge(folder, port, chain=chain, transport=transport, **more) as edge,
    ):
        yield edge


@asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """Chromium's, that trusts any certificate. A shop's page would be Kamailio's; the tests' one is the
    gateway's, which lets no page speak elsewhere, unless the browser is told to."""
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = await browser.new_context(ignore_https_errors=True, bypass_csp=True)
        yield await context.new_page()
        await browser.close()


def newest(house: House) -> dict[str, Any]:
    call: dict[str, Any] = max(house.calls(), key=lambda call: float(call["started_at"]))
    return call


def kinds(house: House, call_id: str, kind: str) -> list[dict[str, Any]]:
    told = house.get(f"/api/calls/{call_id}")["events"]
    return [event["data"] for event in told if event["kind"] == kind]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("who", ["caller", "we"])
def test_linphonec_calls_holds_resumes_and_either_hangs_up(
    house: House, tmp_path: Path, transport: str, who: str
) -> None:
    with before(house, tmp_path / "edge", transport) as edge:
        phone = Linphone(tmp_path / "home")
        try:
            for line in ("ipv6 disable", "soundcard use files", f"call sip:demo@127.0.0.1:{edge.port}"):
                phone.type(line)
            house.wait_for("its media", lambda: "Media streams established" in phone.log, HANGS_S)
            call_id = newest(house)["call_id"]
            for number, (line, done) in enumerate((("pause", "is now paused"), ("resume", "established")), 1):
                so_far = len(phone.log)
                phone.type(line)
                house.wait_for(line, lambda n=number: len(kinds(house, call_id, "hold")) == n, HANGS_S)
                house.wait_for(done, lambda d=done, at=so_far: d in phone.log[at:], HANGS_S)
            held, resumed = kinds(house, call_id, "hold")
            assert (held["sending"], resumed["sending"], resumed["receiving"]) == (False, True, True)
            if who == "caller":
                phone.type("terminate")
            else:
                house.delete(f"/api/calls/{call_id}")
            house.wait_for("its end", lambda: "ended (No error)" in phone.log, HANGS_S)
            house.wait_for("its end here", lambda: "how" in newest(house), HANGS_S)
        finally:
            phone.close()
        assert newest(house)["how"] == ("caller hung up" if who == "caller" else "hung up by the console")
        # over UDP what comes twice is counted twice
        assert edge.crossed("INVITE") >= 3
        assert edge.crossed("ACK") >= 3
        assert edge.crossed("BYE") >= 1
        assert edge.crossed("200 of BYE") >= 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_each_request_within_a_call_crosses_from_either_side(
    house: House, tmp_path: Path, transport: str
) -> None:
    """With one proxy between them, and two Record-Routes where it changes the transport."""
    with before(house, tmp_path / "edge", transport) as edge:
        for who in ("caller", "we"):
            phone = await RawPhone(("127.0.0.1", edge.port)).open()
            try:
                await in_dialog(phone, house, edge, transport, who)
            finally:
                phone.close()


async def in_dialog(phone: RawPhone, house: House, edge: Edge, transport: str, who: str) -> None:
    phone.invite("")
    answer = await phone.final(timeout_s=HANGS_S)
    assert answer.status == 200, answer.start
    phone.target = answer.headers["contact"].strip("<>")
    routes = [f"Route: {one}\r\n" for one in reversed(answer.headers["record-route"].split(","))]
    assert len(routes) == (2 if transport == "udp" else 3)
    call_id = (await asyncio.to_thread(newest, house))["call_id"]

    def says(method: str, body: str = "", **more: Any) -> None:
        phone.send(method, body, "".join(routes), **more)

    says("ACK", same=True)
    phone.talk(tone(440, rate_hz=8000))
    await phone.hears_loud(HANGS_S)
    for direction in ("sendonly", "sendrecv"):
        says("INVITE", phone.offer(direction))
        assert (await phone.final(timeout_s=HANGS_S)).status == 200
        says("ACK", same=True)
    says("INFO", "Signal=5\r\nDuration=160\r\n", content="application/dtmf-relay")
    assert (await phone.final("INFO", HANGS_S)).status == 200
    says("OPTIONS")
    assert (await phone.final("OPTIONS", HANGS_S)).status == 200
    says("UPDATE", phone.offer())
    assert (await phone.final("UPDATE", HANGS_S)).status == 200
    await asyncio.to_thread(
        house.wait_for, "a key", lambda: [e["digit"] for e in kinds(house, call_id, "dtmf")] == ["5"], HANGS_S
    )
    if who == "caller":
        says("BYE")
        assert (await phone.final("BYE", HANGS_S)).status == 200
    else:
        await asyncio.to_thread(house.delete, f"/api/calls/{call_id}")
        await phone.request("BYE", HANGS_S)
        await asyncio.to_thread(
            house.wait_for, "our BYE's answer", lambda: edge.crossed("200 of BYE") >= 2, HANGS_S
        )


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("who", ["caller", "we"])
async def test_a_browser_calls_by_wss(house: House, tmp_path: Path, library: str, who: str) -> None:
    with before(house, tmp_path / "edge") as edge:
        async with asyncio.timeout(HANGS_S), browser_page() as page:
            phone = await SipPage.open(page, house, library, socket=f"wss://127.0.0.1:{edge.tls_port}/")
            await phone.do("call", "sip:demo@127.0.0.1")
            await phone.until("phone.confirmed")
            await phone.until_louder()
            call_id = newest(house)["call_id"]
            await phone.do("info", "5")
            house.wait_for(
                "a key", lambda: [e["digit"] for e in kinds(house, call_id, "dtmf")] == ["5"], HANGS_S
            )
            await phone.do("hold")
            house.wait_for("hold", lambda: len(kinds(house, call_id, "hold")) == 1, HANGS_S)
            heard = await phone.do("heard")
            await phone.do("resume")
            house.wait_for("resumption", lambda: len(kinds(house, call_id, "hold")) == 2, HANGS_S)
            await phone.until_louder(heard["energy"])
            if who == "caller":
                await phone.do("hangUp")
                house.wait_for(
                    "its end", lambda: house.get(f"/api/calls/{call_id}")["state"] == "ended", HANGS_S
                )
            else:
                house.delete(f"/api/calls/{call_id}")
                await phone.until("phone.ended === 'remote'")
        assert edge.crossed("INVITE", "wss") == 3
        assert edge.crossed("BYE", "wss" if who == "caller" else "udp") == 1
