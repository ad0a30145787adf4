"""What a hall makes of what lines tell of a call's sound."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.dialplan import Answer, Say
from gateway.hall.parts.call_quality import EVENT_EVERY_S, POOR, CallQuality, QualityNote
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import CallRated, WayRated
from gateway.ipc.line_messages import CallLeft, FarReception, LineQuality, RtpMoved
from gateway.rtp.media.e_model import G711_CONCEALED, mos, rating
from tests.gateway.hall.virtual_hall import DISCLOSE, House, Phone

HOUSE_TIME = True

LONG = Say(text=" ".join(["word"] * 600))
CLEAN = round(mos(rating(G711_CONCEALED, 0.0, 0.06)), 2)
"""20 ms of a packet, 25 in the buffer, and half of 30."""


class Told:
    """A line's words, 10 s apart: each says what got lost since the one before."""

    def __init__(self, call_id: str = "c1") -> None:
        self._quality = LineQuality(
            call_id, "PCMU", 0, 0, 3.0, 25.0, 30.0, FarReception(0, 0, 4.0), last=False
        )

    def next(self, lost: int = 0, far_lost: int = 0, due: int = 500, **changed: Any) -> LineQuality:
        was = self._quality
        assert was.far is not None
        far = FarReception(was.far.sent + due, was.far.lost + far_lost, 4.0)
        self._quality = replace(was, received=was.received + due - lost, lost=was.lost + lost, far=far)
        return replace(self._quality, **changed)


def test_both_ways_are_rated_by_what_was_lost_and_how_long_it_took() -> None:
    note = CallQuality().take(Told().next(lost=10, far_lost=50, last=True), 0.0)
    here = mos(rating(G711_CONCEALED, 0.02, 0.060))
    there = mos(rating(G711_CONCEALED, 0.10, 0.043))  # 20 ms, half of 30 and twice the jitter of 4
    assert note.rated is not None
    assert note.rated.from_caller == WayRated(round(here, 2), 0.02, 0.003)
    assert note.rated.to_caller == WayRated(round(there, 2), 0.1, 0.004)
    assert note.rated.round_trip_s == 0.03
    facts = note.facts
    assert (facts["packets"], facts["lost"], facts["far_sent"], facts["far_lost"]) == (490, 10, 500, 50)
    assert facts["mos"] == pytest.approx(here, abs=0.01)
    assert facts["far_mos"] == pytest.approx(there, abs=0.01)
    assert note.event == facts


def test_the_score_of_a_call_falls_with_0_2_5_and_10_percent_lost() -> None:
    notes = [CallQuality().take(Told().next(lost=5 * percent, last=True), 0.0) for percent in (0, 2, 5, 10)]
    scores = [note.facts["mos"] for note in notes]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]  # they are floats
    assert len(set(scores)) == 4


def test_without_rtcp_a_call_is_rated_by_what_is_known() -> None:
    told = LineQuality("c1", "PCMA", 500, 0, None)
    note = CallQuality().take(told, 0.0)
    assert note.rated == CallRated(
        "c1", WayRated(round(mos(rating(G711_CONCEALED, 0.0, 0.02)), 2), 0.0, None), None, None
    )
    assert "far_sent" not in note.facts
    assert "srtp" not in note.facts
    sealed = CallQuality().take(replace(told, srtp="AES_CM_128_HMAC_SHA1_80"), 0.0)
    assert sealed.facts["srtp"] == "AES_CM_128_HMAC_SHA1_80"


def test_a_codec_that_the_model_does_not_know_has_its_losses_and_no_score() -> None:
    note = CallQuality().take(Told().next(lost=5, codec="GSM", last=True), 0.0)
    assert note.rated is not None
    assert note.rated.from_caller == WayRated(None, 0.01, 0.003)


def test_a_call_that_came_to_nothing_has_no_score() -> None:
    note = CallQuality().take(LineQuality("c1", "PCMU", 0, 0, None), 0.0)
    assert note.rated == CallRated("c1", None, None, None)


def test_more_lost_than_sent_is_all_of_it() -> None:
    far = FarReception(100, 5000, 0.0)
    note = CallQuality().take(LineQuality("c1", "PCMU", 100, 0, 0.0, far=far), 0.0)
    assert note.rated is not None
    assert note.rated.to_caller == WayRated(round(mos(rating(G711_CONCEALED, 1.0, 0.02)), 2), 1.0, 0.0)


# ── while the call goes on ───────────────────────────────────────────────────────────────────────────


