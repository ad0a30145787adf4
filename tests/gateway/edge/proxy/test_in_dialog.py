"""What a caller may ask within its call, and who may ask it: by our word, or by Call-ID and tags."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.edge.proxy.lines import LineInfo
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, DTMF, OFFER, Caller, Line

HOUSE_TIME = True

G722 = OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 9 101")


async def _wordless(exchange: Exchange, kind: str = "udp") -> tuple[Line, Caller]:
    """A call whose caller asks the address that it dialled, without Route: sipp's `uac`."""
    line, caller = await exchange.line(), await exchange.caller(kind)
    dialled = caller.target
    await exchange.call(caller, line, ack=False)
    caller.target, caller.routes = dialled, []
    return line, caller


async def _called(exchange: Exchange, kind: str = "udp") -> tuple[Line, Caller]:
    line, caller = await exchange.line(), await exchange.caller(kind)
    await exchange.call(caller, line)
    return line, caller


async def _lives(exchange: Exchange, line: Line, caller: Caller) -> None:
    """The call does, and its caller ends it in the usual way."""
    await line.nothing()
    assert exchange.edges[0].stats()["dialogs"] == 1
    assert not exchange.desk.endings
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")
    assert await exchange.desk.ending() == "caller hung up"


# ── whose call ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["udp", "tcp"])
async def test_tags_find_the_call_of_a_peer_that_drops_our_word(exchange: Exchange, kind: str) -> None:
    line, caller = await _wordless(exchange, kind)
    caller.send("ACK")
    await line.next(method="ACK")
    assert exchange.edges[0].stats()["unacknowledged"] == 0
    caller.send("INVITE", OFFER)
    line.reply(await line.next(method="INVITE"), 200, body=ANSWER)
    await caller.next(200)
    caller.send("ACK")
    await line.next(method="ACK")
    await _lives(exchange, line, caller)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO", "ACK"])
async def test_who_knows_the_tags_but_speaks_from_elsewhere_does_nothing(
    exchange: Exchange, host: str, method: str
) -> None:
    line, victim = await _called(exchange)
    villain = await exchange.caller(host=host)
    for name in ("call_id", "own_tag", "to", "cseq"):
        setattr(villain, name, getattr(victim, name))
    own = (
        f"Via: SIP/2.0/UDP 127.0.0.1:{victim.port};branch=z9hG4bKv"  # as if it listened where the victim does
    )
    for via in ("", own):
        villain.send(method, via=via)
    if method != "ACK":
        await villain.next(481, method)
    victim.kept.clear()  # the other 481 went to a port of the villain's own address, which is the victim's
    await _lives(exchange, line, victim)


async def test_a_call_of_before_a_restart_needs_the_word(exchange: Exchange) -> None:
    line, caller = await _wordless(exchange)
    caller.send("ACK")
    await line.next(method="ACK")
    old = exchange.edges[0]
    await old.stop()
    await exchange.edge(port=old.port)
    caller.send("BYE")
    await caller.next(481, "BYE")


@pytest.mark.parametrize("word", [True, False])
@pytest.mark.parametrize("wrong", ["to", "no to", "from", "call-id"])
@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO", "REFER", "OPTIONS", "NOTIFY"])
async def test_a_wrong_tag_ends_nothing(exchange: Exchange, method: str, wrong: str, word: bool) -> None:
    line, caller = await _called(exchange)
    target, routes = (caller.target, caller.routes) if word else ("sip:demo@127.0.0.1", [])
    text = caller.text(method, "", "Event: refer", uri=target, routes=routes)
    caller.cseq -= 1
    changed = {
        "to": (caller.to, caller.to[:-1] + "~"),
        "no to": (caller.to, caller.to.partition(";tag=")[0]),
        "from": (f";tag={caller.own_tag}", f";tag={caller.own_tag}0"),
        "call-id": (f"Call-ID: {caller.call_id}", f"Call-ID: {caller.call_id}0"),
    }[wrong]
    caller.write(text.replace(*changed))
    if wrong != "no to":
        await caller.next(481, method)
    else:  # it is no request within a call
        await asyncio.sleep(0.2)
        assert [said.status for said in caller.kept] != [200] or method == "OPTIONS"
        assert caller.kept
        caller.kept.clear()
    await _lives(exchange, line, caller)


