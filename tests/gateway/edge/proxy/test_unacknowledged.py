"""Callers who never acknowledge: their slots come back, and they hold a bounded share until then."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.doors.limits import Share
from gateway.edge.proxy import call_admission as admission
from gateway.edge.proxy import switchboard
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER, Caller, Line

HOUSE_TIME = True


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "OVERDUE_S", 0.2)
    monkeypatch.setattr(switchboard, "ACK_WITHIN_S", 1.0)
    monkeypatch.setattr(admission, "SHARE_WITHIN_S", 0.1)


async def _answered(exchange: Exchange, line: Line, host: str = "127.0.0.1") -> Caller:
    caller = await exchange.caller(host=host)
    await exchange.call(caller, line, ack=False)
    return caller


async def test_the_line_gets_an_ack_and_a_bye_and_is_free(exchange: Exchange) -> None:
    line = await exchange.line()
    caller = await _answered(exchange, line)
    assert exchange.edges[0].stats()["unacknowledged"] == 1
    ack, bye = await line.next(method="ACK"), await line.next(method="BYE")
    assert (ack["cseq"], bye["cseq"]) == ("1 ACK", "2 BYE")
    assert bye.tag("from") == caller.own_tag
    assert bye.tag("to") == line.own_tag
    assert await exchange.desk.ending() == "failed: the answer was never acknowledged"
    assert exchange.edges[0].stats()["slots_free"] == 4
    assert exchange.edges[0].stats()["unacknowledged"] == 0
    await caller.next(method="BYE")


async def test_of_many_the_oldest_go_first(exchange: Exchange) -> None:
    line = await exchange.line()
    oldest = await _answered(exchange, line, "127.0.0.2")
    await asyncio.sleep(0.05)
    await _answered(exchange, line, "127.0.0.3")
    bye = await line.next(method="BYE", within_s=0.6)  # well before the second's time
    assert bye["call-id"] == oldest.call_id, "a quarter of four slots may be overdue"


async def test_of_those_that_the_operator_named_all_may_take_their_time(bare: Exchange) -> None:
    """A click-to-dial server makes many calls whose other side has yet to pick up (RFC 3725)."""
    await bare.edge(allow=("127.0.0.0/8",))
    line = await bare.line(capacity=8)
    callers = [await _answered(bare, line, f"127.0.0.{number}") for number in range(2, 6)]
    await asyncio.sleep(0.9)
    for caller in callers:
        caller.send("ACK")
        await line.next(method="ACK")
    await line.nothing(1.0)
    assert bare.edges[0].stats()["dialogs"] == 4


async def test_somebody_who_needs_the_slot_gets_it(exchange: Exchange) -> None:
    line = await exchange.line(capacity=1)
    await _answered(exchange, line, "127.0.0.2")
    await asyncio.sleep(0.3)  # overdue, not yet given up
    honest = await exchange.caller()
    honest.send("INVITE", OFFER)
    await line.invited()


async def test_one_source_holds_half_at_most_and_others_are_served(exchange: Exchange) -> None:
    line = await exchange.line()
    for _ in range(2):
        await _answered(exchange, line)
    third = await exchange.caller()
    third.send("INVITE", OFFER)
    assert "acknowledged" in (await third.next(503))["reason"]
    other = await exchange.caller(host="127.0.0.2")
    other.send("INVITE", OFFER)
    await line.invited()


async def test_an_honest_burst_is_spread_not_refused(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "SHARE_WITHIN_S", 3.0)
    line = await exchange.line()
    callers = [await exchange.caller() for _ in range(4)]
    for caller in callers:
        caller.send("INVITE", OFFER)
    for _ in callers:
        invite = await line.invited()
        line.reply(invite, 200, body=ANSWER)
        caller = next(one for one in callers if one.call_id == invite["call-id"])
        caller.learn(await caller.next(200))
        caller.send("ACK")
        await line.next(method="ACK")
    assert exchange.edges[0].stats()["dialogs"] == 4


async def test_a_cancel_leaves_the_queue(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SHARE_WITHIN_S", 3.0)
    line = await exchange.line()
    for _ in range(2):
        await _answered(exchange, line)
    third = await exchange.caller()
    third.send("INVITE", OFFER)
    await third.next(100)
    third.send("CANCEL")
    await third.next(487)
    await line.next(method="BYE")
    await asyncio.sleep(0.05)
    assert len(exchange.desk.calls) == 2


async def test_a_share_is_given_to_who_waited_longest() -> None:
    share = Share()
    assert await share.take("a", lambda: 1, 0)
    order: list[int] = []

    async def wait(number: int) -> None:
        assert await share.take("a", lambda: 1, 1)
        order.append(number)
        share.give("a")

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert await share.take("b", lambda: 1, 0), "others do not wait"
    share.give("a")
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


async def test_a_line_that_gives_up_first_is_believed(exchange: Exchange) -> None:
    line = await exchange.line()
    await _answered(exchange, line)
    line.send("BYE", "", 'Reason: SIP ;cause=408 ;text="Request Timeout"')
    assert await exchange.desk.ending() == "failed: the answer was never acknowledged"
    assert exchange.edges[0].stats()["never_acknowledged"] == 1
