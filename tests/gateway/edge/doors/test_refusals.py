"""What the edge refuses, with which words, and what it says about itself."""

from __future__ import annotations

import pytest

from gateway.edge.router import Refuse
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import DTMF, KEY_5, OFFER

HOUSE_TIME = True


async def test_a_fifth_call_on_four_slots_is_told_when_to_try_again(exchange: Exchange) -> None:
    line = await exchange.line()
    for _ in range(4):
        await exchange.call(await exchange.caller(), line)
    fifth = await exchange.caller()
    fifth.send("INVITE", OFFER)
    assert (await fifth.next(503))["retry-after"] == "10"
    assert len(exchange.desk.calls) == 4, "the router is not asked for nothing"


async def test_options_say_whether_a_call_would_be_taken(exchange: Exchange) -> None:
    caller = await exchange.caller()
    caller.send("OPTIONS")
    assert "retry-after" in await caller.next(503), "there is no line yet"
    line = await exchange.line(capacity=1)
    caller.send("OPTIONS")
    assert "INVITE" in (await caller.next(200))["allow"]
    await exchange.call(await exchange.caller(), line)
    caller.send("OPTIONS")
    await caller.next(503)
    await exchange.line("n1")
    exchange.edges[0].drain()
    caller.send("OPTIONS")
    await caller.next(503)


async def test_a_draining_edge_takes_no_call_but_lets_one_end(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    exchange.edges[0].drain()
    late = await exchange.caller()
    late.send("INVITE", OFFER)
    assert (await late.next(503))["retry-after"] == "30"
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_what_the_router_refuses_is_refused_in_its_words(exchange: Exchange) -> None:
    await exchange.line()
    caller = await exchange.caller()
    said = 'no "such"\r\n\\number'
    exchange.desk.verdict = lambda call: Refuse(404, said, 7)
    caller.send("INVITE", OFFER)
    refusal = await caller.next(404)
    assert refusal["retry-after"] == "7"
    assert refusal["reason"] == r'SIP;cause=404;text="no \"such\"  \\number"'
    assert exchange.desk.refusals[0].reason == 'no "such"  \\number'


@pytest.mark.parametrize(
    ("offer", "extra", "status"),
    [
        (OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 4 101"), (), 488),
        (OFFER.replace("m=audio 40000", "m=audio 0"), (), 488),
        (OFFER.replace("RTP/AVP", "RTP/SAVP"), (), 488),
        ("this is no sdp", (), 488),
        (OFFER, ("Content-Type: text/plain",), 415),
        (OFFER, ("Require: magic, 100rel",), 420),
        (OFFER, ("Proxy-Require: magic",), 420),
        (OFFER, ("Replaces: 1;to-tag=2;from-tag=3",), 403),
        (OFFER + "a=fmtp:0 " + "y" * 16_000 + "\r\n", (), 513),
    ],
)
async def test_an_invite_that_cannot_be_served(
    exchange: Exchange, offer: str, extra: tuple[str, ...], status: int
) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", offer, *extra)
    refusal = await caller.next(status)
    assert refusal.tag("to")
    if status == 420:
        assert refusal["unsupported"] == "magic"
    await line.nothing()
    assert exchange.edges[0].stats()["slots_free"] == 4


@pytest.mark.parametrize(
    ("method", "status"),
    [("REGISTER", 405), ("SUBSCRIBE", 405), ("MESSAGE", 405), ("BYE", 481), ("INFO", 481), ("REFER", 403),
     ("NONSENSE", 501), ("CANCEL", 481)],
)  # fmt: skip
async def test_requests_that_belong_to_no_call(exchange: Exchange, method: str, status: int) -> None:
    caller = await exchange.caller()
    caller.cseq = 1
    caller.branch = "z9hG4bKx"
    caller.send(method)
    refusal = await caller.next(status)
    assert ("allow" in refusal) == (status in (405, 501))


async def test_other_schemes_and_worn_out_requests_are_refused(exchange: Exchange) -> None:
    caller = await exchange.caller()
    caller.write(caller.text("INVITE", OFFER).replace("Max-Forwards: 70", "Max-Forwards: 0"))
    await caller.next(483)
    caller.send("INVITE", OFFER, uri="tel:+1555")
    await caller.next(503)  # a telephone number is fine, there is only no line


async def test_the_same_call_by_another_way_is_a_loop(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    to, caller.to = caller.to, "<sip:demo@127.0.0.1>"
    caller.send("INVITE", OFFER, routes=[], uri="sip:demo@127.0.0.1")
    await caller.next(482)
    caller.to = to
    caller.send("BYE")
    await line.next(method="BYE")


async def test_a_transfer_is_refused_and_the_call_goes_on(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    caller.send("REFER", "", "Refer-To: <sip:victim@example.com>")
    await caller.next(403, "REFER")
    await line.nothing()
    caller.send("INFO", KEY_5, DTMF)
    await line.next(method="INFO")


async def test_wide_callers_get_wide_lines_while_there_are_any(exchange: Exchange) -> None:
    narrow, wide = await exchange.line("n0"), await exchange.line("w0", "wide", capacity=1)
    g722 = OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 9 0 101")
    first, second = await exchange.caller(), await exchange.caller()
    first.send("INVITE", g722)
    await wide.invited()
    second.send("INVITE", g722)
    await narrow.invited()
    third = await exchange.caller()
    third.send("INVITE", OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 9 101"))
    await third.next(503)  # G.722 alone is nothing for a narrow line
