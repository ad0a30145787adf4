"""Our own voice, as a telephone with a loudspeaker sends it back: it is nobody who interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse, Record, Say
from gateway.hall.media.audio import FRAME_S, Floats, VoiceActivity
from gateway.hall.media.echo import (
    ECHO_HZ,
    LOOK_HZ,
    Cancellers,
    EchoGuard,
    EchoStage,
    likeness,
)
from gateway.hall.media.played_sound import KEPT, PlayedSound
from gateway.hall.media.rate import CAPACITY
from gateway.store.sound_track import FLAGS, STEP_S
from tests.gateway.hall.speakerphone import Room, Scene, Speakerphone, prompts, steady, talk, witness
from tests.gateway.hall.virtual_hall import House
from tests.needs import need_sounds
from watermark.pcm import int16_from_float

HOUSE_TIME = True

MANY = pytest.mark.long("some minutes of telephone, of which each costs 3 s of CPU")
GRACE_S = 3.0
"""In the first seconds a canceller learns the room."""
JUMP_AT_S = 9.0


@pytest.fixture
async def hearing(tmp_path: Path) -> AsyncIterator[House]:
    """A house that hears as the real one does."""
    opened = House(tmp_path, activity=VoiceActivity(CAPACITY))
    await opened.open()
    yield opened
    await opened.close()
    assert opened.engine.wrongs == []


@pytest.fixture
def ours() -> Path:
    return need_sounds()


def said(
    seed: int, count: int = 3, *, voice: str = "it_IT_m_Carlo", first_s: float = 7.0
) -> tuple[tuple[float, Floats], ...]:
    """Somebody speaks every 6.5 s."""
    voices = prompts(need_sounds(voice), 1.5, 4.0)
    chance = np.random.default_rng(seed)
    return tuple((first_s + 6.5 * at, voices[chance.integers(len(voices))]) for at in range(count))


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────


@MANY
async def test_our_echo_is_no_turn(hearing: House, ours: Path) -> None:
    scenes = [
        Scene(level_db, steady(delay_s), seed)
        for seed, (level_db, delay_s) in enumerate(
            (level_db, delay_s) for level_db in (-15.0, -30.0) for delay_s in (0.1, 0.12, 0.3, 0.5)
        )
    ]
    seen = await witness(hearing, ours, scenes, 12.0)
    assert all(one.guarded for one in seen[:4])
    assert [one.false(GRACE_S, scene) for one, scene in zip(seen, scenes, strict=True)] == [[]] * 8


@MANY
async def test_nor_is_an_unusual_one(hearing: House, ours: Path) -> None:
    scenes = [
        Scene(-15.0, steady(0.8), 1),
        Scene(-30.0, steady(0.8), 2),
        Scene(-6.0, steady(0.2), 3),
        Scene(-15.0, lambda at: 0.2 + 200e-6 * at, 4),
        Scene(-15.0, lambda at: 0.2 - 200e-6 * at, 5),
        Scene(-15.0, steady(0.2), 6, rate_hz=16_000),
        Scene(-15.0, steady(0.2), 7, rate_hz=48_000),
        Scene(-30.0, steady(0.12), 8, rate_hz=48_000),
        Scene(-15.0, steady(0.12), 9, disclosed=False),
    ]
    seen = await witness(hearing, ours, scenes, 8.0)
    assert [one.false(GRACE_S, scene) for one, scene in zip(seen, scenes, strict=True)] == [[]] * 9


@MANY
async def test_an_echo_whose_delay_jumps_is_followed(hearing: House, ours: Path) -> None:
    def jumping(by_s: float) -> Scene:
        return Scene(-15.0, lambda at: 0.2 if at < JUMP_AT_S else 0.2 + by_s)

    scenes = [replace(jumping(by_s), seed=seed) for seed, by_s in enumerate((0.06, -0.06, 0.06, -0.06))]
    scenes += [replace(jumping(0.4), seed=5), replace(jumping(-0.15), seed=6)]
    seen = await witness(hearing, ours, scenes, 21.0)
    pairs = list(zip(seen, scenes, strict=True))
    assert [one.false(GRACE_S, scene, JUMP_AT_S) for one, scene in pairs] == [[]] * 6
    within = sum(len(one.false(JUMP_AT_S, scene, JUMP_AT_S + 10.0)) for one, scene in pairs[:4])
    assert within <= 3 * (4 * 10.0 / 60), "three a minute"
    assert [one.false(JUMP_AT_S + 10.0, scene) for one, scene in pairs] == [[]] * 6


@MANY
async def test_a_caller_who_interrupts_over_an_echo_is_heard_as_soon(hearing: House, ours: Path) -> None:
    plain = [Scene(None, steady(0.2), seed, interrupts=said(seed)) for seed in range(3)]
    own = tuple(said(3, voice="en_US_f_Allison"))
    plain.append(Scene(None, steady(0.2), 3, interrupts=own))
    echoing = [replace(scene, level_db=level_db) for scene in plain for level_db in (-15.0, -30.0)]
    seen = await witness(hearing, ours, [*plain, *echoing], 26.0)
    pairs = list(zip(seen, [*plain, *echoing], strict=True))
    assert [one.false(GRACE_S, scene) for one, scene in pairs] == [[]] * 12

    def cuts(of: slice) -> list[float]:
        return [one.after(one.turns, at) for one, scene in pairs[of] for at, _ in scene.interrupts]

    ducks = [one.after(one.onsets, at) for one, scene in pairs[4:] for at, _ in scene.interrupts]
    assert max(cuts(slice(0, None))) < 2.0, "nobody is lost"
    assert np.median(ducks) <= 0.2
    assert np.median(cuts(slice(4, None))) <= 0.5
    assert np.median(cuts(slice(4, None))) <= np.median(cuts(slice(0, 4))) + 0.1


@MANY
async def test_a_false_alarm_loses_no_caller(hearing: House, ours: Path) -> None:
    plain = [Scene(None, steady(0.2), seed, interrupts=said(seed)) for seed in range(2)]
    plain.append(Scene(None, steady(0.2), 2, interrupts=said(2, voice="en_US_f_Allison")))
    alarmed = [replace(scene, alarmed=True) for scene in plain]
    seen = await witness(hearing, ours, [*plain, *alarmed], 26.0)
    assert all(len(one.guarded) * FRAME_S > 25.0 for one in seen[3:]), "all the time"
    both = [
        (without.after(without.turns, at), with_it.after(with_it.turns, at))
        for without, with_it, scene in zip(seen[:3], seen[3:], plain, strict=True)
        for at, _ in scene.interrupts
    ]
    assert max(later for _, later in both) < 2.0
    assert np.median([later - sooner for sooner, later in both]) <= 0.1


async def test_without_an_echo_the_question_is_seldom_asked_and_the_guard_goes_home(
    hearing: House, ours: Path
) -> None:
    """A look takes .3 ms: 100 a minute would be .05 % of a core."""
    scenes = [Scene(None, steady(0.2), seed, interrupts=said(seed)) for seed in range(4)]
    seen = await witness(hearing, ours, scenes, 26.0)
    assert hearing.hall.floor.counters.echo_looks <= 4 * 26.0 / 60 * 65
    assert sum(len(one.guarded) for one in seen) * FRAME_S <= 0.25 * 4 * 26.0
    quiet = [Scene(None, steady(0.2), seed) for seed in range(4)]
    before = hearing.hall.floor.counters.echo_looks
    await witness(hearing, ours, quiet, 6.0)
    assert hearing.hall.floor.counters.echo_looks == before


async def test_the_guard_is_off_again_when_the_caller_takes_up_the_handset(
    hearing: House, ours: Path
) -> None:
    hearing.engine.sounds["long"] = talk(ours, 1, 40.0)
    phone = await on_loudspeaker(hearing, "long")
    guard = hearing.call(phone).seat.echo
    await hearing.until(lambda: guard.on)
    assert hearing.events(phone, "echo") == [{"delay_s": pytest.approx(0.2, abs=0.03)}]
    await asyncio.sleep(5.0)
    assert guard.on
    phone.room = Room(8_000, 1, level_db=None, delay=steady(0.2))
    assert await hearing.until(lambda: not guard.on, 20.0) > 5.0
    phone.room = Room(8_000, 1, level_db=-15.0, delay=steady(0.2))
    await hearing.until(lambda: guard.on, 3.0)


async def test_ticks_that_are_lost_or_late_do_not_bring_the_canceller_out_of_step(
    hearing: House, ours: Path
) -> None:
    line = await hearing.line("l8000-0")
    line.lose = lambda seq: seq % 37 == 0
    scenes = [Scene(-15.0, steady(0.12), seed) for seed in range(2)]
    calls = asyncio.create_task(witness(hearing, ours, scenes, 12.0))
    while not calls.done():
        await asyncio.sleep(0.71)
        hearing.stuck = True
        await asyncio.sleep(0.05)
        hearing.stuck = False
    assert [one.false(GRACE_S, scene) for one, scene in zip(await calls, scenes, strict=True)] == [[]] * 2


async def test_with_no_canceller_left_we_are_deaf_while_we_talk_and_hear_afterwards(
    hearing: House, ours: Path
) -> None:
    hearing.hall.floor._cancellers = Cancellers(1)
    hearing.engine.sounds["long"] = talk(ours, 1, 8.0)
    talks = Converse(instructions="x", silence_s=60.0)
    first = await on_loudspeaker(hearing, "long", talks)
    await hearing.until(lambda: hearing.call(first).seat.echo.on)
    second = await on_loudspeaker(hearing, "long", talks)
    guard = hearing.call(second).seat.echo
    await hearing.until(lambda: guard.deaf(late=False))
    turns = hearing.call(second).ear.turns
    await hearing.until(lambda: not turns.speaking, 1.0)
    heard = []
    while hearing.call(second).playout.busy:
        heard.append(turns.counts and turns.speaking)
        await asyncio.sleep(FRAME_S)
    assert not any(heard)
    await asyncio.sleep(1.0)
    second.say(said(1)[0][1])
    await hearing.until(lambda: turns.speaking, 1.0)
    await hearing.hang_up(first)
    await hearing.over(first)
    assert hearing.hall.floor._cancellers.take() is not None, "it is free again"


async def test_a_hall_that_has_no_time_for_an_echo_hears_nobody_in_it(hearing: House, ours: Path) -> None:
    hearing.engine.sounds["long"] = talk(ours, 1, 12.0)
    phone = await on_loudspeaker(hearing, "long")
    call, counters = hearing.call(phone), hearing.hall.floor.counters
    await hearing.until(lambda: call.seat.echo.on)
    await hearing.until(lambda: not call.ear.turns.speaking, 1.0)
    turns = 0
    for _ in range(100):
        for _ in range(2):
            hearing.turn()  # the next ticks are there before anything else is done
        turns += call.ear.turns.counts and call.ear.turns.speaking
        await asyncio.sleep(0)
    assert counters.echo_frames_late >= 100
    assert turns == 0


async def test_a_recording_is_what_the_line_sent(hearing: House, ours: Path) -> None:
    """The caller's own words must not pass a canceller before a person hears them."""
    hearing.engine.sounds |= {"long": talk(ours, 1, 4.0), "announce": talk(ours, 2, 1.0)}
    plain, guarded = [await recorded(hearing, guarded=on) for on in (False, True)]
    begins = [int(np.flatnonzero(np.abs(sound) > 0.05)[0]) for sound in (plain, guarded)]
    one, other = plain[begins[0] : begins[0] + 24_000], guarded[begins[1] : begins[1] + 24_000]
    assert np.sqrt(np.mean((one - other) ** 2)) < 0.1 * np.sqrt(np.mean(one**2))


