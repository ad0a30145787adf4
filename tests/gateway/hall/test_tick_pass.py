"""The pass over all calls: late ticks, lost ticks, and errors that stay with their call."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse, Say
from gateway.ipc import tick
from tests.gateway.hall.virtual_hall import House, Phone

HOUSE_TIME = True

LONG = Say(text=" ".join(["word"] * 100))


async def speaking(house: House, line: str = "n0", rate_hz: int = 8_000) -> Phone:
    phone = await house.ring(Answer(), LONG, line=line, rate_hz=rate_hz)
    await house.until(lambda: phone.heard_s() > 0.5)
    return phone


async def test_late_ticks_are_answered_with_the_newest_only(house: House) -> None:
    await speaking(house)
    line = house.lines["n0"]
    house.stuck = True
    await asyncio.sleep(0.105)
    house.stuck = False
    waiting = [packet.seq for packet in line.waiting]
    assert len(waiting) == 5
    before = len(line.answers)
    house.turn()
    assert [answer.seq for answer in line.answers[before:]] == [waiting[-1] + 1]
    assert line.late == 5
    assert house.hall.floor.counters.late_ticks == 5
    assert line.waiting == []


async def test_nothing_that_the_caller_says_is_lost_in_late_ticks(house: House) -> None:
    phone = await house.ring(Answer(), Converse(instructions="x", greeting="hi", silence_s=60.0))
    await house.until(lambda: phone.heard_s() > 0.3)
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(1.0)
    for _ in range(10):
        house.stuck = not house.stuck
        await asyncio.sleep(0.1)
    house.stuck = False
    await house.until(lambda: house.engine.told("commit"))
    sound = np.concatenate(house.engine.told("append"))
    loud = np.flatnonzero(np.abs(sound) > 0.05)
    assert (loud[-1] - loud[0]) / 24_000 == pytest.approx(1.0, abs=0.03)


async def test_lines_of_all_rates_are_served_in_one_turn(house: House) -> None:
    phones = [
        await speaking(house, "n0", 8_000),
        await speaking(house, "w0", 16_000),
        await speaking(house, "web0", 48_000),
    ]
    for name, rate_hz in (("n0", 8_000), ("w0", 16_000), ("web0", 48_000)):
        answer = house.lines[name].answers[-1]
        assert [len(sound.pcm) for sound in answer.slots] == [2 * rate_hz // 50]
    levels = [phone.heard[-1] for phone in phones]
    assert max(levels) == pytest.approx(min(levels), rel=0.1)


async def test_an_error_of_one_call_ends_it_and_no_other(house: House) -> None:
    phones = [await speaking(house) for _ in range(3)]

    def breaks(_: object) -> None:
        raise RuntimeError("a bug")

    with house.call(phones[1]).ear.tap(breaks):
        assert await house.over(phones[1]) == "failed: an error of ours"
    at = [len(phones[k].heard) for k in (0, 2)]
    await asyncio.sleep(1.0)
    assert [phones[k].heard_s(since) for k, since in zip((0, 2), at, strict=True)] == [
        pytest.approx(1.0, abs=0.05)
    ] * 2


async def test_an_error_in_what_a_call_says_ends_it_and_no_other(house: House) -> None:
    phones = [await speaking(house) for _ in range(2)]

    def breaks() -> None:
        raise RuntimeError("a bug")

    house.call(phones[0]).playout.pull = breaks  # type: ignore[method-assign,assignment]
    assert await house.over(phones[0]) == "failed: an error of ours"
    at = len(phones[1].heard)
    await asyncio.sleep(1.0)
    assert phones[1].heard_s(at) == pytest.approx(1.0, abs=0.05)


async def test_a_frame_of_the_wrong_length_is_no_sound(house: House) -> None:
    phone = await speaking(house)
    line = house.lines["n0"]
    slot = tick.SlotAudio(phone.number, phone.slot, tick.SENDING | tick.RECEIVING, phone.played, bytes(100))
    line.waiting.append(tick.Tick(7, [slot]))
    house.hall.floor.turn([line])  # type: ignore[list-item]
    assert line.answers[-1].seq == 7
    assert len(line.answers[-1].slots) == 1
    assert house.call(phone).id in house.hall.calls


async def test_a_tick_that_speaks_of_a_call_nobody_knows_is_answered_without_it(house: House) -> None:
    phone = await speaking(house)
    line = house.lines["n0"]
    flags = tick.SENDING | tick.RECEIVING
    slots = [
        tick.SlotAudio(4_000_000_000, 3, flags, 0, bytes(320)),
        tick.SlotAudio(phone.number, phone.slot, flags, phone.played, bytes(320)),
    ]
    line.waiting.append(tick.Tick(8, slots))
    house.hall.floor.turn([line])  # type: ignore[list-item]
    assert [sound.call for sound in line.answers[-1].slots] == [phone.number]


async def test_a_held_call_is_given_nothing(house: House) -> None:
    phone = await speaking(house)
    await house.hold(phone, held=True)
    await asyncio.sleep(0.1)
    waits = house.call(phone).playout.waiting_s
    await asyncio.sleep(1.0)
    assert house.lines["n0"].answers[-1].slots == []
    assert house.call(phone).playout.waiting_s == pytest.approx(waits, abs=0.4), "the engine waits too"


async def test_the_played_counter_may_wrap(house: House) -> None:
    phone = await speaking(house)
    seat = house.call(phone).seat
    before = seat.played_samples
    assert seat.played_seen is not None
    seat.played_seen = (1 << 32) - 160
    seat.count_played(160, 8_000)
    assert seat.played_samples - before == 320


async def test_counters_say_what_was_done(house: House) -> None:
    await speaking(house)
    seen = house.hall.floor.snapshot()
    assert seen["seated"] == 1
    assert seen["frames"] >= 25
    assert seen["marked_s"] >= 0.5
    assert seen["mark_alarms"] == 0


async def test_the_engine_gets_what_came_before_the_onset_of_a_call_that_rested(house: House) -> None:
    phone = await house.ring(Answer(), Converse(instructions="x", greeting="hi", silence_s=60.0))
    await house.until(lambda: phone.heard_s() > 0.3)
    await house.until(lambda: not house.call(phone).playout.busy)
    turns = house.call(phone).ear.turns
    await house.until(lambda: turns.resting)
    murmur = np.full(160 * 25, 0.01, np.float32)  # too soft to be speech for this judge
    phone.play(murmur)
    await asyncio.sleep(0.4)
    assert turns.resting
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("commit"))
    sound = np.concatenate(house.engine.told("append"))
    begins = int(np.flatnonzero(np.abs(sound) > 0.05)[0])
    before = np.abs(sound[:begins])
    assert begins / 24_000 > 0.15
    assert before[240:-240].mean() == pytest.approx(0.01, rel=0.1)
