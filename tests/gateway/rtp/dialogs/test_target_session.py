"""A target's session (RFC 4028), and how its sound is told: the phone is caller, edge and target."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.ipc.line_messages import CallLeft, CallTarget, LineQuality, TransferOutcome
from tests.gateway.line.line_harness import silence, tone
from tests.gateway.line.rawphone import Message, RawPhone
from tests.gateway.rtp.dialogs.test_callee_in_time import up
from tests.gateway.rtp.rtp_exchange import RtpExchange

HOUSE_TIME = True
pytestmark = pytest.mark.asyncio(loop_scope="module")
WHO = "Supported: timer\r\n"


async def called(exchange: RtpExchange) -> tuple[RawPhone, Message]:
    """A caller who is up, and the INVITE to its target."""
    phone, _ = await up(exchange)
    await exchange.hall.ask(CallTarget(phone.call_id, "office", 30.0))
    return phone, await phone.request("INVITE")


async def handed_over(exchange: RtpExchange, headers: str) -> tuple[RawPhone, Message]:
    """The same, once the target has answered with these headers."""
    phone, invite = await called(exchange)
    phone.answer(invite, body=phone.offer(), headers=headers)
    await phone.request("ACK")
    assert (await exchange.hall.hears(TransferOutcome, phone.call_id)).status == 200
    return phone, invite


def asks(phone: RawPhone, invite: Message, method: str, headers: str) -> None:
    """A request of the target's within its dialog."""
    to = f"{invite.headers['to']};tag={phone.tag}"
    uri = invite.headers["contact"].strip("<>")
    phone._cseq += 1
    text = (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:{phone.sip_port};branch=z9hG4bK{phone._cseq}t\r\n"
        f"Max-Forwards: 70\r\nFrom: {to}\r\nTo: {invite.headers['from']}\r\n"
        f"Call-ID: {invite.headers['call-id']}\r\nCSeq: {phone._cseq} {method}\r\n"
        f"Contact: <sip:raw@127.0.0.1:{phone.sip_port}>\r\n{headers}Content-Length: 0\r\n\r\n"
    )
    phone._sip.sendto(text.encode(), phone.line)


async def test_we_ask_for_a_session_and_refresh_it_where_the_target_leaves_that_to_us(
    exchange: RtpExchange,
) -> None:
    loop = asyncio.get_running_loop()
    phone, invite = await handed_over(exchange, "Session-Expires: 180;refresher=uac\r\nRequire: timer\r\n")
    assert invite.headers["session-expires"] == "1800"
    assert (invite.headers["supported"], invite.headers["min-se"]) == ("timer", "90")
    began = loop.time()
    for _ in range(2):
        again = await phone.request("INVITE", 100.0)
        assert again.headers["session-expires"] == "1800;refresher=uac"
        assert "m=audio" in again.body
        phone.answer(again, body=phone.offer(), headers="Session-Expires: 180;refresher=uac\r\n")
        await phone.request("ACK")
    assert loop.time() - began == pytest.approx(180, abs=2)
    phone.answer(await phone.request("INVITE", 100.0), "481 Call/Transaction Does Not Exist")
    left = await exchange.hall.hears(CallLeft, phone.call_id)
    assert left.how == "transferred: the target did not refresh its session"


async def test_a_target_that_does_not_refresh_ends_its_callers_call(exchange: RtpExchange) -> None:
    loop = asyncio.get_running_loop()
    phone, invite = await handed_over(exchange, "Session-Expires: 90;refresher=uas\r\n")
    asks(phone, invite, "UPDATE", f"{WHO}Session-Expires: 90;refresher=uac\r\n")
    said = await phone.response("UPDATE")
    assert (said.status, said.headers["session-expires"]) == (200, "90;refresher=uac")
    began = loop.time()
    left = await exchange.hall.hears(CallLeft, phone.call_id, 100.0)
    assert loop.time() - began == pytest.approx(60, abs=1)  # RFC 4028 §10
    assert left.how == "transferred: the target did not refresh its session"


async def test_a_target_without_timers_is_never_refreshed(exchange: RtpExchange) -> None:
    phone, _ = await handed_over(exchange, "")
    with pytest.raises(TimeoutError):
        await phone.request("INVITE", 1000.0)
    assert CallLeft not in exchange.hall.told_of(phone.call_id)


async def test_a_targets_sessions_are_not_shorter_than_we_take(exchange: RtpExchange) -> None:
    phone, invite = await handed_over(exchange, "Session-Expires: 1800;refresher=uas\r\n")
    asks(phone, invite, "UPDATE", f"{WHO}Session-Expires: 30\r\n")
    said = await phone.response("UPDATE")
    assert (said.status, said.headers["min-se"]) == (422, "90")


async def test_of_two_offers_that_cross_ours_comes_again_after_two_seconds(exchange: RtpExchange) -> None:
    loop = asyncio.get_running_loop()
    phone, invite = await handed_over(exchange, "Session-Expires: 180;refresher=uac\r\n")
    ours = await phone.request("INVITE", 100.0)
    asks(phone, invite, "INVITE", WHO)
    assert (await phone.response("INVITE", 491)).status == 491
    phone.answer(ours, "491 Request Pending")
    crossed = loop.time()
    await phone.request("INVITE", 100.0)
    assert 2.05 < loop.time() - crossed < 4.1


async def test_how_a_target_sounds_is_told_while_it_is_there_and_when_it_leaves(
    exchange: RtpExchange,
) -> None:
    phone, invite = await handed_over(exchange, "")
    port = re.search(r"m=audio (\d+)", invite.body)
    assert port is not None
    phone.media = ("127.0.0.1", int(port[1]))
    phone.talk(tone(440, rate_hz=8000))

    def heard_a_second(one: LineQuality) -> bool:  # the first word may come when little has been heard
        return one.target == "office" and one.received > 50

    told = await exchange.hall.hears_quality(phone.call_id, heard_a_second, 30.0)
    assert (told.codec, told.last) == ("PCMU", False)
    await phone._until(lambda: bool(phone.reports), 30.0)  # RTCP goes to the target too
    phone.talk(silence)
    asks(phone, invite, "BYE", "")
    last = await exchange.hall.hears_quality(phone.call_id, lambda one: one.target is not None and one.last)
    assert last.received >= told.received