def run(quality: CallQuality, told: Told, *losses: tuple[int, int], at: float = 0.0) -> list[QualityNote]:
    return [quality.take(told.next(*each), at + 10.0 * n) for n, each in enumerate(losses)]


def test_a_stretch_is_rated_by_itself_and_the_call_by_all_of_it() -> None:
    first, second = run(CallQuality(), Told(), (0, 0), (50, 0))
    assert first.event is not None
    assert (first.event["mos"], first.event["loss_percent"]) == (CLEAN, 0.0)
    assert second.event is not None
    assert second.event["loss_percent"] == 10.0
    assert second.facts["mos"] == pytest.approx(mos(rating(G711_CONCEALED, 0.05, 0.06)), abs=0.01)


def test_poor_begins_and_ends_at_once_and_in_between_there_is_a_word_a_minute() -> None:
    quality = CallQuality()
    bad = [(60, 0)] * 7
    notes = run(quality, Told(), (0, 0), *bad, (0, 0), (0, 0))
    assert [note.turned for note in notes] == [False, True, *[False] * 6, True, False]
    assert [note.event is not None for note in notes] == [
        True, True, *[False] * 5, True, True, False,
    ]  # fmt: skip
    assert EVENT_EVERY_S == 60.0
    assert not quality.poor


def test_ours_that_comes_badly_is_poor_too() -> None:
    quality = CallQuality()
    *_, last = run(quality, Told(), (0, 0), (0, 80))
    assert quality.poor
    assert last.event is not None
    assert last.event["mos"] == CLEAN
    assert last.event["far_loss_percent"] == 16.0
    assert float(str(last.event["far_mos"])) < POOR


def test_the_worst_stretch_stays_known() -> None:
    quality, told = CallQuality(), Told()
    notes = run(quality, told, (0, 0), (100, 0), (0, 0))
    worst = pytest.approx(mos(rating(G711_CONCEALED, 0.2, 0.06)), abs=0.01)
    assert notes[-1].facts["mos_worst"] == worst
    assert quality.take(told.next(last=True), 30.0).facts["mos_worst"] == worst
    assert "mos_worst" not in notes[0].facts, "of one stretch it is the call's own"


def test_a_stretch_in_which_hardly_anything_was_due_waits_for_the_next_one() -> None:
    quality, told = CallQuality(), Told()
    quality.take(told.next(), 0.0)
    silent = quality.take(told.next(lost=5, due=5), 10.0)
    assert (silent.event, silent.turned) == (None, False)
    (loud,) = run(quality, told, (95, 0), at=20.0)
    assert loud.event is not None
    assert loud.event["loss_percent"] == pytest.approx(100 * 100 / 505, abs=0.05)


def test_what_came_after_all_is_no_gain() -> None:
    """Reordering: packets that were counted as lost came after the line's last word."""
    quality, told = CallQuality(), Told()
    quality.take(told.next(lost=10), 0.0)
    note = quality.take(told.next(lost=-10, due=500), 70.0)
    assert note.event is not None
    assert note.event["loss_percent"] == 0.0


def test_each_word_has_its_stretch_also_of_a_codec_without_a_score() -> None:
    for codec, score in (("PCMU", CLEAN), ("GSM", None)):
        quality, told = CallQuality(), Told()
        losses = ((0, 0), (50, 0), (0, 25), (0, 0))
        stretches = [
            quality.take(told.next(*each, codec=codec), 10.0 * n).stretch for n, each in enumerate(losses)
        ]
        kept = [stretch for stretch in stretches if stretch is not None]
        assert [stretch["loss_percent"] for stretch in kept] == [0.0, 10.0, 0.0, 0.0]
        assert [stretch["far_loss_percent"] for stretch in kept] == [0.0, 0.0, 5.0, 0.0]
        assert kept[-1]["mos"] == score
        assert (kept[-1]["jitter_ms"], kept[-1]["far_jitter_ms"]) == (3.0, 4.0)


# ── in a hall ────────────────────────────────────────────────────────────────────────────────────────


async def up(house: House) -> Phone:
    phone = await house.ring(Answer(), DISCLOSE, LONG)
    await house.until(lambda: phone.heard_s() > 1.0)
    return phone


async def says(house: House, quality: LineQuality) -> None:
    await house.hall.quality.told(house.lines["n0"], quality)  # type: ignore[arg-type]


def facts(house: House, phone: Phone) -> dict[str, str]:
    return house.memory.hashes[f"vg:call:{phone.call_id}"]


