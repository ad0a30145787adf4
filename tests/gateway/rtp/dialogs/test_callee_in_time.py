"""What a call does when time passes: nobody acknowledges, refreshes, or says anything."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.errors import RpcError
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DialDigits,
    MediaTurned,
    ReferCall,
    RingCall,
)
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.srtp_phone import SrtpPhone

HOUSE_TIME = True
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answered(exchange: RtpExchange, headers: str = "", line: str = "n0") -> RawPhone:
    """A phone whose call is answered, and not acknowledged yet."""
    phone = await exchange.phone(line)
    phone.invite(phone.signed() + headers)
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    return phone


async def up(exchange: RtpExchange, headers: str = "") -> tuple[RawPhone, dict[str, str]]:
    """A phone whose call is up, and the headers of the 200."""
    phone = await answered(exchange, headers)
    answer = await phone.final()
    assert answer.status == 200, answer.start
    phone.acknowledge()
    await exchange.hall.hears(CallConfirmed, phone.call_id)
    return phone, answer.headers


async def test_an_answer_is_repeated_for_half_a_minute_and_then_the_call_is_over(
    exchange: RtpExchange,
) -> None:
    loop = asyncio.get_running_loop()
    phone = await answered(exchange)
    began = loop.time()
    await phone.final()
    bye = await phone.request("BYE", 40.0)
    repeats = sum(1 for message in phone._unread if message.status == 200 and message.method == "INVITE")
    assert 31.5 < loop.time() - began < 33
    assert repeats >= 9  # after .5, 1, 2 s, and then each 4 s (RFC 3261 §13.3.1.4)
    assert "cause=408" in bye.headers["reason"]
    left = await exchange.hall.hears(CallLeft, phone.call_id)
    assert left.how == "failed: the answer was never acknowledged"


async def test_a_session_that_its_caller_does_not_refresh_ends(exchange: RtpExchange) -> None:
    loop = asyncio.get_running_loop()
    phone, said = await up(exchange, "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n")
    assert said["session-expires"] == "90;refresher=uac"
    assert said["require"] == "timer"
    began = loop.time()
    await phone.request("BYE", 100.0)
    assert loop.time() - began == pytest.approx(60, abs=1)  # RFC 4028 §10


async def test_a_session_that_is_refreshed_goes_on(exchange: RtpExchange) -> None:
    phone, _ = await up(exchange, "Supported: timer\r\nSession-Expires: 90\r\n")
    for _ in range(4):
        await asyncio.sleep(45)
        phone.send("UPDATE", headers="Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n")
        assert (await phone.final("UPDATE")).headers["session-expires"] == "90;refresher=uac"
    assert CallLeft not in exchange.hall.told_of(phone.call_id)


async def test_who_cannot_refresh_is_refreshed(exchange: RtpExchange) -> None:
    loop = asyncio.get_running_loop()
    phone, said = await up(exchange, "Session-Expires: 180\r\n")  # a proxy's
    assert said["session-expires"] == "180;refresher=uas"
    began = loop.time()
    for _ in range(3):
        again = await phone.request("INVITE", 100.0)
        assert "m=audio" in again.body
        phone.answer(again, body=phone.offer())
        await phone.request("ACK")
    assert loop.time() - began == pytest.approx(270, abs=2)
    phone.answer(await phone.request("INVITE", 100.0), "481 Call/Transaction Does Not Exist")
    left = await exchange.hall.hears(CallLeft, phone.call_id)
    assert left.how == "failed: the caller did not refresh its session"


async def test_our_refresh_keeps_our_key_and_takes_another_one_of_the_callers(exchange: RtpExchange) -> None:
    phone = await exchange.plugged(SrtpPhone(rule="optional"))
    phone.invite(phone.signed() + "Session-Expires: 180\r\n")
    started = await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await phone.final()
    phone.acknowledge()
    exchange.hall.sounds[started.call] = tone(600, rate_hz=8000)
    phone.talk(tone(440, rate_hz=8000))
    for _ in range(2):
        ours, again = phone.theirs, await phone.request("INVITE", 100.0)
        phone.rekey()
        phone.answer(again, body=phone.offer())
        await phone.request("ACK")
        phone.learn(again.body)  # and seals with its new key from now on
        assert phone.theirs == ours
        await phone.hears_loud()
        await exchange.hall.hears_bytes(started.call, 6400)
        assert is_tone(await exchange.hall.hears_bytes(started.call, 3200), 440, 8000)
    (media,) = exchange.rtp_lines["n0"]._pass.calls.values()
    assert media.srtp is not None
    assert (media.srtp.refused, phone.refused) == (0, 0)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_of_two_offers_that_cross_both_are_refused_and_ours_comes_again(
    exchange: RtpExchange, method: str
) -> None:
    """RFC 3261 §14.2: we do not own the Call-ID, so ours comes again within 2 s."""
    loop = asyncio.get_running_loop()
    phone, _ = await up(exchange, "Session-Expires: 180\r\n")
    waited = set()
    for _ in range(3):
        ours = await phone.request("INVITE", 100.0)
        phone.send(method, phone.offer("sendonly"))
        assert (await phone.final(method)).status == 491
        if method == "INVITE":
            phone.acknowledge()
        phone.answer(ours, "491 Request Pending")
        await phone.request("ACK")
        crossed = loop.time()
        again = await phone.request("INVITE", 100.0)
        waited.add(round(loop.time() - crossed, 2))
        phone.answer(again, body=phone.offer())
        await phone.request("ACK")
    assert MediaTurned not in exchange.hall.told_of(phone.call_id)
    assert max(waited) < 2.2
    assert len(waited) > 1
    await phone.turn("sendonly")
    await exchange.hall.hears(MediaTurned, phone.call_id)


async def test_shorter_sessions_than_we_take_are_refused(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite(phone.signed() + "Supported: timer\r\nSession-Expires: 30\r\n")
    refused = await phone.final()
    phone.acknowledge()
    assert (refused.status, refused.headers["min-se"]) == (422, "90")
    assert not exchange.hall.told_of(phone.call_id)


async def test_ringing_that_must_arrive_is_repeated_until_it_is_known_to_have(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite(phone.signed() + "Require: 100rel\r\n")
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(RingCall(phone.call_id))
    ringing = await phone.response(status=180)
    assert (ringing.headers["rseq"], ringing.headers["require"]) == ("1", "100rel")
    await phone.response(status=180)
    tag = re.search(r"tag=([^;>\s]+)", ringing.headers["to"])
    assert tag is not None
    phone.to_tag = tag[1]
    branch, cseq = phone._branch, phone._cseq
    phone.send("PRACK", headers=f"RAck: 1 {cseq} INVITE\r\n")
    assert (await phone.final("PRACK")).status == 200
    await asyncio.sleep(5)
    assert not [message for message in phone._unread if message.status == 180]
    phone._branch, phone._cseq = branch, cseq  # the ACK is the INVITE's
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert (await phone.final()).status == 200
    phone.acknowledge()
    await exchange.hall.hears(CallConfirmed, phone.call_id)


async def test_a_caller_from_whom_nothing_comes_is_gone_and_one_on_hold_is_not(exchange: RtpExchange) -> None:
    hall = exchange.hall
    await exchange.line("t0", rtp_timeout_s=20.0)
    phone, _ = await exchange.call("t0")
    phone.talk(tone(500, rate_hz=8000))
    await asyncio.sleep(30)
    assert CallLeft not in hall.told_of(phone.call_id)
    phone.hush()
    await phone.turn("sendonly")
    await hall.hears(MediaTurned, phone.call_id)
    await asyncio.sleep(60)
    assert CallLeft not in hall.told_of(phone.call_id)
    await phone.turn("sendrecv")
    left = await hall.hears(CallLeft, phone.call_id, 30.0)
    assert left.how == "failed: no sound came from the caller any more: 20 s"


async def test_an_hour_of_reports_keeps_a_silent_caller(exchange: RtpExchange) -> None:
    """Who leaves silence out sends RTCP (RFC 3550 §6.2)."""
    if "t0" not in exchange.rtp_lines:
        await exchange.line("t0", rtp_timeout_s=20.0)
    phone, _ = await exchange.call("t0")
    for _ in range(30):
        phone.send_rtcp(b"\x80\xc9\x00\x01" + bytes(4))
        await asyncio.sleep(5)
    assert CallLeft not in exchange.hall.told_of(phone.call_id)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("MESSAGE", "", 405), ("OPTIONS", "", 200), ("NOTIFY", "Event: refer\r\n", 481), ("UPDATE", "", 200)],
)
async def test_what_else_is_asked_within_a_call_is_answered(
    exchange: RtpExchange, method: str, headers: str, status: int
) -> None:
    phone, _ = await up(exchange)
    phone.send(method, headers=headers)
    assert (await phone.final(method)).status == status
    phone._cseq -= 1
    phone.send(method, headers=headers)  # its number has been used
    assert (await phone.final(method)).status == 500


async def test_who_asks_for_our_offer_in_the_call_need_not_answer_it(exchange: RtpExchange) -> None:
    phone, _ = await up(exchange)
    phone.send("INVITE")
    answer = await phone.final()
    assert "m=audio" in answer.body
    phone.acknowledge()
    await asyncio.sleep(40)
    assert CallLeft not in exchange.hall.told_of(phone.call_id)


async def test_an_offer_that_leaves_nothing_to_talk_in_changes_nothing(exchange: RtpExchange) -> None:
    phone, _ = await up(exchange)
    phone.send("INVITE", phone.offer().replace("RTP/AVP 0", "RTP/AVP 4"))
    assert (await phone.final()).status == 488
    phone.acknowledge()
    exchange.hall.sound = tone(440, rate_hz=8000)
    await phone.hears_loud()


async def test_before_the_answer_nothing_can_be_offered_or_transferred(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite(phone.signed() + "Require: 100rel\r\n")
    await exchange.hall.hears(CallStarted, phone.call_id)
    with pytest.raises(RpcError, match=f"call {phone.call_id}: it is not up yet"):
        await exchange.hall.ask(ReferCall(phone.call_id, "sip:bob@example.com"))
    with pytest.raises(RpcError, match="no keys"):
        await exchange.hall.ask(DialDigits(phone.call_id, "1"))
    await exchange.hall.ask(RingCall(phone.call_id))
    ringing = await phone.response(status=180)
    tag = re.search(r"tag=([^;>\s]+)", ringing.headers["to"])
    assert tag is not None
    phone.to_tag = tag[1]
    phone.send("UPDATE", phone.offer())
    assert (await phone.final("UPDATE")).status == 500