async def test_tags_count_in_an_early_dialog_too(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    line.reply(await line.invited(), 180)
    ringing = await caller.next(180)
    caller.learn(ringing)
    caller.send("BYE", to=caller.to + "x")
    await caller.next(481, "BYE")
    await line.nothing()
    caller.send("BYE")
    await line.next(method="BYE")
    assert await exchange.desk.ending() == "caller hung up"


@pytest.mark.parametrize("word", [True, False])
async def test_an_ack_with_another_tag_acknowledges_nothing(exchange: Exchange, word: bool) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    dialled = caller.target
    await exchange.call(caller, line, ack=False)
    if not word:
        caller.target, caller.routes = dialled, []
    caller.send("ACK", to=caller.to + "x")
    await line.nothing()
    assert exchange.edges[0].stats()["unacknowledged"] == 1
    caller.send("ACK", cseq=2)  # of no INVITE that there was; the line ignores it
    assert (await line.next(method="ACK"))["cseq"] == "2 ACK"
    assert exchange.edges[0].stats()["unacknowledged"] == 1
    caller.send("ACK", cseq=1)
    await line.next(method="ACK")
    assert exchange.edges[0].stats()["unacknowledged"] == 0


async def test_a_prack_is_for_what_waits_for_one(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER, "Require: 100rel")
    invite = await line.invited()
    line.reply(invite, 180, "Require: 100rel", "RSeq: 7")
    caller.learn(await caller.next(180))
    caller.send("PRACK", "", "RAck: 7 1 INVITE")
    prack = await line.next(method="PRACK")
    assert prack["rack"] == "7 1 INVITE"
    line.reply(prack, 200)
    await caller.next(200, "PRACK")
    caller.send("UPDATE", OFFER)  # what a reliable answer has settled may be asked again (RFC 3311 §5.1)
    line.reply(await line.next(method="UPDATE"), 200, body=ANSWER)
    await caller.next(200, "UPDATE")


@pytest.mark.parametrize("wrong", ["branch", "From", "To", "Call-ID", "CSeq"])
async def test_a_cancel_repeats_its_invite_or_cancels_nothing(exchange: Exchange, wrong: str) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER)
    await line.invited()
    await caller.next(100)
    text = caller.text("CANCEL")
    changed = {
        "branch": (f"branch={caller.branch}", f"branch={caller.branch}0"),
        "From": (f"tag={caller.own_tag}", f"tag={caller.own_tag}0"),
        "To": (f"To: {caller.to}", f"To: {caller.to};tag=0"),
        "Call-ID": (f"Call-ID: {caller.call_id}", f"Call-ID: {caller.call_id}0"),
        "CSeq": ("CSeq: 1 ", "CSeq: 2 "),
    }[wrong]
    caller.write(text.replace(*changed))
    await caller.next(481, "CANCEL")
    await line.nothing()
    caller.write(text)
    await caller.next(200, "CANCEL")
    await line.next(method="CANCEL")


# ── in which order ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO", "OPTIONS"])
async def test_an_old_cseq_is_told_so_and_changes_nothing(exchange: Exchange, method: str) -> None:
    line, caller = await _called(exchange)
    caller.cseq = 7
    caller.send("OPTIONS")
    await caller.next(200, "OPTIONS")
    for old in (1, 7, 8):
        caller.send(method, cseq=old)
        await caller.next(500, method)
    await _lives(exchange, line, caller)


