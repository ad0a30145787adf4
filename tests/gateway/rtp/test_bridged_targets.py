"""A browser's caller is handed to a target behind a trunk: both lines and the edge are real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.edge.grammar.uri import URI
from gateway.edge.registrar.registrar import Reached
from gateway.errors import RpcError
from gateway.hall.parts.call_line import CallLine
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import (
    BridgeTarget,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    TargetRings,
    TransferOutcome,
)
from gateway.ipc.rpc import Peer
from gateway.line import target_bridge, webcall
from gateway.line.web import WebLine
from gateway.rtp.dialogs import targets
from tests.gateway.line.line_harness import TOKEN, power_at, tone
from tests.gateway.line.rawbrowser import Browser
from tests.gateway.line.rawphone import Message, RawPhone
from tests.gateway.rtp.rtp_exchange import CAPACITY, RtpExchange
from tests.gateway.rtp.test_targets import House, _bye, _comes_to_hear, binding
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Bridged:
    """A browser that talks with the hall, and its line as a hall has it."""

    house: House
    browser: Browser
    number: int
    line: CallLine
    web: WebLine

    @property
    def trunk(self) -> RawPhone:
        return self.house.trunk

    async def calls(self) -> Message:
        await self.line.call_target("office", 30.0)
        return await self.trunk.request("INVITE", HANGS_S)

    async def outcome(self) -> TransferOutcome:
        return await self.house.exchange.hall.hears(TransferOutcome, "b1", HANGS_S)

    async def hears(self, hz: float) -> None:
        async with asyncio.timeout(HANGS_S):
            while power_at((await self.browser.hears(0.3))[-9600:], hz) < 0.9:
                pass

    async def left(self) -> None:
        """Waits until the line for telephones has nothing of it, and the trunk's call is over."""
        callees = self.house.exchange.rtp_lines["w0"]._callees
        for _ in range(round(HANGS_S / 0.02)):
            if not callees.bridges("b1") and not self.house.left() and len(callees._free) == CAPACITY:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("something is left of it")
        assert not self.house.edge._board.lines.named("w0").calls  # type: ignore[union-attr]


@asynccontextmanager
async def bridged(exchange: RtpExchange, telephones: str = "w0") -> AsyncIterator[Bridged]:
    webcall.prepare("127.0.0.1")
    exchange.hall.sound = lambda n: b""
    async with House.opened(exchange, "w0", port_file=exchange.runtime.edge_port) as house:
        house.desk.on_web.add("b1")
        web = WebLine("web0", "hall0", exchange.runtime, TOKEN)
        running = asyncio.create_task(web.run())
        browser = Browser(tone(440))
        try:
            await exchange.hall.hears_hello("web0")
            await exchange.front.hears_hello("web0")
            answer = await exchange.front.offer("b1", await browser.offer())
            started = await exchange.hall.hears(CallStarted, "b1", HANGS_S)
            await browser.accept(answer)
            await exchange.hall.hears(CallConfirmed, "b1", HANGS_S)

            def lines() -> Iterable[Peer]:
                return [exchange.hall.lines[telephones]] if telephones else []

            line = CallLine("b1", page=True, telephones=lines)
            line.start(exchange.hall.lines["web0"], 48_000, browser=True)
            exchange.hall.sounds[started.call] = tone(1000)
            yield Bridged(house, browser, started.call, line, web)
        finally:
            await browser.connection.close()
            web.stop()
            await asyncio.wait_for(running, HANGS_S)
            await exchange.front.misses("web0")
            await exchange.hall.misses("web0")


async def test_browser_and_target_hear_each_other_and_not_us(exchange: RtpExchange) -> None:
    async with bridged(exchange) as call:
        await call.hears(1000)
        invite = await call.calls()
        await call.house.picks_up(invite)
        assert (await call.outcome()).status == 200
        call.trunk.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(call.trunk, 440)
        await call.hears(660)
        heard = len(exchange.hall.heard[call.number])
        assert power_at(await call.browser.hears(0.3), 1000) < 0.05, "nothing of the hall's is heard"
        assert len(exchange.hall.heard[call.number]) == heard, "nor does it hear the two"
        assert power_at(await call.trunk.hears(0.3, HANGS_S), 1000, 8000) < 0.05
        call.line.hand_over()
        await call.line.press("5")
        assert await call.trunk.hears_keys(1, HANGS_S) == "5"
        await call.line.hang_up(CallEnding(End.CALLER))
        await call.trunk.request("BYE", HANGS_S)
        await call.left()


