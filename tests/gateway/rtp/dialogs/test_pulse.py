"""When a caller is gone: a class with a clock of its own, and real lines that wait three seconds."""

from __future__ import annotations

import asyncio
import struct
import time

import pytest

from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallLeft, CallStarted, MediaTurned
from gateway.rtp.dialogs.pulse import Pulse
from tests.gateway.line.line_harness import tone
from tests.gateway.rtp.rtp_exchange import RtpExchange

together = pytest.mark.asyncio(loop_scope="module")

GONE_S = 3.0
WHY = "failed: no sound came from the caller any more: 3 s"


def test_silence_counts_from_the_last_packet_or_report() -> None:
    pulse = Pulse()
    assert [pulse.silent_s((0, 0), now) for now in (100.0, 101.0, 102.5)] == [0, 1.0, 2.5]
    assert [pulse.silent_s((50, 0), now) for now in (103.0, 104.0)] == [0, 1.0]
    assert [pulse.silent_s((50, 1), now) for now in (105.0, 106.0)] == [0, 1.0]


def test_a_stream_that_begins_anew_is_a_sign_of_life() -> None:
    pulse = Pulse()
    pulse.silent_s((50, 1), 100.0)
    assert [pulse.silent_s((0, 0), now) for now in (110.0, 111.0)] == [0, 1.0]


def test_a_hold_counts_for_nothing_and_the_time_begins_after_it() -> None:
    pulse = Pulse()
    pulse.silent_s((50, 0), 100.0)
    assert pulse.silent_s(None, 1000.0) == 0
    assert pulse.silent_s(None, 2000.0) == 0
    assert [pulse.silent_s((50, 0), now) for now in (3000.0, 3001.0)] == [0, 1.0]


async def line(exchange: RtpExchange) -> None:
    if "q0" not in exchange.rtp_lines:
        await exchange.line("q0", "narrow", rtp_timeout_s=GONE_S)


@together
async def test_a_caller_who_vanishes_or_never_spoke_is_let_go(exchange: RtpExchange) -> None:
    await line(exchange)
    for speaks in (True, False):
        phone, started = await exchange.call("q0")
        since = time.monotonic()
        if speaks:
            phone.talk(tone(1000, rate_hz=8000))
            await exchange.hall.hears_ticks(started.call, 200)  # longer than it waits
            phone.hush()
            since = time.monotonic()
        await phone.request("BYE", 15.0)
        assert time.monotonic() - since > GONE_S - 1.1  # it is looked for once a second
        assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == WHY
        assert (await exchange.front.hears_end(phone.call_id))[1] == WHY
        assert exchange.hall.told_of(phone.call_id) == [CallStarted, CallConfirmed, CallLeft]
    for _ in range(4):
        await exchange.call("q0")


@together
async def test_comfort_noise_and_rtcp_are_signs_of_life_and_a_word_now_and_then_is(
    exchange: RtpExchange,
) -> None:
    await line(exchange)
    phones = [(await exchange.call("q0"))[0] for _ in range(3)]
    noise, reports, word = phones
    for _ in range(7):
        noise.send_rtp(b"\x40", payload_type=13)
        noise.timestamp += 8000
        reports.send_rtcp(struct.pack(">BBHIIIIIII", 0x81, 201, 7, reports.ssrc, 1, 0, 0, 0, 0, 0))
        word.send_rtp(bytes(160))
        await asyncio.sleep(0.75)
    told = [exchange.hall.told_of(phone.call_id) for phone in phones]
    assert told == [[CallStarted, CallConfirmed]] * 3
    for phone in phones:
        await phone.request("BYE", 15.0)
        assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == WHY


@together
async def test_who_is_held_or_only_listens_may_be_silent(exchange: RtpExchange) -> None:
    """Held in all three ways, and a phone that offered recvonly."""
    hall = exchange.hall
    await line(exchange)
    held = [(await exchange.call("q0"))[0] for _ in range(3)]
    listener = await exchange.phone("q0")
    listener.send("INVITE", listener.offer("recvonly"), listener.signed())
    await hall.hears(CallStarted, listener.call_id)
    await hall.ask(AnswerCall(listener.call_id))
    assert (await listener.final()).status == 200
    listener.acknowledge()
    await held[0].turn("sendonly")
    await held[1].turn("inactive")
    held[2].send("INVITE", held[2].offer().replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0"))
    await held[2].final()
    held[2].acknowledge()
    await asyncio.sleep(GONE_S + 2.5)
    assert not any(CallLeft in hall.told_of(phone.call_id) for phone in (*held, listener))
    since = time.monotonic()
    await held[0].turn("sendrecv")
    assert MediaTurned in hall.told_of(held[0].call_id)
    await held[0].request("BYE", 15.0)
    assert time.monotonic() - since > GONE_S - 1.1
    assert (await hall.hears(CallLeft, held[0].call_id)).how == WHY


@together
async def test_a_line_that_was_told_no_time_waits_for_ever(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call("n0")
    await asyncio.sleep(GONE_S + 2.5)
    assert exchange.hall.told_of(phone.call_id) == [CallStarted, CallConfirmed]
