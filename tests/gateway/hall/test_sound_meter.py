"""The sound track that a hall keeps of its calls: how loud, when, and what was the matter."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gateway.dialplan import Answer, Say
from gateway.hall.calls.sound_meter import UNDERRUN, SoundMeter
from gateway.store.sound_track import FLAGS, LONGEST_S, ROW_STEPS, STEP_S, SoundTrack, TrackPart, read_track
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.test_converse import talking
from tests.gateway.hall.test_resume import back, interrupted
from tests.gateway.hall.virtual_hall import WORD_S, House, Phone

HOUSE_TIME = True

LONG = Say(text=" ".join(["word"] * 100))
LONGEST_ROW_S = STEP_S * ROW_STEPS


def flagged(part: TrackPart, flag: str) -> list[float]:
    """When the steps with this flag began."""
    return [part.began_at + STEP_S * at for at, flags in enumerate(part.flags) if flags & FLAGS[flag]]


async def hung_up(house: House, phone: Phone) -> SoundTrack:
    await house.hang_up(phone)
    await house.over(phone)
    return house.sound(phone)


async def test_both_sides_stand_where_they_were_heard(house: House) -> None:
    phone = await talking(house)
    await asyncio.sleep(1.0)
    spoke_at = house.loop.wall()
    phone.speak(2.0, level=0.4)
    await house.until(lambda: not phone.speaking)
    await asyncio.sleep(0.3)
    (part,) = (await hung_up(house, phone)).parts
    loud = [at for at, level in enumerate(part.caller) if level is not None and level > -30]
    assert part.began_at + STEP_S * loud[0] == pytest.approx(spoke_at, abs=0.13)
    assert len(loud) * STEP_S == pytest.approx(2.0, abs=0.25)
    assert part.caller[loud[5]] == -11, "a tone of .4 of full scale is 11 dB below it"
    assert {part.caller[loud[0] - 5], part.caller[loud[-1] + 2]} == {-96}
    speech = flagged(part, "speech")
    assert speech[0] == pytest.approx(spoke_at, abs=0.2)
    assert len(speech) * STEP_S == pytest.approx(2.0, abs=0.3)
    voice = [level for level in part.voice if level is not None]
    assert len(voice) * STEP_S == pytest.approx(4 * WORD_S, abs=0.3), "and nothing where we said nothing"
    assert -20 < sorted(voice)[len(voice) // 2] < -5
    assert flagged(part, "playing") == [
        part.began_at + STEP_S * at for at, level in enumerate(part.voice) if level is not None
    ]


async def test_a_duck_is_shown_by_its_flag_and_by_the_level(house: House) -> None:
    phone = await house.ring(Answer(), LONG)
    await house.until(lambda: phone.heard_s() > 1.0)
    house.call(phone).duck()
    await asyncio.sleep(1.0)
    house.call(phone).come_back()
    await asyncio.sleep(1.0)
    track = await hung_up(house, phone)
    (part,) = track.parts
    (duck,) = track.points["ducks"]
    assert (duck["seconds"], duck["cut"]) == (1.0, 0)
    ducked = [at for at, flags in enumerate(part.flags) if flags & FLAGS["ducked"]]
    assert len(ducked) * STEP_S == pytest.approx(1.0, abs=0.25)
    full, low = part.voice[ducked[0] - 3], part.voice[ducked[5]]
    assert full is not None
    assert low is not None
    assert full - low == pytest.approx(14, abs=2)


async def test_the_rate_of_a_line_changes_no_level(house: House) -> None:
    lines = (("n0", 8_000), ("w0", 16_000), ("web0", 48_000))
    phones = [await house.ring(Answer(), LONG, line=name, rate_hz=rate_hz) for name, rate_hz in lines]
    await house.until(lambda: phones[-1].heard_s() > 1.0)
    for phone in phones:
        phone.speak(2.0, level=0.1)
    await asyncio.sleep(1.5)
    parts = [(await hung_up(house, phone)).parts[0] for phone in phones]
    assert [part.caller[-3] for part in parts] == [-23] * 3
    voices = [part.voice[-3] for part in parts]
    assert None not in voices
    assert max(voices) - min(voices) <= 1  # type: ignore[type-var, operator]  # none is None


async def test_a_hold_is_seen_and_no_sound_is_made_up_for_it(house: House) -> None:
    phone = await house.ring(Answer(), LONG)
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.hold(phone, held=True)
    await asyncio.sleep(2.0)
    await house.hold(phone, held=False)
    await asyncio.sleep(1.0)
    (part,) = (await hung_up(house, phone)).parts
    held = [at for at, flags in enumerate(part.flags) if flags & FLAGS["held"]]
    assert len(held) * STEP_S == pytest.approx(2.0, abs=0.25)
    inside = held[2:-2]
    assert {part.caller[at] for at in inside} == {part.voice[at] for at in inside} == {None}
    assert not part.flags[0] & FLAGS["held"], "nobody holds a call that was not answered yet"


async def test_a_muted_voice_and_a_frame_without_a_mark_are_silence_that_says_why(house: House) -> None:
    phones = [await house.ring(Answer(), LONG) for _ in range(2)]
    await house.until(lambda: phones[1].heard_s() > 1.0)
    house.bank.broken.add(house.call(phones[0]).seat.mark_slot)
    await asyncio.sleep(1.0)
    house.bank.broken.clear()
    await asyncio.sleep(0.5)
    await house.revoke()
    await asyncio.sleep(1.0)
    for phone, flag, seconds in ((phones[0], "not_marked", 1.0), (phones[1], "muted", 1.0)):
        (part,) = (await hung_up(house, phone)).parts
        steps = [at for at, flags in enumerate(part.flags) if flags & FLAGS[flag]]
        assert len(steps) * STEP_S == pytest.approx(seconds, abs=0.25)
        assert {part.voice[at] for at in steps[2:-2]} <= {-96, None}
        assert flag == "not_marked" or not any(part.flags[at] & FLAGS["playing"] for at in steps)


async def test_a_hall_that_dies_leaves_a_gap_and_what_it_had_written(house: House) -> None:
    phone = await interrupted(house)
    died_at = house.loop.wall()
    await asyncio.sleep(3.0)
    back_at = house.loop.wall()
    await back(house, phone)
    await house.until(lambda: phone.heard_s() > 0.7)
    await asyncio.sleep(LONGEST_ROW_S)
    before, after = house.sound(phone).parts
    assert died_at - LONGEST_ROW_S - 0.2 <= before.ends_at <= died_at + STEP_S
    assert after.began_at == pytest.approx(back_at, abs=0.3)


async def test_a_stalled_hall_moves_nothing(house: House) -> None:
    """A short stall is steps with nothing, a long one is a gap."""
    phone = await house.ring(Answer(), LONG)
    await house.until(lambda: phone.heard_s() > 1.0)
    for stall_s in (0.5, 7.0):
        house.stuck = True
        await asyncio.sleep(stall_s)
        house.stuck = False
        await asyncio.sleep(2.0)
    phone.speak(0.5)
    spoke_at = house.loop.wall()
    await asyncio.sleep(1.0)
    parts = (await hung_up(house, phone)).parts
    assert len(parts) == 2
    assert flagged(parts[1], "speech")[0] == pytest.approx(spoke_at, abs=0.2)


async def test_what_comes_of_a_duck_is_kept(house: House) -> None:
    house.engine.answers = [scripted.Answer("a long answer " * 8)]
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.call(phone).playout.heard_now)
    await asyncio.sleep(1.0)
    phone.speak(0.12)
    await asyncio.sleep(2.0)
    assert [duck["cut"] for duck in house.sound(phone).points["ducks"]] == [0], "a cough"
    phone.speak(1.0)
    await asyncio.sleep(2.0)
    _, cut = house.sound(phone).points["ducks"]
    assert cut["cut"] == 1
    (barge_in,) = house.events(phone, "barge_in")
    assert cut["seconds"] == pytest.approx(barge_in["onset_to_cut_s"], abs=0.1)


async def test_each_look_for_the_mark_is_kept(house: House) -> None:
    phone = await house.ring(Answer(), LONG)
    await house.until(lambda: len(house.sound(phone).points["marks"]) == 2, within_s=40.0)
    assert [mark["found"] for mark in house.sound(phone).points["marks"]] == [1, 1]
    house.bank.lies = True
    assert await house.over(phone) == "failed: the voice may not be used: no mark"
    *_, last = house.sound(phone).points["marks"]
    assert last["found"] == 0
    assert last["score"] < house.sound(phone).points["marks"][0]["score"]


async def test_a_grant_is_an_event_and_each_renewal_a_point(house: House) -> None:
    began_at = house.loop.wall()
    phone = await house.ring(Answer(), LONG)
    await asyncio.sleep(35.0)
    (grant,) = house.events(phone, "grant")
    assert (grant["voice"], grant["purpose"], grant["route"]) == ("heart", "support", "demo")
    assert grant["until"] == pytest.approx(began_at + 60.0, abs=0.1)
    points = house.sound(phone).points["grants"]
    assert [point["renewed"] for point in points] == [0, 1]
    assert [point["until"] - point["at"] for point in points] == pytest.approx([60.0, 60.0], abs=0.2)
    assert "eyJ" not in str(house.memory.lists), "a grant's token is a secret"


async def test_forty_calls_do_not_write_all_in_one_pass(house: House) -> None:
    phones = [await house.ring(Answer(), LONG) for _ in range(40)]
    writes: list[tuple[float, str]] = []
    put = house.memory.put

    def noting(commands: Any, *, important: bool = False) -> None:
        for name, key, *words in commands:
            if name == "RPUSH" and " marks " not in words[0] and " grants " not in words[0]:
                writes.append((house.loop.time(), key))
        put(commands, important=important)

    house.memory.put = noting  # type: ignore[method-assign]
    await asyncio.sleep(12.0)
    assert max(Counter(at for at, _ in writes).values()) == 1, "each in its turn, by its row"
    assert {key for _, key in writes} == {f"vg:sound:{phone.call_id}" for phone in phones}


# ── the meter by itself ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@dataclass
class Seat:
    row: int
    sending: bool = True


@dataclass
class Licence:
    muted: str | None = None


@dataclass
class Measured:
    """What the meter uses of a call."""

    seat: Seat
    licence: Licence = field(default_factory=Licence)
    rows: list[str] = field(default_factory=list)
    broken: int = 0
    fails: bool = False

    def keep_sound(self, row: str) -> None:
        if self.fails:
            raise RuntimeError("a bug")
        self.rows.append(row)

    def broke(self, where: str) -> None:
        self.broken += 1


def seated(meter: SoundMeter, row: int, age_s: float = 0.0) -> Any:
    call: Any = Measured(Seat(row))
    meter.admit(row, age_s)
    meter.begin(call)
    return call


def run(meter: SoundMeter, clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds / 0.02)):
        clock.now += 0.02
        meter.turn(clock.now)


def test_a_track_ends_after_four_hours_and_says_so() -> None:
    clock = Clock()
    meter = SoundMeter(4, clock)
    call, younger = seated(meter, 1, age_s=LONGEST_S - 7.0), seated(meter, 2)
    run(meter, clock, 20.0)
    track = read_track(call.rows)
    (part,) = track.parts
    assert track.ended_early
    assert len(part.flags) * STEP_S == pytest.approx(7.0, abs=0.11)
    meter.end(1)
    assert call.rows[-1].endswith(" end")
    meter.end(2)
    assert not read_track(younger.rows).ended_early
    assert sum(len(part.flags) for part in read_track(younger.rows).parts) == pytest.approx(200, abs=1)


def test_a_call_that_is_adopted_too_old_has_no_track() -> None:
    clock = Clock()
    meter = SoundMeter(4, clock)
    call = seated(meter, 0, age_s=LONGEST_S + 1)
    run(meter, clock, 12.0)
    meter.end(0)
    assert call.rows == []


def test_the_next_call_in_a_row_has_nothing_of_the_one_before() -> None:
    clock = Clock()
    meter = SoundMeter(4, clock)
    first = seated(meter, 3)
    meter.hear(np.array([3]), np.full((1, 160), 0.5, np.float32))
    meter.flag(3, UNDERRUN)
    run(meter, clock, 0.3)
    meter.hear(np.array([3]), np.full((1, 160), 0.5, np.float32))
    meter.flag(3, UNDERRUN)
    meter.end(3)
    clock.now += 60.0
    second = seated(meter, 3)
    run(meter, clock, 1.0)
    meter.end(3)
    (before,), (after,) = read_track(first.rows).parts, read_track(second.rows).parts
    assert before.caller[0] == -6
    assert before.flags[0] == FLAGS["underrun"]
    assert set(after.caller) == {None}
    assert set(after.flags) == {0}
    assert after.began_at == pytest.approx(1e9 + 160.3, abs=0.11)


def test_an_error_of_one_call_stays_with_it() -> None:
    clock = Clock()
    meter = SoundMeter(4, clock)
    bad, good = seated(meter, 0), seated(meter, 1)
    bad.fails = True
    run(meter, clock, 12.0)
    assert bad.broken
    assert sum(len(part.flags) for part in read_track(good.rows).parts) > 50


def test_levels_are_rms_of_what_came_and_went() -> None:
    clock = Clock()
    meter = SoundMeter(2, clock)
    call = seated(meter, 0)
    rows = np.array([0])

    def next_step() -> None:
        clock.now += STEP_S
        meter.turn(clock.now + 0.001)

    for level in (1.0, 0.1, 1e-9):
        for _ in range(5):
            meter.hear(rows, np.full((1, 320), level, np.float32))
            meter.send(rows, np.full((1, 160), round(level * 32767), np.int16), np.array([level < 1.0]))
        next_step()
    next_step()
    meter.end(0)
    (part,) = read_track(call.rows).parts
    assert part.caller[:4] == [0, -20, -96, None]
    assert part.voice[:4] == [0, -20, -96, None]
    playing, ducked = FLAGS["playing"], FLAGS["ducked"]
    assert part.flags[:4] == [playing, playing | ducked, playing | ducked, 0]