async def test_a_call_is_noted_while_it_goes_on_and_rated_at_its_end(house: House) -> None:
    phone = await up(house)
    told = Told(phone.call_id)
    await says(house, told.next())
    assert float(facts(house, phone)["mos"]) == CLEAN
    (event,) = house.events(phone, "quality")
    assert (event["line"], event["mos"], event["loss_percent"]) == ("n0", CLEAN, 0.0)
    assert house.front.told(CallRated) == []
    with capture_logs() as logs:
        await says(house, told.next(lost=100))
    (log,) = [each for each in logs if each["event"] == "call.poor"]
    assert log["call_id"] == phone.call_id
    assert (await house.hall.health(house.front, None)).counters["poor_calls"] == 1  # type: ignore[arg-type]
    await says(house, told.next(lost=0, last=True))
    line = house.lines["n0"]
    await house.hall.call_left(line, CallLeft(phone.call_id, CallEnding(End.CALLER)))  # type: ignore[arg-type]
    await house.over(phone)
    (rated,) = house.front.told(CallRated)
    assert rated.from_caller is not None
    assert rated.from_caller.loss == pytest.approx(100 / 1500, abs=1e-4)
    (event,) = house.events(phone, "line_quality")
    assert (event["packets"], event["lost"]) == (1400, 100)
    assert event["mos_worst"] == float(facts(house, phone)["mos_worst"]) < POOR


async def test_each_word_is_a_point_of_the_calls_track(house: House) -> None:
    phone = await up(house)
    told = Told(phone.call_id)
    for lost in (0, 10, 0):
        await says(house, told.next(lost=lost))
        await asyncio.sleep(10.0)
    await says(house, told.next(lost=100, target="office"))
    points = house.sound(phone).points["quality"]
    assert [point["loss_percent"] for point in points] == [0.0, 2.0, 0.0], "and none of a target's"
    assert [point["at"] - house.loop.wall() for point in points] == pytest.approx([-30, -20, -10], abs=0.1)
    assert len(house.events(phone, "quality")) == 1, "events are still told once a minute"


async def test_a_targets_sound_is_rated_apart_from_its_callers(house: House) -> None:
    phone = await up(house)
    ours, theirs = Told(phone.call_id), Told(phone.call_id)
    await says(house, ours.next())
    await says(house, theirs.next(lost=100, target="office"))
    kept = facts(house, phone)
    assert (kept["lost"], kept["target_lost"]) == ("0", "100")
    assert float(kept["target_mos"]) < POOR < float(kept["mos"]) == CLEAN
    (event,) = house.events(phone, "target_quality")
    assert (event["target"], event["loss_percent"]) == ("office", 20.0)
    assert (await house.hall.health(house.front, None)).counters["poor_calls"] == 0  # type: ignore[arg-type]
    await says(house, theirs.next(target="office", last=True))
    (rated,) = house.front.told(CallRated)
    assert rated.target
    assert rated.from_caller is not None
    assert rated.from_caller.loss == pytest.approx(0.1)


async def test_the_last_word_counts_when_the_call_is_over_and_others_do_not(house: House) -> None:
    phone = await up(house)
    told = Told(phone.call_id)
    line = house.lines["n0"]
    await house.hall.call_left(line, CallLeft(phone.call_id, CallEnding(End.CALLER)))  # type: ignore[arg-type]
    await house.over(phone)
    await says(house, told.next())
    assert "mos" not in facts(house, phone)
    await says(house, told.next(last=True))
    assert float(facts(house, phone)["mos"]) == CLEAN
    assert len(house.front.told(CallRated)) == 1


@pytest.mark.parametrize(
    ("way", "level"), [("followed", "warning"), ("described", "info"), ("stream", "info")]
)
async def test_a_move_is_an_event_a_line_of_the_log_and_the_fronts_to_count(
    house: House, way: Any, level: str
) -> None:
    phone = await up(house)
    moved = RtpMoved(phone.call_id, "10.0.0.5:4000", "203.0.113.7:61000", way, "0x00000001", "0x00000002")
    with capture_logs() as logs:
        await house.hall.quality.moved(house.lines["n0"], moved)  # type: ignore[arg-type]
    what = {
        "was": moved.was, "now": moved.now, "way": way, "was_ssrc": "0x00000001", "now_ssrc": "0x00000002",
    }  # fmt: skip
    assert house.events(phone, "rtp_moved") == [what]
    (log,) = [each for each in logs if each["event"] == "rtp.moved"]
    assert log == {"event": "rtp.moved", "log_level": level, "call_id": phone.call_id, **what}
    assert house.front.told(RtpMoved) == [moved]
