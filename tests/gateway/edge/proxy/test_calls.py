"""A call through the edge, from INVITE to BYE, in both directions and over both transports."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from gateway.edge.proxy import forwarding
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, BOOT, DTMF, KEY_5, OFFER

HOUSE_TIME = True


async def test_a_line_gets_a_lean_signed_invite(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    forged = ("X-VG-Auth: forged", "X-VG-Call: forged", "X-VG-SRTP: optional")
    caller.send("INVITE", OFFER, *forged, "Subject: " + "long " * 500)
    invite = await line.invited()
    assert len(invite.all("via")) == 1
    assert "subject" not in invite
    assert invite["max-forwards"] == "69"
    proof = f"{invite['x-vg-call']}|{caller.call_id}|off".encode()
    assert invite.all("x-vg-srtp") == ["off"]
    assert invite.all("x-vg-auth") == [hmac.new(BOOT.encode(), proof, hashlib.sha256).hexdigest()]
    assert invite.body == OFFER


async def test_the_answer_says_our_address_and_offers_no_transfers(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER, "Record-Route: <sip:10.0.0.9;lr>")
    extra = ("Allow: INVITE, REFER, SUBSCRIBE", "Supported: replaces, 100rel, norefersub")
    line.reply(await line.invited(), 200, *extra, body=ANSWER)
    answer = await caller.next(200)
    port = exchange.edges[0].port
    assert answer["contact"].startswith(f"<sip:127.0.0.1:{port};vg=")
    assert answer.all("record-route")[0].startswith(f"<sip:127.0.0.1:{port};lr;vg=")
    assert answer.all("record-route")[1] == "<sip:10.0.0.9;lr>"
    assert f"rport={caller.port};received=127.0.0.1" in answer["via"].replace(";branch", " ;branch")
    assert "REFER" not in answer["allow"]
    assert answer["supported"] == "100rel"
    assert answer.body == ANSWER


async def test_a_call_is_acknowledged_and_hung_up_by_the_caller(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    assert exchange.edges[0].stats()["slots_free"] == 3
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")
    assert exchange.edges[0].stats()["slots_free"] == 4, "at once"
    assert exchange.edges[0].stats()["dialogs"] == 0
    assert not exchange.desk.endings, "the line has its BYE before anybody can tell it to hang up"
    assert await exchange.desk.ending() == "caller hung up"


async def test_a_line_that_hangs_up_waits_for_nobody(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    line.send("BYE")
    await line.next(200, "BYE")  # although the caller has not answered yet
    assert await exchange.desk.ending() == "hung up"
    bye = await caller.next(method="BYE")
    assert bye.tag("to") == caller.own_tag
    assert "route" not in bye
    caller.reply(bye, 200)


async def test_an_unanswered_bye_is_repeated_to_the_caller(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    line.send("BYE")
    first, again = await caller.next(method="BYE"), await caller.next(method="BYE")
    assert first["via"] == again["via"]


async def test_a_repeated_invite_is_answered_here(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    text = caller.send("INVITE", OFFER)
    invite = await line.invited()
    await caller.next(100)
    caller.write(text)
    await caller.next(100)
    line.reply(invite, 180)
    await caller.next(180)
    caller.write(text)
    await caller.next(180)
    await line.nothing()


async def test_a_repeated_answer_goes_through_until_it_is_acknowledged(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line, ack=False)
    assert line.invite is not None
    line.reply(line.invite, 200, body=ANSWER)
    await caller.next(200)
    for _ in range(2):  # each 200 gets its ACK, and each ACK goes to the line
        caller.send("ACK")
        await line.next(method="ACK")


async def test_a_refusal_is_acknowledged_hop_by_hop_and_repeated_until_then(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    branch = caller.branch
    line.reply(await line.invited(), 486)
    ack = await line.next(method="ACK")
    assert ack["cseq"] == "1 ACK"
    refusal, again = await caller.next(486), await caller.next(486)
    assert again.at - refusal.at > 0.4
    assert await exchange.desk.ending() == "failed: the line answered 486"
    caller.send("ACK", branch=branch, to=refusal["to"])
    caller.kept.clear()
    await caller.nothing(1.2)
    assert not [said for said in line.kept if said.method == "ACK"]


async def test_a_cancel_before_the_router_has_decided(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    exchange.desk.hold()
    caller.send("INVITE", OFFER)
    await exchange.desk.asked.wait()
    caller.send("CANCEL")
    await caller.next(200, "CANCEL")
    await caller.next(487, "INVITE")
    exchange.desk.thinking.set()
    assert await exchange.desk.ending() == "cancelled"
    await line.nothing()
    assert exchange.edges[0].stats()["slots_free"] == 4


async def test_a_cancel_waits_until_the_line_has_said_something(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    invite = await line.next(method="INVITE")
    cancel = caller.send("CANCEL")
    caller.write(cancel)
    await caller.next(200, "CANCEL")
    await caller.next(200, "CANCEL")
    await line.nothing()
    line.reply(invite, 180)
    cancelled = await line.next(method="CANCEL")
    assert cancelled["via"] == invite["via"]
    line.reply(cancelled, 200)
    line.reply(invite, 487)
    await line.next(method="ACK")
    await caller.next(487, "INVITE")
    assert await exchange.desk.ending() == "cancelled"
    await line.nothing()


async def test_an_answer_that_crosses_a_cancel_is_an_answer(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    invite = await line.invited()
    caller.send("CANCEL")
    cancelled = await line.next(method="CANCEL")
    line.reply(invite, 200, body=ANSWER)
    line.reply(cancelled, 481)
    answer = await caller.next(200, "INVITE")
    caller.learn(answer)
    caller.send("ACK")
    await line.next(method="ACK")
    caller.send("BYE")
    await line.next(method="BYE")
    assert await exchange.desk.ending() == "caller hung up"


async def test_a_late_cancel_changes_nothing(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    branch = caller.branch
    line.reply(await line.invited(), 200, body=ANSWER)
    caller.learn(await caller.next(200))
    caller.send("ACK")
    await line.next(method="ACK")
    caller.send("CANCEL", branch=branch, to="<sip:demo@127.0.0.1>")
    await caller.next(200, "CANCEL")
    await line.nothing()


async def test_a_caller_without_an_offer_gets_one(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE")
    line.reply(await line.invited(), 200, body=ANSWER)
    caller.learn(await caller.next(200))
    caller.send("ACK", OFFER)
    assert (await line.next(method="ACK")).body == OFFER


async def test_hold_goes_to_the_line_and_its_answer_back(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    caller.send("INVITE", OFFER + "a=sendonly\r\n")
    again = await line.next(method="INVITE")
    assert "a=sendonly" in again.body
    assert again.uri == f"sip:127.0.0.1:{line.port};ob"
    assert "x-vg-auth" not in again
    line.reply(again, 200, body=ANSWER + "a=recvonly\r\n")
    answer = await caller.next(200)
    assert "a=recvonly" in answer.body
    assert "record-route" not in answer
    caller.send("ACK")
    assert (await line.next(method="ACK"))["cseq"] == "2 ACK"


async def test_a_line_may_ask_too(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    line.send("INVITE", ANSWER)
    asked = await caller.next(method="INVITE")
    assert asked["contact"].startswith(f"<sip:127.0.0.1:{exchange.edges[0].port};vg=")
    caller.reply(asked, 200, f"Contact: <sip:moved@127.0.0.1:{caller.port}>", body=OFFER)
    answer = await line.next(200, "INVITE")
    assert answer["contact"] == f"<sip:moved@127.0.0.1:{caller.port}>"
    line.send("ACK", cseq=line.cseq)
    assert (await caller.next(method="ACK"))["cseq"] == asked["cseq"].replace("INVITE", "ACK")


async def test_a_callers_refusal_of_a_lines_request_is_acknowledged(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    line.send("INVITE", ANSWER)
    asked = await caller.next(method="INVITE")
    caller.reply(asked, 491)
    assert (await caller.next(method="ACK"))["via"] == asked["via"]
    await line.next(491, "INVITE")
    line.send("ACK", cseq=line.cseq, branch=line.branch)
    await caller.nothing()


async def test_proxies_in_front_stay_on_the_way(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line, "Record-Route: <sip:10.0.0.9;lr>, <sip:10.0.0.8;lr>")
    line.send("BYE")
    assert (await caller.next(method="BYE")).all("route") == ["<sip:10.0.0.9;lr>, <sip:10.0.0.8;lr>"]


async def test_a_call_over_tcp_uses_its_connection_both_ways(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller("tcp")
    answer = await exchange.call(caller, line)
    assert ";transport=tcp;" in answer["contact"]
    line.send("INFO")
    caller.reply(await caller.next(method="INFO"), 200)
    await line.next(200, "INFO")
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_a_connection_that_breaks_takes_no_call_with_it(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller("tcp")
    await exchange.call(caller, line)
    caller.close()
    other = await exchange.caller("tcp")
    for name in ("call_id", "own_tag", "to", "target", "routes", "cseq"):
        setattr(other, name, getattr(caller, name))
    other.send("INFO", KEY_5, DTMF)
    line.reply(await line.next(method="INFO"), 200)
    await other.next(200, "INFO")
    line.send("BYE")  # goes to where the caller was heard last
    await line.next(200, "BYE")
    await other.next(method="BYE")


async def test_a_caller_that_is_nowhere_any_more_frees_its_slot(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller("tcp")
    await exchange.call(caller, line)
    line.send("INFO")
    await caller.next(method="INFO")
    caller.close()
    await line.next(408, "INFO", within_s=1)  # not after 32 s
    line.send("INFO")
    await line.next(481, "INFO")
    line.send("BYE")
    await line.next(200, "BYE")
    assert await exchange.desk.ending() == "hung up"
    assert exchange.edges[0].stats()["slots_free"] == 4


async def test_a_line_that_says_nothing_is_given_up(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "INVITE_WITHIN_S", 0.3)
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    invite = await line.next(method="INVITE")
    refusal = await caller.next(503)
    assert refusal["retry-after"] == "5"
    assert await exchange.desk.ending() == "failed: the line does not answer"
    line.reply(invite, 200, body=ANSWER)  # too late: it is told so
    await line.next(method="ACK")
    await line.next(method="BYE")


async def test_old_clients_without_a_branch_are_told_apart(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    other = await exchange.caller()
    other.transport.close()
    other.transport, other.port = caller.transport, caller.port
    for phone in (caller, other):
        phone.send("INVITE", OFFER, via=f"Via: SIP/2.0/UDP 127.0.0.1:{caller.port}")
    seen = {(await line.invited())["call-id"], (await line.invited())["call-id"]}
    assert seen == {caller.call_id, other.call_id}


async def test_two_at_once_do_not_mix(exchange: Exchange) -> None:
    line = await exchange.line()
    callers = [await exchange.caller() for _ in range(2)]
    for caller in callers:
        await exchange.call(caller, line)
    callers[0].send("BYE")
    assert (await line.next(method="BYE"))["call-id"] == callers[0].call_id
    assert exchange.edges[0].stats()["dialogs"] == 1
