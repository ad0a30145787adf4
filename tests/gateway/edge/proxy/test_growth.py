"""Nothing of a call stays at the edge once its transactions are over, though the collector never comes by."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.edge.dialogs.dialog import Dialog
from gateway.edge.dialogs.transaction import LINGER_S, Sent, Served
from gateway.edge.doors import limits
from gateway.edge.doors.limits import Bucket, SourceRates
from gateway.edge.doors.refused import SAME_CALL_S
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.router import Accept, Refuse
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER, Caller, Line

HOUSE_TIME = True
CALLS = 20
KINDS = (Served, Sent, Request, Response, Dialog, Flow, Bucket)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def kept() -> Counter[str]:
    """What there is of the edge's objects, by kind."""
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in KINDS)


async def hung_up(exchange: Exchange, caller: Caller, line: Line) -> None:
    await exchange.call(caller, line)
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200)


async def held(exchange: Exchange, caller: Caller, line: Line) -> None:
    await exchange.call(caller, line)
    caller.send("INVITE", OFFER.replace("m=audio", "a=sendonly\r\nm=audio"))
    line.reply(await line.next(method="INVITE"), 200, body=ANSWER)
    await caller.next(200)
    caller.send("ACK")
    await line.next(method="ACK")
    line.send("BYE")
    caller.reply(await caller.next(method="BYE"), 200)
    await line.next(200)


async def given_up(_: Exchange, caller: Caller, line: Line) -> None:
    caller.send("INVITE", OFFER)
    invite = await line.invited()
    await caller.next(100)
    line.reply(invite, 180)
    await caller.next(180)
    caller.send("CANCEL")
    line.reply(await line.next(method="CANCEL"), 200)
    line.reply(invite, 487)
    await line.next(method="ACK")
    await caller.next(487)
    caller.send("ACK", branch=caller.branch)


async def refused(exchange: Exchange, caller: Caller, _: Line) -> None:
    exchange.desk.verdict = lambda call: Refuse(404, "no route", call_id="c1")
    caller.send("INVITE", OFFER)
    await caller.next(404)
    caller.send("ACK", branch=caller.branch)


async def never_answered(_: Exchange, caller: Caller, line: Line) -> None:
    caller.send("INVITE", OFFER)
    await line.next(method="INVITE")
    await caller.next(503, within_s=10.0)
    caller.send("ACK", branch=caller.branch)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("way", [hung_up, held, given_up, refused, never_answered])
async def test_nothing_is_left_of_a_call(
    exchange: Exchange, way: Callable[[Exchange, Caller, Line], Awaitable[None]]
) -> None:
    line = await exchange.line()
    verdict = exchange.desk.verdict
    counts = []
    for call in range(CALLS):
        caller = await exchange.caller()
        await way(exchange, caller, line)
        exchange.desk.verdict = verdict
        await asyncio.sleep(LINGER_S + 1)
        caller.close()
        line.kept.clear()
        if call in (2, CALLS - 1):
            counts.append(kept())
    assert counts[0] == counts[1]
    assert isinstance(verdict(exchange.desk.calls[0]), Accept)


async def test_who_asked_little_is_forgotten_when_there_is_nothing_to_remember() -> None:
    rates = SourceRates(10.0)
    for n in range(100):
        rates.takes(str(n), 5.0)
        await asyncio.sleep(0.1)
    assert len(rates._buckets) <= 7, "a bucket that is full again is like a new one"
    assert limits.MAX_SOURCES > 100
    for _ in range(20):
        rates.takes("greedy")
    assert not rates.takes("greedy")
    rates.takes("another")
    assert not rates.takes("greedy"), "who is over the rate stays so, whoever else comes"


async def test_a_refused_call_is_remembered_only_while_it_may_come_again(exchange: Exchange) -> None:
    await exchange.line()
    exchange.desk.verdict = lambda call: Refuse(404, "no route", call_id="c1")
    told = exchange.edges[0]._board.refused_invites._told
    for _ in range(10):
        caller = await exchange.caller()
        caller.send("INVITE", OFFER)
        await caller.next(404)
        await asyncio.sleep(SAME_CALL_S / 4)
    assert len(told) <= 5
    assert len(exchange.desk.refusals) == 10