async def test_a_repeat_is_not_out_of_order(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    for method, status in (("OPTIONS", 200), ("MESSAGE", 405), ("SUBSCRIBE", 489), ("INFO", 200)):
        text = caller.send(method)
        for _ in range(2):
            await caller.next(status, method)
            caller.write(text)
        await caller.next(status, method)
    text = caller.send("BYE")
    bye = await line.next(method="BYE")
    caller.write(text)
    line.reply(bye, 200)
    await caller.next(200, "BYE")
    caller.write(text)
    await caller.next(200, "BYE")
    await line.nothing()


async def test_our_ack_for_a_caller_who_asked_something_first_is_the_invites(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line, ack=False)
    caller.send("OPTIONS")
    await caller.next(200, "OPTIONS")
    ack, bye = await line.next(method="ACK", within_s=33), await line.next(method="BYE")
    assert (ack["cseq"], bye["cseq"]) == ("1 ACK", "3 BYE")


@pytest.mark.parametrize("second", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("first", ["INVITE", "UPDATE"])
async def test_of_two_offers_at_once_the_second_waits(exchange: Exchange, first: str, second: str) -> None:
    line, caller = await _called(exchange)
    caller.send(first, OFFER)
    asked = await line.next(method=first)
    text = caller.send(second, OFFER)
    branch = caller.branch
    refusal = await caller.next(500, second)
    assert 0 <= int(refusal["retry-after"]) <= 10
    caller.write(text)
    await caller.next(500, second)
    if second == "INVITE":
        caller.send("ACK", branch=branch, cseq=3)
    await line.nothing()
    line.reply(asked, 200, body=ANSWER)
    await caller.next(200, first)
    caller.send("ACK", cseq=2)
    await line.next(method="ACK")
    caller.kept.clear()
    caller.send(second, OFFER)
    line.reply(await line.next(method=second), 200, body=ANSWER)
    await caller.next(200, second)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_an_offer_that_crosses_ours_waits(exchange: Exchange, method: str) -> None:
    line, caller = await _called(exchange)
    line.send("INVITE", ANSWER)
    asked = await caller.next(method="INVITE")
    caller.send(method, OFFER)
    branch = caller.branch
    await caller.next(491, method)
    if method == "INVITE":
        caller.send("ACK", branch=branch)
    await line.nothing()
    caller.reply(asked, 200, f"Contact: <sip:alice@127.0.0.1:{caller.port}>", body=OFFER)
    await line.next(200, "INVITE")
    line.send("ACK", cseq=line.cseq)
    await caller.next(method="ACK")
    caller.send(method, OFFER)
    await line.next(method=method)


async def test_a_refresh_without_an_offer_may_cross_one(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    caller.send("INVITE", OFFER)
    asked = await line.next(method="INVITE")
    caller.send("UPDATE")
    line.reply(await line.next(method="UPDATE"), 200)
    await caller.next(200, "UPDATE")
    line.reply(asked, 200, body=ANSWER)
    await caller.next(200, "INVITE")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("codecs", ["9 101", "4 101", "3", "98 96"])
async def test_a_codec_that_the_line_does_not_speak_is_488_and_the_call_goes_on(
    exchange: Exchange, method: str, codecs: str
) -> None:
    line, caller = await _called(exchange)
    caller.send(method, OFFER.replace("0 8 101", codecs))
    await caller.next(488, method)
    if method == "INVITE":
        caller.send("ACK", branch=caller.branch)
    await _lives(exchange, line, caller)


async def test_a_wide_line_speaks_g722(exchange: Exchange) -> None:
    line, caller = await exchange.line("w0", "wide"), await exchange.caller()
    await exchange.call(caller, line)
    caller.send("INVITE", G722)
    await line.next(method="INVITE")


# ── each method its own answer ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "body", "extra", "status", "header"),
    [
        ("OPTIONS", "", (), 200, "allow"),
        ("OPTIONS", "", (), 200, "accept"),
        ("OPTIONS", "", ("Require: magic",), 420, "unsupported"),
        ("NOTIFY", "", ("Event: refer", "Subscription-State: active"), 489, "allow-events"),
        ("NOTIFY", "", ("o: keep-alive",), 489, "allow-events"),
        ("NOTIFY", "", (), 489, "allow-events"),
        ("SUBSCRIBE", "", ("Event: dialog",), 489, "allow-events"),
        ("SUBSCRIBE", "", ("Event: refer",), 489, "allow-events"),
        ("PUBLISH", "", ("Event: presence",), 405, "allow"),
        ("MESSAGE", "hello", ("Content-Type: text/plain",), 405, "allow"),
        ("REGISTER", "", (), 405, "allow"),
        ("FROBNICATE", "", (), 501, "allow"),
        ("PRACK", "", ("RAck: 1 1 INVITE",), 481, "via"),
        ("INFO", "", (), 200, "via"),
        ("INFO", "", (DTMF,), 200, "via"),
        ("INFO", "", ("Info-Package: g3",), 469, "recv-info"),
        ("INFO", "<x/>", ("Content-Type: application/media_control+xml",), 415, "accept"),
        ("INFO", "<x/>", ("Content-Type: APPLICATION/sdp",), 415, "accept"),
        ("INVITE", "v=0", ("Content-Type: text/plain",), 415, "accept"),
        ("UPDATE", "v=0", ("Content-Type: text/plain",), 415, "accept"),
        ("INFO", "zip", (DTMF, "Content-Encoding: gzip"), 415, "accept-encoding"),
    ],
)  # fmt: skip
async def test_what_no_line_is_asked(
    exchange: Exchange, method: str, body: str, extra: tuple[str, ...], status: int, header: str
) -> None:
    line, caller = await _called(exchange)
    caller.send(method, body, *extra)
    answer = await caller.next(status, method)
    assert header in answer
    assert answer.tag("to") == line.own_tag
    if method == "INVITE":
        caller.send("ACK", branch=caller.branch)
    await _lives(exchange, line, caller)


@pytest.mark.parametrize(
    "kind",
    ["application/dtmf-relay", "Application/DTMF", "audio/telephone-event", "application/dtmf ;x=y"],
)
async def test_keys_go_to_the_line(exchange: Exchange, kind: str) -> None:
    line, caller = await _called(exchange)
    caller.send("INFO", "Signal=5\r\n", f"Content-Type: {kind}")
    info = await line.next(method="INFO")
    assert (info["content-type"], info.body) == (kind, "Signal=5\r\n")
    line.reply(info, 200)
    await caller.next(200, "INFO")


@pytest.mark.parametrize("body", ["Signal=5\r\nSignal=6\r\n", "Signal=\r\n", "nonsense", "Signal=55", " "])
async def test_what_says_no_key_never_reaches_the_line(exchange: Exchange, body: str) -> None:
    line, caller = await _called(exchange)
    caller.send("INFO", body, "Content-Type: application/dtmf-relay")
    await caller.next(400, "INFO")
    await _lives(exchange, line, caller)


async def test_a_hook_flash_is_understood_and_is_no_key(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    caller.send("INFO", "Signal=hf\r\nDuration=100\r\n", "Content-Type: application/dtmf-relay")
    await caller.next(200, "INFO")
    await _lives(exchange, line, caller)


async def test_news_of_our_own_transfer_goes_to_the_line(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    news = ("Event: refer;id=1", "Subscription-State: active", "Content-Type: message/sipfrag")
    line.send("REFER", "", "Refer-To: <sip:other@127.0.0.1>")
    refer = await caller.next(method="REFER")
    caller.send("NOTIFY", "SIP/2.0 100 Trying", *news)  # it may overtake the 202
    line.reply(await line.next(method="NOTIFY"), 200)
    await caller.next(200, "NOTIFY")
    caller.reply(refer, 202)
    await line.next(202, "REFER")
    caller.send("NOTIFY", "SIP/2.0 200 OK", *news)
    line.reply(await line.next(method="NOTIFY"), 200)
    await caller.next(200, "NOTIFY")
    caller.send("NOTIFY", "", "Event: dialog")
    await caller.next(489, "NOTIFY")


async def test_a_line_that_knows_of_no_transfer_means_481(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    line.send("REFER", "", "Refer-To: <sip:other@127.0.0.1>")
    caller.reply(await caller.next(method="REFER"), 202)
    caller.send("NOTIFY", "", "Event: refer")
    line.reply(await line.next(method="NOTIFY"), 481)
    await caller.next(481, "NOTIFY")


async def test_no_news_is_wanted_of_a_transfer_that_was_declined(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    line.send("REFER", "", "Refer-To: <sip:other@127.0.0.1>")
    caller.reply(await caller.next(method="REFER"), 603)
    await line.next(603, "REFER")
    caller.send("NOTIFY", "", "Event: refer")
    await caller.next(489, "NOTIFY")


async def test_after_a_restart_a_ping_tells_whether_the_call_lives(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    assert line.invite is not None
    old = exchange.edges[0]
    await old.stop()
    new = await exchange.edge(port=old.port)
    caller.send("OPTIONS")
    await caller.next(200, "OPTIONS")  # the line has not said hello: it may have the call
    new.line_up(LineInfo("n0", "narrow", line.port, 4, calls=(line.invite["x-vg-call"],)))
    caller.send("OPTIONS")
    await caller.next(200, "OPTIONS")
    new.slot_free("n0", line.invite["x-vg-call"])
    caller.send("OPTIONS")
    await caller.next(481, "OPTIONS")
    await line.nothing()


# ── how much ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_caller_who_floods_its_own_call_can_still_hang_up(exchange: Exchange) -> None:
    line, caller = await _called(exchange)
    for _ in range(100):
        caller.send("OPTIONS")
    await asyncio.sleep(0.05)
    caller.kept.clear()
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_an_ack_may_take_64_t1(exchange: Exchange) -> None:
    """Click to dial (RFC 3725 flow I): who is dialled second picks up after a while."""
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE")
    line.reply(await line.invited(), 200, body=ANSWER)
    caller.learn(await caller.next(200))
    began = time.monotonic()
    await asyncio.sleep(31.5)
    caller.send("ACK", OFFER)
    assert (await line.next(method="ACK")).body == OFFER
    assert time.monotonic() - began < 32
    await asyncio.sleep(5)
    await _lives(exchange, line, caller)
