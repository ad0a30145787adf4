"""Each refused call is one event for the router: who, whom, from where, which status and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.edge.router import Accept, Refuse, RefusedInvite
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.doors.test_digest import credentials, ha1
from tests.gateway.edge.peers import OFFER


async def told(exchange: Exchange, count: int = 1) -> list[RefusedInvite]:
    """What the router was told so far; `count` events, and no more."""
    assert len(exchange.desk.refusals) == count, exchange.desk.refusals
    return exchange.desk.refusals


@pytest.mark.parametrize(
    ("offer", "extra", "status"),
    [
        (OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 4 101"), (), 488),
        (OFFER, ("Content-Type: text/plain",), 415),
        (OFFER, ("Require: magic",), 420),
        (OFFER, ("Replaces: 1;to-tag=2;from-tag=3",), 403),
        (OFFER, ("Proxy-Require: magic",), 420),
    ],
)
async def test_what_the_edge_refuses_is_told(
    exchange: Exchange, offer: str, extra: tuple[str, ...], status: int
) -> None:
    await exchange.line()
    caller = await exchange.caller()
    caller.send("INVITE", offer, *extra)
    await caller.next(status)
    (refused,) = await told(exchange)
    facts = refused.facts
    assert (refused.status, refused.sip_call_id, refused.call_id) == (status, caller.call_id, None)
    assert refused.reason
    assert (facts.source, facts.transport) == ("127.0.0.1", "udp")
    assert facts.caller.startswith("sip:")
    assert facts.called == caller.target


async def test_a_repeat_is_no_second_call_and_another_call_is(exchange: Exchange) -> None:
    await exchange.line()
    exchange.desk.verdict = lambda call: Refuse(404, "no route", call_id="c1")
    caller = await exchange.caller()
    for _ in range(3):
        caller.send("INVITE", OFFER)  # each with a branch of its own, as one who tries on
        await caller.next(404)
    (refused,) = await told(exchange)
    assert (refused.status, refused.reason, refused.call_id) == (404, "no route", "c1")
    other = await exchange.caller()
    other.send("INVITE", OFFER)
    await other.next(404)
    await told(exchange, 2)


async def test_busy_lines_and_a_draining_edge_are_told(exchange: Exchange) -> None:
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    await caller.next(503)
    exchange.edges[0].drain()
    other = await exchange.caller()
    other.send("INVITE", OFFER)
    await other.next(503)
    assert [refused.reason for refused in await told(exchange, 2)] == ["all lines are busy", "going down"]


async def test_a_call_that_its_line_refuses_has_its_id(exchange: Exchange) -> None:
    line = await exchange.line()
    exchange.desk.verdict = lambda call: Accept("c7")
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    line.reply(await line.invited(), 486)
    await caller.next(486)
    (refused,) = await told(exchange)
    assert (refused.status, refused.call_id) == (486, "c7")


async def test_a_caller_who_gives_up_and_one_who_is_answered_are_not_refused(exchange: Exchange) -> None:
    line = await exchange.line()
    await exchange.call(await exchange.caller(), line)
    exchange.desk.hold()
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    await exchange.desk.asked.wait()
    caller.send("CANCEL")
    await caller.next(487)
    await told(exchange, 0)


async def test_what_is_not_a_call_is_not_told(exchange: Exchange) -> None:
    caller = await exchange.caller()
    for method, status in (("OPTIONS", 503), ("REGISTER", 405), ("MESSAGE", 405), ("BYE", 481)):
        caller.send(method)
        await caller.next(status)
    await told(exchange, 0)


async def test_a_scanner_is_counted_and_not_told(exchange: Exchange) -> None:
    await exchange.line()
    caller = await exchange.caller()
    caller.send("INVITE", OFFER, "User-Agent: friendly-scanner")
    await caller.nothing()
    await told(exchange, 0)
    assert exchange.edges[0].stats()["dropped"]["scanner"] == 1


async def test_a_challenge_is_no_refusal_and_a_wrong_password_is(exchange: Exchange) -> None:
    await exchange.edge(ha1=ha1)
    await exchange.line()
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    challenge = (await caller.next(401))["www-authenticate"]
    await told(exchange, 0)
    for password in ("guessed", "guessed again"):
        wrong = credentials(challenge, password=password)
        caller.send("INVITE", OFFER, f"Authorization: {wrong}")
        await caller.next(401)
    (refused,) = await told(exchange)
    assert (refused.status, refused.reason) == (401, "wrong name or password")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(" INVITE\r\n", " BYE\r\n"),  # CSeq is another method's
        lambda text: text.replace("Contact:", "X-Contact:"),
        lambda text: text.replace("Call-ID:", "i :").replace("From:", "f:").replace("Contact:", "X-Contact:"),
    ],
)
async def test_an_invite_that_cannot_be_read_is_told_with_what_could_be(
    exchange: Exchange, change: Callable[[str], str]
) -> None:
    caller = await exchange.caller()
    for _ in range(2):
        caller.write(change(caller.text("INVITE", OFFER)))
        await caller.next(400)
    (refused,) = await told(exchange)
    assert (refused.status, refused.sip_call_id) == (400, caller.call_id)
    assert refused.reason
    assert "sip:alice@127.0.0.1" in refused.facts.caller
    assert (refused.facts.called, refused.facts.source) == (caller.target, "127.0.0.1")


async def test_the_source_behind_a_trusted_proxy_is_the_callers(exchange: Exchange) -> None:
    await exchange.edge(trusted_proxies=("127.0.0.0/8",))
    caller = await exchange.caller()
    caller.send("INVITE", OFFER, "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKx;received=203.0.113.5")
    await caller.next(503)
    (refused,) = await told(exchange)
    assert refused.facts.source == "203.0.113.5"
