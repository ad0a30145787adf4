"""Keys by RTP on every payload type that a telephone may send them on."""

from __future__ import annotations

import re

import pytest

from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted, KeyPressed
from gateway.ipc.tick import TONES
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import DIGITS, EVENT, RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answered(exchange: RtpExchange, phone: RawPhone, offer: str) -> CallStarted:
    """The call of a phone that offers this SDP."""
    phone.send("INVITE", offer, phone.signed())
    started = await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert (await phone.final()).status == 200
    phone.acknowledge()
    await exchange.hall.hears(CallConfirmed, phone.call_id)
    return started


async def offered(exchange: RtpExchange, phone: RawPhone, answer: str) -> tuple[CallStarted, str]:
    """The call of a phone that has the line make the offer, and answers this; what the line offered."""
    phone.invite(offers=False)
    started = await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    offer = await phone.final()
    phone.acknowledge(answer)
    await exchange.hall.hears(CallConfirmed, phone.call_id)
    return started, offer.body


def on_type(sdp: str, kind: int) -> str:
    """An SDP of ours with telephone-event on another payload type."""
    return sdp.replace(f" {EVENT}\r\n", f" {kind}\r\n").replace(f":{EVENT} ", f":{kind} ")


async def hears_all_keys_once(exchange: RtpExchange, phone: RawPhone, kind: int) -> None:
    for digit in DIGITS:
        phone.press(digit, payload_type=kind)
        assert (await exchange.hall.hears(KeyPressed, phone.call_id)).digit == digit


async def are_told_no_more(exchange: RtpExchange, phone: RawPhone, keys: int) -> None:
    phone.send("INFO", "Signal=7\r\nDuration=160\r\n", content="application/dtmf-relay")
    assert (await exchange.hall.hears(KeyPressed, phone.call_id)).way == "info"
    assert exchange.hall.told_of(phone.call_id).count(KeyPressed) == keys + 1


@pytest.mark.parametrize("kind", [96, 100, 101, 127])
async def test_keys_are_told_on_the_type_of_the_phones_offer(exchange: RtpExchange, kind: int) -> None:
    phone = await exchange.phone()
    await answered(exchange, phone, on_type(phone.offer(), kind))
    await hears_all_keys_once(exchange, phone, kind)
    await are_told_no_more(exchange, phone, 16)


async def test_keys_are_told_on_101_when_no_type_was_agreed(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone = await exchange.phone()
    started = await answered(exchange, phone, phone.offer(keys=False))
    phone.talk(tone(1000, rate_hz=8000))
    assert all(flags & TONES for flags in await hall.hears_ticks(started.call, 5))
    await hears_all_keys_once(exchange, phone, EVENT)
    await are_told_no_more(exchange, phone, 16)
    await hall.hears_ticks(started.call, 20)
    assert is_tone(await hall.hears_bytes(started.call, 3200), 1000, 8000)


@pytest.mark.parametrize("line", ["n0", "w0"])
@pytest.mark.parametrize("kind", [96, 101, 120])
async def test_when_the_line_offers_keys_are_told_on_its_type_and_on_the_phones(
    exchange: RtpExchange, line: str, kind: int
) -> None:
    """RFC 3264 §5.1 wants the type of our offer; some phones send the one that they answered."""
    phone = await exchange.phone(line, "PCMU")
    started, offer = await offered(exchange, phone, on_type(phone.offer(), kind))
    assert re.findall(r"a=rtpmap:(\d+) telephone-event/(\d+)", offer) == [(str(EVENT), "8000")]
    assert re.search(rf"m=audio \d+ RTP/AVP [\d ]*\b{EVENT}\r\n", offer)
    assert not any(flags & TONES for flags in await exchange.hall.hears_ticks(started.call, 5))
    await hears_all_keys_once(exchange, phone, kind)
    await hears_all_keys_once(exchange, phone, EVENT)
    await are_told_no_more(exchange, phone, 32)


async def test_a_reinvite_changes_the_type_and_whether_there_is_one(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    for offer, kind, tones in (
        (on_type(phone.offer(), 97), 97, False),
        (phone.offer(keys=False), EVENT, True),
        (phone.offer(), EVENT, False),
    ):
        phone.send("INVITE", offer)
        assert (await phone.final()).status == 200
        phone.acknowledge()
        await hall.hears_ticks(started.call, 3)
        assert {bool(flags & TONES) for flags in await hall.hears_ticks(started.call, 5)} == {tones}
        phone.press("5", payload_type=kind)
        assert (await hall.hears(KeyPressed, phone.call_id)).digit == "5"
        await hall.hears_ticks(started.call, 10)  # a new stream takes what is left of a press for another
    await are_told_no_more(exchange, phone, 3)