async def test_a_browsers_caller_is_handed_to_a_registered_telephone(exchange: RtpExchange) -> None:
    async with bridged(exchange) as call:
        flow = call.house.edge._board.ports.udp.flow("127.0.0.1", call.trunk.sip_port)
        contact = URI.read("sip:alice@198.51.100.9:5090")
        known = {"alice": [Reached(flow, contact, (), binding(flow, contact.text))]}
        call.house.edge.trunks.calls._phones = lambda user: known.get(user, [])
        call.house.desk.targets["office"] = "user:alice"
        await call.house.picks_up(await call.calls())
        assert (await call.outcome()).status == 200
        call.trunk.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(call.trunk, 440)
        await call.hears(660)
        await call.line.hang_up(CallEnding(End.CALLER))
        await call.trunk.request("BYE", HANGS_S)
        await call.left()


async def test_a_target_that_refuses_gives_the_caller_back_to_the_hall(exchange: RtpExchange) -> None:
    async with bridged(exchange) as call:
        invite = await call.calls()
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        call.trunk.media = ("127.0.0.1", int(port[1]))
        call.trunk.answer(invite, "183 Session Progress", call.trunk.offer())
        assert (await exchange.hall.hears(TargetRings, "b1", HANGS_S)).early
        call.trunk.talk(tone(660, rate_hz=8000))
        await call.hears(660)
        call.trunk.answer(invite, "486 Busy Here")
        assert (await call.outcome()).status == 486
        await call.line.leave_target()
        await call.hears(1000)
        await call.left()


async def test_a_target_that_hangs_up_ends_the_browsers_call(exchange: RtpExchange) -> None:
    async with bridged(exchange) as call:
        invite = await call.calls()
        await call.house.picks_up(invite)
        await call.outcome()
        _bye(call.trunk, invite)
        left = await exchange.hall.hears(CallLeft, "b1", HANGS_S)
        assert left.how == "transferred: the target hung up"
        await call.left()


async def test_a_browser_whose_line_falls_silent_leaves_its_target_to_nobody(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "GONE_S", 0.5)
    async with bridged(exchange) as call:
        await call.house.picks_up(await call.calls())
        await call.outcome()
        await _comes_to_hear(call.trunk, 440)
        (web_call,) = call.web.calls.values()
        web_call.close_bridge()
        await call.trunk.request("BYE", HANGS_S)
        await call.left()


async def test_a_browser_whose_targets_line_falls_silent_is_told(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bridged(exchange) as call:
        await call.house.picks_up(await call.calls())
        await call.outcome()
        await _comes_to_hear(call.trunk, 440)
        monkeypatch.setattr(target_bridge, "GONE_S", 0.3)
        await exchange.hall.lines["w0"].ask(DropCall("b1"))
        left = await exchange.hall.hears(CallLeft, "b1", HANGS_S)
        assert left.how == "transferred: the target's line is gone"


@pytest.mark.parametrize(("telephones", "why"), [("", "no line for telephones"), ("n0", "has no Opus")])
async def test_without_a_line_that_can_the_call_goes_on(
    exchange: RtpExchange, telephones: str, why: str
) -> None:
    async with bridged(exchange, telephones) as call:
        with pytest.raises(RpcError, match=why):
            await call.line.call_target("office", 30.0)
        await call.hears(1000)


async def test_a_line_calls_nobody_for_a_call_that_no_browser_has(exchange: RtpExchange) -> None:
    async with bridged(exchange) as call:
        call.house.desk.on_web.clear()
        await call.line.call_target("office", 30.0)
        assert (await call.outcome()).status == 403
        assert call.trunk._messages.empty()
        await call.line.leave_target()
        await call.left()


async def test_a_full_line_for_telephones_takes_no_browsers_caller(exchange: RtpExchange) -> None:
    async with bridged(exchange):
        callees = exchange.rtp_lines["w0"]._callees
        free, callees._free = callees._free, []
        with pytest.raises(RpcError, match="has no room"):
            await exchange.hall.lines["w0"].ask(BridgeTarget("b1", "office", 5.0, 40_000))
        callees._free = free
