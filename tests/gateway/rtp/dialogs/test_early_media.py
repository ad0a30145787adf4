"""Sound before the answer: 183, reliably to who can take that (RFC 3262), plainly to who cannot."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallLeft, CallStarted, ProgressCall, RingCall
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import Message, RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange

HOUSE_TIME = True
pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUIRED, SUPPORTED = "Require: 100rel\r\n", "Supported: timer, 100rel\r\n"


async def early(exchange: RtpExchange, headers: str = "") -> tuple[RawPhone, Message]:
    """A phone that hears something although its call is not taken, and the 183."""
    exchange.hall.sound = tone(440, rate_hz=8_000)
    phone = await exchange.phone()
    phone.invite(phone.signed() + headers)
    await exchange.hall.hears(CallStarted, phone.call_id)
    assert await exchange.hall.ask(ProgressCall(phone.call_id))
    said = await phone.response(status=183)
    tag, port = re.search(r"tag=([^;>\s]+)", said.headers["to"]), re.search(r"m=audio (\d+)", said.body)
    assert tag is not None
    assert port is not None
    phone.to_tag, phone.media = tag[1], (phone.host, int(port[1]))
    return phone, said


async def within(phone: RawPhone, method: str, body: str = "", headers: str = "") -> Message:
    """The answer to a request between the INVITE and its ACK, whose CSeq and branch stay the INVITE's."""
    branch, cseq = phone._branch, phone._cseq
    phone._cseq += 10 + getattr(phone, "_asked", 0)
    phone._asked = getattr(phone, "_asked", 0) + 1  # type: ignore[attr-defined]
    phone.send(method, body, headers)
    answer = await phone.final(method)
    phone._branch, phone._cseq = branch, cseq
    return answer


async def prack(phone: RawPhone, said: Message, body: str = "") -> Message:
    rack = f"RAck: {said.headers['rseq']} {phone._cseq} INVITE\r\n"
    return await within(phone, "PRACK", body, rack)


async def heard_before_the_answer(exchange: RtpExchange, phone: RawPhone) -> None:
    await phone.hears_loud()
    assert is_tone(await phone.hears(0.4), 440, 8_000)
    assert CallConfirmed not in exchange.hall.told_of(phone.call_id)
    assert not [message for message in phone._unread if message.status == 200]


async def taken(exchange: RtpExchange, phone: RawPhone) -> Message:
    answer = await phone.final()
    assert answer.status == 200
    phone.acknowledge()
    await exchange.hall.hears(CallConfirmed, phone.call_id)
    return answer


async def test_a_plain_phone_gets_183_with_sound_and_no_421(exchange: RtpExchange) -> None:
    phone, said = await early(exchange)
    assert "rseq" not in said.headers
    assert "require" not in said.headers
    assert said.headers["contact"]
    await heard_before_the_answer(exchange, phone)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    answer = await taken(exchange, phone)
    assert answer.body == said.body, "RFC 3261 §13.2.1: a description of before the 200 is the one in it"
    assert answer.headers["to"] == said.headers["to"]
    await phone.hears_loud()
    await asyncio.sleep(2)
    assert not [message for message in phone._unread if message.status == 183], "sent once"


@pytest.mark.parametrize("headers", [SUPPORTED, REQUIRED])
async def test_who_can_acknowledge_it_gets_it_until_they_do_and_the_answer_waits(
    exchange: RtpExchange, headers: str
) -> None:
    phone, said = await early(exchange, headers)
    assert said.headers["require"] == "100rel"
    await heard_before_the_answer(exchange, phone)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    again = [await phone.response(status=183) for _ in range(3)]
    assert {each.headers["rseq"] for each in again} == {said.headers["rseq"]}
    assert not [message for message in phone._unread if message.status == 200], "RFC 3262 §3"
    assert (await prack(phone, said)).status == 200
    assert (await taken(exchange, phone)).body == said.body
    assert (await prack(phone, said)).status == 481, "it is known to have arrived"