async def test_a_sound_track_has_the_echo_that_came_and_takes_it_for_no_speech(
    hearing: House, ours: Path
) -> None:
    hearing.engine.sounds |= {"long": talk(ours, 1, 12.0)}
    phone = await on_loudspeaker(hearing, "long")
    call = hearing.call(phone)
    await hearing.until(lambda: call.seat.echo.on)
    on_at = hearing.loop.wall()
    await hearing.over(phone)
    (part,) = hearing.sound(phone).parts
    guarded = range(round((on_at - part.began_at) / STEP_S) + 2, len(part.flags) - 2)
    levels = [part.caller[step] for step in guarded]
    assert None not in levels, "each 20 ms is counted, late as it is heard"
    assert sum(level is not None and level > -60 for level in levels) > len(levels) / 3
    assert not any(part.flags[step] & FLAGS["speech"] for step in guarded)


async def recorded(house: House, *, guarded: bool) -> Floats:
    """What a recording takes of a caller on a loudspeaker, with the guard on or off."""
    phone = await on_loudspeaker(house, "long", Record(announce="announce", beep=False, max_s=2.0))
    call, taken = house.call(phone), list[Floats]()
    await house.until(lambda: call.seat.echo.on)
    await house.until(lambda: call.ear.tapped, 20.0)
    assert call.seat.echo.on
    if not guarded:
        call.seat.echo.close()
    tap = call.ear._tap
    assert tap is not None

    def both(frame: Floats | None) -> None:
        assert frame is not None
        taken.append(frame)
        tap(frame)

    call.ear._tap = both
    phone.say(said(1)[0][1][:12_000])
    await house.over(phone)
    return np.concatenate(taken)


