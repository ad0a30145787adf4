"""What a SIP line promises to the house, an RTP line keeps: the same tests, in the same exchange.

Where the two differ (an RTP line sends what comes late at once, as web lines do), the test is of this module.
"""

from __future__ import annotations

import asyncio

import pytest

from gateway.ipc.line_messages import CallLeft, CallStarted, MediaTurned, StopLine
from tests.gateway.line.exchange import Exchange
from tests.gateway.line.line_harness import tone
from tests.gateway.line.test_bridge import (  # noqa: F401  # run here, with this folder's exchange
    LEVELS,
    SILENCE,
    test_a_frame_of_another_length_is_not_played,
    test_a_hall_that_does_not_answer_is_an_underrun_and_silence,
    test_a_packet_that_is_no_tick_is_dropped_and_the_next_one_heard,
    test_an_answer_on_its_way_cannot_speak_into_the_slots_next_call,
    test_four_calls_at_once_do_not_hear_each_other,
    test_frames_arrive_whole_once_in_order_and_each_is_counted_as_played,
    test_silence_is_not_counted_as_played_and_is_no_underrun,
    test_sound_goes_both_ways_at_the_lines_rate,
)
from tests.gateway.line.test_keys import (  # noqa: F401  # run here, with this folder's exchange
    test_a_reinvite_changes_the_type_and_whether_there_is_one,
    test_keys_are_told_on_101_when_no_type_was_agreed,
    test_keys_are_told_on_the_type_of_the_phones_offer,
    test_when_the_line_offers_keys_are_told_on_its_type_and_on_the_phones,
)
from tests.gateway.line.test_sip import (  # noqa: F401  # run here, with this folder's exchange
    test_a_call_signed_by_the_edge_waits_for_the_hall_and_is_answered_when_it_says_so,
    test_a_call_the_edge_did_not_sign_is_forbidden,
    test_a_codec_the_line_has_not_is_not_acceptable,
    test_a_flood_of_calls_leaves_no_slot_taken,
    test_a_flood_of_forged_calls_harms_no_call_that_is_up,
    test_a_hall_that_comes_back_is_told_its_calls_and_takes_them_up,
    test_a_hall_that_stays_away_loses_its_calls,
    test_a_second_call_of_a_living_calls_name_is_refused_and_the_living_one_unharmed,
    test_the_fifth_call_is_busy_and_a_slot_that_is_free_again_is_taken_again,
    test_who_comes_the_moment_a_caller_goes_is_not_hung_up_with_them,
    test_without_a_front_calls_go_on_and_a_new_one_is_told_of_them,
)
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_line_that_stops_takes_no_calls_says_bye_and_ends(exchange: RtpExchange) -> None:
    hall = exchange.hall
    await exchange.line("n1")
    phone, _ = await exchange.call("n1")
    rings, late = await exchange.phone("n1"), await exchange.phone("n1")
    rings.invite()
    await hall.hears(CallStarted, rings.call_id)
    phone.deaf = True  # else the line would be gone before it can refuse the next one
    await exchange.front.lines["n1"].ask(StopLine())
    assert (await rings.final()).status == 480
    rings.acknowledge()
    await phone.request("BYE")
    assert (await late.invited()).status == 503
    assert not hall.told_of(late.call_id)
    await asyncio.wait_for(exchange.tasks["n1"], HANGS_S)
    assert (await hall.hears(CallLeft, phone.call_id)).how == "failed: the gateway was stopped"


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


async def test_what_is_said_on_hold_is_not_counted_as_played(exchange: Exchange) -> None:
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


async def test_answers_of_a_late_hall_do_not_pile_up(exchange: Exchange) -> None:
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


async def test_a_delay_ends_with_the_halls_next_silence(exchange: Exchange) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    hall.silent = True
    await hall.hears_ticks(started.call, 10)
    hall.say_at_once(started.call, [*LEVELS[:5], b"", b"", LEVELS[5]])
    await hall.hears_ticks(started.call, 15)
    frames = phone.frames()
    assert frames.index(LEVELS[5]) == frames.index(LEVELS[4]) + 1