@pytest.mark.parametrize(
    "rack", ["", "2 1 INVITE", "1 9 INVITE", "1 1 UPDATE", "1 1", "one 1 INVITE", "-1 1 INVITE"]
)
async def test_a_prack_of_something_else_acknowledges_nothing(exchange: RtpExchange, rack: str) -> None:
    phone, said = await early(exchange, SUPPORTED)
    assert phone._cseq == 1
    answer = await within(phone, "PRACK", headers=f"RAck: {rack}\r\n" if rack else "")
    assert answer.status == 481
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await phone.response(status=183)
    assert (await prack(phone, said)).status == 200
    await taken(exchange, phone)


async def test_without_a_prack_the_call_is_refused_after_half_a_minute(exchange: RtpExchange) -> None:
    loop = asyncio.get_running_loop()
    phone, _ = await early(exchange, SUPPORTED)
    began = loop.time()
    async with asyncio.timeout(40):
        while (refused := await phone.response(timeout_s=40.0)).status < 200:
            pass
    assert refused.status == 504
    assert 31.5 < loop.time() - began < 33
    phone.acknowledge()
    left = await exchange.hall.hears(CallLeft, phone.call_id)
    assert left.how == "failed: a provisional answer was never acknowledged"


@pytest.mark.parametrize("headers", ["", SUPPORTED])
async def test_who_gives_up_while_it_hears_something_leaves_nothing(
    exchange: RtpExchange, headers: str
) -> None:
    phone, _ = await early(exchange, headers)
    await phone.hears_loud()
    phone.send("CANCEL", same=True)
    assert (await phone.final("CANCEL")).status == 200
    refused = await phone.final()
    assert refused.status == 487
    phone.acknowledge()
    left = await exchange.hall.hears(CallLeft, phone.call_id)
    assert left.how == "cancelled"
    count = phone.packets
    await asyncio.sleep(1)
    assert phone.packets <= count + 1
    assert not exchange.rtp_lines["n0"]._pass.calls
    assert not [message for message in phone._unread if message.status == 183]


async def test_an_update_turns_the_sound_once_both_know_the_answer(exchange: RtpExchange) -> None:
    phone, said = await early(exchange, SUPPORTED)
    assert (await within(phone, "UPDATE", phone.offer("sendonly"))).status == 500, "RFC 3311 §5.2"
    await prack(phone, said)
    turned = await within(phone, "UPDATE", phone.offer("sendonly"))
    assert turned.status == 200
    assert "a=recvonly" in turned.body
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert "a=recvonly" in (await taken(exchange, phone)).body, "what holds now, not what held first"


async def test_a_prack_may_offer_something_else(exchange: RtpExchange) -> None:
    phone, said = await early(exchange, SUPPORTED)
    answer = await prack(phone, said, phone.offer("sendonly"))
    assert (answer.status, "a=recvonly" in answer.body) == (200, True)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await taken(exchange, phone)


async def test_an_invite_without_an_offer_has_no_sound_before_the_answer(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite(phone.signed() + SUPPORTED, offers=False)
    await exchange.hall.hears(CallStarted, phone.call_id)
    assert not await exchange.hall.ask(ProgressCall(phone.call_id))
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert (await phone.final()).status == 200


async def test_ringing_that_must_arrive_comes_before_the_sound_s_word(exchange: RtpExchange) -> None:
    """RFC 3262 §3: no second reliable response before the first one is acknowledged."""
    phone = await exchange.phone()
    phone.invite(phone.signed() + REQUIRED)
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(RingCall(phone.call_id))
    ringing = await phone.response(status=180)
    assert await exchange.hall.ask(ProgressCall(phone.call_id))
    await phone.response(status=180)
    assert not [message for message in phone._unread if message.status == 183]
    tag = re.search(r"tag=([^;>\s]+)", ringing.headers["to"])
    assert tag is not None
    phone.to_tag = tag[1]
    assert (await prack(phone, ringing)).status == 200
    said = await phone.response(status=183)
    assert int(said.headers["rseq"]) == int(ringing.headers["rseq"]) + 1
    assert (await prack(phone, said)).status == 200


async def test_another_word_of_the_hall_s_says_nothing_twice(exchange: RtpExchange) -> None:
    phone, _ = await early(exchange)
    assert await exchange.hall.ask(ProgressCall(phone.call_id))
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await taken(exchange, phone)
    assert not await exchange.hall.ask(ProgressCall(phone.call_id))
    assert not [message for message in phone._unread if message.status == 183]