async def test_the_lines_have_their_answers_before_an_echo_is_taken_out(
    hearing: House, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hearing.engine.sounds["long"] = talk(ours, 1, 8.0)
    phone = await on_loudspeaker(hearing, "long")
    await hearing.until(lambda: hearing.call(phone).seat.echo.on)
    line, order = hearing.lines["n0"], []
    clean, answer = EchoStage.clean, line.answer

    def cleaned(*given: Any, **how: Any) -> object:
        order.append("clean")
        return clean(*given, **how)

    def answered(packet: bytes) -> None:
        order.append("answer")
        answer(packet)

    monkeypatch.setattr(EchoStage, "clean", cleaned)
    monkeypatch.setattr(line, "answer", answered)
    await asyncio.sleep(0.5)
    assert order[:2] == ["answer", "clean"]
    assert order.count("clean") >= 20


async def on_loudspeaker(house: House, word: str, *more: object) -> Speakerphone:
    """A call that says `word` into a room, and goes on."""
    phone = await house.ring(Answer(), Say(text=word), *more, kind=Speakerphone)  # type: ignore[arg-type]
    assert isinstance(phone, Speakerphone)
    phone.room = Room(8_000, 1, level_db=-15.0, delay=steady(0.2))
    return phone


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────


def frames(count: int, frame: int = 160) -> list[np.ndarray]:
    """Numbered: sample n is n."""
    return list(np.arange(count * frame, dtype=np.int16).reshape(count, frame))


def test_the_reference_is_what_was_played_as_long_ago_as_asked() -> None:
    sound = PlayedSound(8_000, 0)
    for at, frame in enumerate(frames(100)):
        sound.send(frame)
        sound.tick(160 * (at + 1))
    for ago in (0, 1, 159, 160, 161, 4_000, 7_200):
        assert sound.delayed(ago).tolist() == list(range(16_000 - 160 - ago, 16_000 - ago))
    assert len(sound.last(KEPT)) == KEPT * 160


def test_what_waits_in_the_line_is_not_played_yet() -> None:
    sound = PlayedSound(8_000, 3_200)
    first, second, third = frames(3)
    sound.send(first)
    sound.send(second)
    sound.tick(3_200)
    assert not sound.delayed(0).any(), "the line counts what it played"
    sound.tick(3_360)
    assert sound.delayed(0) is first
    assert sound.still == 0
    sound.send(third)
    sound.tick(3_680)
    assert sound.delayed(0) is third, "of two that were played in one tick, one was heard in it"
    sound.tick(3_680)
    assert sound.still == 1


def test_what_was_lost_on_its_way_is_forgotten() -> None:
    sound = PlayedSound(8_000, 0)
    lost, played = frames(2)
    sound.send(lost)
    for _ in range(20):
        sound.tick(0)
    sound.send(played)
    sound.tick(160)
    assert sound.delayed(0) is played


@pytest.mark.parametrize("lag", [0, 1, 500, 3_999, 8_000])
def test_the_lag_is_found_to_the_sample(lag: int) -> None:
    far = np.random.default_rng(lag).normal(0, 0.1, 9_280).astype(np.float32)
    near = 0.03 * far[8_000 - lag : 9_280 - lag]
    alike, found = likeness(near, far)
    assert (found, round(alike, 1)) == (lag, 1.0)


def test_what_is_nearly_silent_is_like_nothing() -> None:
    chance = np.random.default_rng(1)
    near = chance.normal(0, 0.1, 1_280).astype(np.float32)
    silence = np.zeros(9_280, np.float32)
    assert likeness(near, silence) == (0.0, 0)
    assert likeness(np.zeros(1_280, np.float32), near.repeat(8)[:9_280]) == (0.0, 0)
    silence[5_000:5_004] = 1e-9
    assert likeness(near, silence)[0] < 0.5
    silence[:2_000] = chance.normal(0, 0.1, 2_000)
    assert likeness(near, silence)[0] < 0.5


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_an_echo_is_taken_out_at_every_lines_rate(rate_hz: int) -> None:
    chance, frame = np.random.default_rng(1), rate_hz // 50
    voice = talk(need_sounds(), 1, 6.0)[::3][: 6 * 8_000]
    voice = np.interp(np.arange(6 * rate_hz) / rate_hz, np.arange(len(voice)) / 8_000, voice).astype(
        np.float32
    )
    late = round(0.13 * rate_hz)
    heard = 0.2 * np.concatenate((np.zeros(late), voice[:-late])) + 1e-4 * chance.standard_normal(len(voice))
    guard, stage = EchoGuard(Cancellers()), EchoStage(rate_hz, 1)
    guard.reset(rate_hz, 0)
    guard._start(round(0.13 * LOOK_HZ))
    cleaned, narrow = [], []
    for at in range(0, len(voice), frame):
        guard.ours.send(int16_from_float(voice[at : at + frame]))
        near = heard[None, at : at + frame].astype(np.float32)
        guard.tick(at + frame, int16_from_float(near[0]).tobytes())
        house, vad = stage.clean(np.zeros(1, np.intp), near, [guard], [False])
        cleaned.append(house[0])
        narrow.append(vad[0])
    assert (len(cleaned[0]), len(narrow[0])) == (480, 160)
    power = [float(np.mean(sound[len(sound) // 2 :] ** 2)) for sound in (heard, np.concatenate(cleaned))]
    assert 10 * np.log10(power[0] / power[1]) > 15.0


def test_a_caller_passes_a_guard_that_does_not_run_as_late_as_one_that_does() -> None:
    """No sample is lost or heard twice where the canceller begins and ends."""
    chance = np.random.default_rng(1)
    guard = EchoGuard(Cancellers())
    guard.reset(ECHO_HZ, 0)
    guard._start(0)
    near = (0.05 * chance.standard_normal(64 * 320)).astype(np.float32)
    out, played = [], 0
    for at in range(64):
        if 20 <= at < 22:
            guard.ours.send(np.ones(320, np.int16))
            played += 320
        guard.tick(played, bytes(640))
        out.append(guard.clean(near[320 * at : 320 * at + 320], np.zeros(320, np.float32), speaking=False))
    sound = np.concatenate(out)
    for at in (2, 18, 22, 40, 44, 50, 60):
        piece = near[320 * at : 320 * at + 320]
        late = max(
            range(300), key=lambda by: float(np.dot(sound[320 * at + by : 320 * at + by + 320], piece))
        )
        assert late == 128, at
