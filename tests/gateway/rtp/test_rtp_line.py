"""A line's sound: what a telephone says reaches the hall in ticks, and what the hall answers is heard."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise

import pytest

from gateway.config import bcg729
from gateway.ipc.line_messages import CallLeft, MediaTurned
from gateway.ipc.tick import RECEIVING, SENDING, UNDERRUN
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import Coder
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.needs import HANGS_S, missing

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEVELS = [Coder("PCMU").decode(bytes([code]) * 160) for code in range(0x80, 0xA8)]
"""Frames that PCMU carries unchanged, each of another level, loudest first."""
SILENCE = bytes(320)


@pytest.mark.parametrize(
    ("line", "codec", "rate_hz"),
    [
        ("n0", "PCMU", 8000),
        ("n0", "PCMA", 8000),
        ("w0", "G722", 16_000),
        ("w0", "PCMU", 16_000),
        ("w0", "OPUS", 16_000),
        ("n0", "G729", 8000),
    ],
)
async def test_sound_goes_both_ways_at_the_lines_rate(
    exchange: RtpExchange, line: str, codec: str, rate_hz: int
) -> None:
    if codec == "G729" and bcg729.library() is None:
        missing(f"G.729 needs bcg729: apt-get install {bcg729.PACKAGE}")
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=rate_hz)
    phone, started = await exchange.call(line, codec)
    phone.talk(tone(1000, rate_hz=phone.coder.rate_hz))
    await hall.hears_bytes(started.call, rate_hz // 5)
    ours, theirs, flags = await asyncio.gather(
        hall.hears_bytes(started.call, 3 * rate_hz // 5),  # 0.3 s
        phone.hears(0.3),
        hall.hears_ticks(started.call, 15),
    )
    assert is_tone(ours, 1000, rate_hz)
    assert is_tone(theirs, 440, phone.coder.rate_hz)
    assert all(each & SENDING for each in flags)
    assert any(each & RECEIVING for each in flags)


async def test_four_calls_at_once_do_not_hear_each_other(exchange: RtpExchange) -> None:
    hall = exchange.hall
    calls = [await exchange.call() for _ in range(4)]
    for k, (phone, started) in enumerate(calls):
        hall.sounds[started.call] = tone(300 + 100 * k, rate_hz=8000)
        phone.talk(tone(1000 + 100 * k, rate_hz=8000))
    await hall.hears_ticks(calls[3][1].call, 15)
    ours = await asyncio.gather(*(hall.hears_bytes(started.call, 4800) for _, started in calls))
    theirs = await asyncio.gather(*(phone.hears(0.3) for phone, _ in calls))
    for k in range(4):
        assert is_tone(ours[k], 1000 + 100 * k, 8000)
        assert is_tone(theirs[k], 300 + 100 * k, 8000)


async def test_frames_arrive_whole_once_in_order_and_each_is_counted_as_played(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    at = hall.said(started.call)
    hall.sounds[started.call] = lambda n: LEVELS[n - at] if 0 <= n - at < len(LEVELS) else b""
    await phone.hears(len(LEVELS) * 0.02 + 0.3)
    heard = [frame for frame in phone.frames() if frame != SILENCE]
    order = [LEVELS.index(frame) for frame in heard]
    assert all(a < b for a, b in pairwise(order))
    assert len(order) > len(LEVELS) // 2
    await hall.hears_ticks(started.call, 3)
    assert hall.played[started.call] == 160 * len(heard)


async def test_silence_is_not_counted_as_played_and_is_no_underrun(exchange: RtpExchange) -> None:
    phone, started = await exchange.call()
    flags = await exchange.hall.hears_ticks(started.call, 20)
    assert exchange.hall.played[started.call] == 0
    assert sum(bool(each & UNDERRUN) for each in flags) < 10
    assert not any(phone.pcm)


async def test_a_hall_that_does_not_answer_is_an_underrun_and_silence(exchange: RtpExchange) -> None:
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    phone, started = await exchange.call()
    await phone.hears_loud()
    hall.silent = True
    await hall.hears_ticks(started.call, 10)
    played, count = hall.played[started.call], len(phone.frames())
    late = exchange.rtp_lines["n0"].ticks_late
    flags = await hall.hears_ticks(started.call, 20)
    late = exchange.rtp_lines["n0"].ticks_late - late  # one word for all frames that are sent together
    assert sum(bool(each & UNDERRUN) for each in flags) >= 20 - late > 0
    assert hall.played[started.call] == played
    assert set(phone.frames()[count:]) == {SILENCE}
    hall.silent = False
    await phone.hears_loud()


async def test_after_a_stall_no_frame_is_missing_and_none_is_late(exchange: RtpExchange) -> None:
    """Frames are numbered by their level; the test's own process is the line's, so it stalls with it."""
    hall = exchange.hall
    phone, started = await exchange.call()
    at = hall.said(started.call)
    hall.sounds[started.call] = lambda n: LEVELS[(n - at) % len(LEVELS)]
    await phone.hears_loud()
    count = len(phone.frames())
    for _ in range(3):
        time.sleep(0.07)  # noqa: ASYNC251
        await hall.hears_ticks(started.call, 10)
    heard = [LEVELS.index(frame) for frame in phone.frames()[count:]]
    steps = Counter((b - a) % len(LEVELS) for a, b in pairwise(heard))
    assert steps[1] >= sum(steps.values()) - 2, steps
    behind = hall.said(started.call) - at - 1 - heard[-1]
    assert behind % len(LEVELS) <= 2


async def test_what_is_said_on_hold_is_not_counted_as_played(exchange: RtpExchange) -> None:
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    phone, started = await exchange.call()
    await phone.hears_loud()
    await hall.hears_ticks(started.call, 2)  # the tick after it counts it
    assert hall.played[started.call] > 0
    await phone.turn("sendonly")
    await hall.hears(MediaTurned, phone.call_id)
    await hall.hears_ticks(started.call, 5)
    held = hall.played[started.call]
    await hall.hears_ticks(started.call, 10)
    assert hall.played[started.call] == held
    await phone.turn("sendrecv")
    await hall.hears(MediaTurned, phone.call_id)
    await hall.hears_ticks(started.call, 10)
    assert hall.played[started.call] > held


async def test_answers_of_a_late_hall_do_not_pile_up(exchange: RtpExchange) -> None:
    """Of many at once the first two are owed, five wait, and the rest is too old."""
    hall = exchange.hall
    phone, started = await exchange.call()
    hall.silent = True
    await hall.hears_ticks(started.call, 10)
    hall.say_at_once(started.call, LEVELS[:20])
    await hall.hears_ticks(started.call, 20)
    heard = [LEVELS.index(frame) for frame in phone.frames() if frame != SILENCE]
    assert heard[-5:] == [15, 16, 17, 18, 19]
    assert len(heard) <= 5 + 3  # one more when the clock's turn came while we spoke


async def test_a_delay_ends_with_the_halls_next_silence(exchange: RtpExchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    hall.silent = True
    await hall.hears_ticks(started.call, 10)
    hall.say_at_once(started.call, [*LEVELS[:5], b"", b"", LEVELS[5]])
    await hall.hears_ticks(started.call, 15)
    frames = phone.frames()
    assert frames.index(LEVELS[5]) == frames.index(LEVELS[4]) + 1


async def test_an_answer_on_its_way_cannot_speak_into_the_slots_next_call(exchange: RtpExchange) -> None:
    hall = exchange.hall
    before, ended = await exchange.call()
    await before.hang_up()
    await hall.hears(CallLeft, before.call_id)
    phone, started = await exchange.call()
    assert (started.slot, started.call) == (ended.slot, ended.call + 1)
    hall.misnamed[started.call] = ended.call
    hall.sound = tone(440, rate_hz=8000)
    await hall.hears_ticks(started.call, 15)
    assert not any(phone.pcm)
    assert hall.played[started.call] == 0
    hall.misnamed.clear()
    await phone.hears_loud()


async def test_a_hall_that_reads_no_ticks_costs_ticks_and_its_next_has_the_calls(
    exchange: RtpExchange,
) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_bytes(started.call, 1600)
    line = exchange.rtp_lines["n0"]
    hall.look_away(started.call)
    async with asyncio.timeout(HANGS_S):
        while not line.ticks_dropped:
            await phone.hears(0.1)  # it goes on sending, in silence
    await hall.stop()
    await exchange.new_hall()
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    await phone.hears_loud()
    await hall.hears_bytes(started.call, 1600)


@pytest.mark.parametrize("size", [2, 318, 322, 640])
async def test_a_frame_of_another_length_is_not_played(exchange: RtpExchange, size: int) -> None:
    phone, started = await exchange.call()
    exchange.hall.sounds[started.call] = lambda _: b"\x55" * size
    await exchange.hall.hears_ticks(started.call, 10)
    assert not any(phone.pcm)
    assert exchange.hall.played[started.call] == 0


@pytest.mark.parametrize("packet", [b"x", b"no tick at all", bytes(7), b"\x54\x76" + bytes(4) + b"\xff\x00"])
async def test_a_packet_that_is_no_tick_is_dropped_and_the_next_one_heard(
    exchange: RtpExchange, packet: bytes
) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    await hall.hears_ticks(started.call, 3)
    hall.garble(started.call, packet)
    hall.sound = tone(440, rate_hz=8000)
    await phone.hears_loud()
    await hall.hears_ticks(started.call, 3)
