"""One call of a line, from its INVITE to its end, as its telephone and its hall see it."""

from __future__ import annotations

import re

import pytest

from gateway.errors import RpcError
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DialDigits,
    DropCall,
    KeyPressed,
    MediaTurned,
    ReferCall,
    RingCall,
    RtpMoved,
    ShowCaller,
    ShownState,
    TransferOutcome,
)
from gateway.ipc.tick import RECEIVING, SENDING
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import DIGITS, RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ── how calls begin and end ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("status", "heard"), [(None, 480), (404, 404), (603, 603)])
async def test_a_hall_that_will_not_take_a_call_hangs_up_before_the_answer(
    exchange: RtpExchange, status: int | None, heard: int
) -> None:
    phone = await exchange.phone()
    phone.invite()
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(DropCall(phone.call_id, status))
    assert (await phone.final()).status == heard
    phone.acknowledge()
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "hung up"


async def test_a_line_repeats_why_its_hall_hangs_up(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call()
    await exchange.hall.ask(DropCall(phone.call_id, how=CallEnding(End.VOICE_REFUSED, "revoked")))
    await phone.request("BYE")
    how = "failed: the voice may not be used: revoked"
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == how
    assert await exchange.front.hears_end(phone.call_id) == (phone.call_id, how)


@pytest.mark.parametrize("who", ["hall", "front"])
async def test_we_hang_up(exchange: RtpExchange, who: str) -> None:
    phone, _ = await exchange.call()
    if who == "hall":
        await exchange.hall.ask(DropCall(phone.call_id))
    else:
        await exchange.front.hang_up(phone.call_id, "n0")
    await phone.request("BYE")
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "hung up"
    assert await exchange.front.hears_end(phone.call_id) == (phone.call_id, "hung up")
    with pytest.raises(RpcError, match=f"no call {phone.call_id} on n0"):
        await exchange.hall.ask(DropCall(phone.call_id))


async def test_the_caller_hangs_up(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call()
    await phone.hang_up()
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "caller hung up"
    assert await exchange.front.hears_end(phone.call_id) == (phone.call_id, "caller hung up")


@pytest.mark.parametrize("rings", [False, True])
async def test_the_caller_gives_up_before_the_answer(exchange: RtpExchange, rings: bool) -> None:
    phone = await exchange.phone()
    phone.invite()
    await exchange.hall.hears(CallStarted, phone.call_id)
    if rings:
        await exchange.hall.ask(RingCall(phone.call_id))
    phone.send("CANCEL", same=True)
    assert (await phone.final()).status == 487
    phone.acknowledge()
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "cancelled"
    with pytest.raises(RpcError, match="no call"):
        await exchange.hall.ask(AnswerCall(phone.call_id))


async def test_a_caller_who_acknowledges_late_is_confirmed_then(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite()
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await phone.final()
    await phone.response(status=200)  # said again after half a second
    assert exchange.hall.told_of(phone.call_id) == [CallStarted]
    phone.acknowledge()
    await exchange.hall.hears(CallConfirmed, phone.call_id)


async def test_a_caller_who_hangs_up_instead_of_acknowledging_has_hung_up(exchange: RtpExchange) -> None:
    phone = await exchange.phone()
    phone.invite()
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    await phone.final()
    await phone.hang_up()
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "caller hung up"


async def test_a_caller_without_an_offer_gets_ours_and_answers_it_with_the_ack(exchange: RtpExchange) -> None:
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    phone = await exchange.phone()
    phone.invite(offers=False)
    await hall.hears(CallStarted, phone.call_id)
    await hall.ask(AnswerCall(phone.call_id))
    offer = await phone.final()
    assert re.search(r"^m=audio \d+ RTP/AVP 0 8 (18 )?\d+\r$", offer.body, re.MULTILINE)
    phone.acknowledge(phone.offer())
    assert (await hall.hears(CallConfirmed, phone.call_id)).codec == "PCMU"
    await phone.hears_loud()
    assert MediaTurned not in hall.told_of(phone.call_id)


async def test_what_is_asked_twice_or_too_late_changes_nothing(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    await hall.ask(AnswerCall(phone.call_id))
    await hall.ask(RingCall(phone.call_id))
    await hall.ask(ShowCaller(phone.call_id, ShownState("listening")))  # a telephone has no screen
    await hall.hears_ticks(started.call, 3)
    await phone.hang_up()
    assert hall.told_of(phone.call_id)[:2] == [CallStarted, CallConfirmed]


async def test_a_call_that_is_over_is_an_error_that_names_it(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, _ = await exchange.call()
    await phone.hang_up()
    await hall.hears(CallLeft, phone.call_id)
    gone = phone.call_id
    for asked in (AnswerCall(gone), RingCall(gone), DropCall(gone), DialDigits(gone, "1")):
        with pytest.raises(RpcError, match=f"no call {gone} on n0"):
            await hall.ask(asked)


# ── in the call ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_hold_is_told_and_nothing_is_heard_on_it(exchange: RtpExchange) -> None:
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    phone, started = await exchange.call()
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_bytes(started.call, 320)
    for theirs, ours, sending, receiving in (
        ("sendonly", "recvonly", False, True),
        ("inactive", "inactive", False, False),
        ("recvonly", "sendonly", True, False),
        ("sendrecv", "sendrecv", True, True),
    ):
        answer = await phone.turn(theirs)
        assert f"a={ours}\r\n" in answer.body
        assert await hall.hears(MediaTurned) == MediaTurned(phone.call_id, sending, receiving)
        await hall.hears_ticks(started.call, 10)  # what was on its way
        packets = phone.packets
        flags = await hall.hears_ticks(started.call, 10)
        assert {bool(each & SENDING) for each in flags} == {sending}
        assert any(each & RECEIVING for each in flags) == receiving
        assert (phone.packets - packets > 5) == sending


async def test_a_hold_in_the_old_style_is_one(exchange: RtpExchange) -> None:
    """By the address 0.0.0.0 (RFC 2543 §B.5)."""
    phone, _ = await exchange.call()
    phone.send("INVITE", phone.offer().replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0"))
    assert (await phone.final()).status == 200
    phone.acknowledge()
    assert not (await exchange.hall.hears(MediaTurned, phone.call_id)).sending
    await phone.turn("sendrecv")
    turned = await exchange.hall.hears(MediaTurned, phone.call_id)
    assert (turned.sending, turned.receiving) == (True, True)


async def test_a_codec_may_change_in_the_call(exchange: RtpExchange) -> None:
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    phone, started = await exchange.call()
    await phone.hears_loud()
    phone.use("PCMA")
    assert "RTP/AVP 8" in (await phone.turn("sendrecv")).body
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_bytes(started.call, 1600)
    await hall.hears_ticks(started.call, 10)
    assert is_tone(await phone.hears(0.2), 440, 8000)
    assert is_tone(await hall.hears_bytes(started.call, 3200), 1000, 8000)
    phone.use("G722")
    assert (await phone.turn("sendrecv")).status >= 400
    phone.use("PCMA")
    await phone.hears_loud()


async def test_every_key_is_told_once_by_rfc_4733_and_by_info(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call()
    for digit in DIGITS:
        phone.press(digit)
        assert (await exchange.hall.hears(KeyPressed, phone.call_id)).digit == digit
    for digit in ("7", "#"):
        phone.send("INFO", f"Signal={digit}\r\nDuration=160\r\n", content="application/dtmf-relay")
        assert (await phone.final("INFO")).status == 200
        assert (await exchange.hall.hears(KeyPressed, phone.call_id)).digit == digit
    phone.press("1")
    assert (await exchange.hall.hears(KeyPressed, phone.call_id)).digit == "1"
    assert exchange.hall.told_of(phone.call_id).count(KeyPressed) == len(DIGITS) + 3


async def test_a_key_by_info_does_not_overtake_one_by_rtp(exchange: RtpExchange) -> None:
    """Sound is read each 20 ms, SIP at once."""
    phone, _ = await exchange.call()
    for _ in range(10):
        phone.press("1")
        phone.send("INFO", "Signal=2\r\n", content="application/dtmf-relay")
        keys = [await exchange.hall.hears(KeyPressed, phone.call_id) for _ in range(2)]
        assert [(key.digit, key.way) for key in keys] == [("1", "event"), ("2", "info")]


async def test_the_hall_presses_keys(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call()
    await exchange.hall.ask(DialDigits(phone.call_id, "1#D"))
    assert await phone.hears_keys(3) == "1#D"


@pytest.mark.parametrize("digits", ["", "12x", "1 2", "1" * 33, "ü"])
async def test_what_no_telephone_has_keys_for_is_refused(exchange: RtpExchange, digits: str) -> None:
    phone, _ = await exchange.call()
    with pytest.raises(RpcError, match="cannot be dialled: 1 to 32 of 0-9, A-D"):
        await exchange.hall.ask(DialDigits(phone.call_id, digits))


REFERRED = "Event: refer\r\nSubscription-State: "


def notify(phone: RawPhone, status: str) -> None:
    """What the transfer's target said so far (RFC 3515 §2.4.5)."""
    state = "active;expires=60" if status.startswith("1") else "terminated;reason=noresource"
    phone.send("NOTIFY", f"SIP/2.0 {status}\r\n", f"{REFERRED}{state}\r\n", content="message/sipfrag")


async def test_a_transfer_that_is_taken_ends_the_call(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, _ = await exchange.call()
    await hall.ask(ReferCall(phone.call_id, "sip:bob@example.com"))
    refer = await phone.request("REFER")
    assert refer.headers["refer-to"] == "sip:bob@example.com"
    phone.answer(refer, "202 Accepted")
    for status in ("100 Trying", "180 Ringing", "200 OK"):
        notify(phone, status)
        assert (await phone.final("NOTIFY")).status == 200
    assert await hall.hears(TransferOutcome) == TransferOutcome(phone.call_id, 200, "OK")
    await phone.request("BYE")
    assert (await hall.hears(CallLeft, phone.call_id)).how == "transferred"
    assert hall.told_of(phone.call_id).count(TransferOutcome) == 1


async def test_a_transfer_whose_target_is_busy_is_told_and_the_call_goes_on(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    await hall.ask(ReferCall(phone.call_id, "sip:bob@example.com"))
    phone.answer(await phone.request("REFER"), "202 Accepted")
    notify(phone, "486 Busy Here")
    assert await hall.hears(TransferOutcome) == TransferOutcome(phone.call_id, 486, "Busy Here")
    await hall.hears_ticks(started.call, 5)
    await hall.ask(ReferCall(phone.call_id, "sip:carol@example.com"))
    assert (await phone.request("REFER")).headers["refer-to"] == "sip:carol@example.com"


async def test_a_transfer_the_telephone_refuses_is_told_and_the_call_goes_on(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    await hall.ask(ReferCall(phone.call_id, "sip:bob@example.com"))
    phone.answer(await phone.request("REFER"), "405 Method Not Allowed")
    assert (await hall.hears(TransferOutcome, phone.call_id)).status == 405
    await hall.hears_ticks(started.call, 5)


async def test_a_caller_can_neither_transfer_us_nor_take_a_call_over(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    phone.send("REFER", headers="Refer-To: <sip:eve@example.com>\r\n")
    assert (await phone.final("REFER")).status == 603
    eve = await exchange.phone()
    tags = f"to-tag={phone.to_tag};from-tag={phone.tag}"
    eve.invite(f"{eve.signed()}Replaces: {phone.sip_call_id};{tags}\r\n")
    assert (await eve.final()).status == 403
    eve.acknowledge()
    await hall.hears_ticks(started.call, 5)
    assert not hall.told_of(eve.call_id)
    assert hall.told_of(phone.call_id) == [CallStarted, CallConfirmed]


async def test_sound_that_comes_from_elsewhere_is_told(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    phone.talk(tone(1000, rate_hz=8000))
    before = phone.rtp_port
    await hall.hears_bytes(started.call, 1600)
    await phone.move()
    moved = await hall.hears(RtpMoved, phone.call_id)
    assert (moved.was, moved.now) == (f"127.0.0.1:{before}", f"127.0.0.1:{phone.rtp_port}")
    await hall.hears_bytes(started.call, 1600)
