"""Why a call was bad: real calls, kept as their JSON, and faults put into a sound one, two at a time."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.ipc.ending import End
from gateway.store import cause_texts
from gateway.store.call_cause import SYMPTOMS, causes, not_known

Call = dict[str, Any]
KEPT = json.loads((Path(__file__).parent / "kept_calls.json").read_text())
"""Calls that were placed to a gateway: sound ones, and ones with which something was done."""
BEGAN, ANSWERED, ENDED = 1_700_000_000.0, 1_700_000_000.1, 1_700_000_100.0
EARLY, LATE = BEGAN + 30, BEGAN + 60
QUALITY = {"mos": 4.39, "loss_percent": 0.0, "jitter_ms": 2.0}


def kept(name: str) -> Call:
    return copy.deepcopy({**KEPT[name]["facts"], "events": KEPT[name]["events"]})


def put(call: Call, at: float, kind: str, **data: Any) -> Call:
    call["events"].append({"at": at, "kind": kind, "data": data})
    return call


def names(call: Call) -> list[str]:
    return [cause.name for cause in causes(call)]


def without(call: Call, *kinds: str) -> Call:
    call["events"] = [event for event in call["events"] if event["kind"] not in kinds]
    return call


# ── sound calls ──────────────────────────────────────────────────────────────────────────────────────────


def wordless(call: Call) -> Call:
    """As a plan without a transcript keeps it."""
    for event in call["events"]:
        event["data"].pop("text", None)
    return call


def held(call: Call) -> Call:
    put(call, EARLY, "hold", sending=False, receiving=True)
    return put(call, EARLY + 5, "hold", sending=True, receiving=True)


def unreported(call: Call) -> Call:
    """A telephone without RTCP."""
    return {name: value for name, value in call.items() if not name.startswith("far_")}


def one_not_understood(call: Call) -> Call:
    put(call, EARLY, "turn", who="caller", duration_s=0.4)
    return put(call, EARLY + 1, "turn", who="bot", text="Again?", heard_s=1.0, latency_ms={"whole": 900.0})


def transferred(call: Call) -> Call:
    put(call, EARLY, "transfer", target="office", via="trunk:carrier")
    put(call, EARLY + 4, "transfer_rings", status=180)
    put(call, EARLY + 9, "state", state="transferred")
    put(call, LATE, "target_quality", target="office", **QUALITY)
    return {**call, "ended_at": ENDED, "target_packets": 2000, "target_lost": 9, "target_mos": 4.3}


def in_another_way(call: Call) -> Call:
    """Of a codec that nobody has rated."""
    return {**call, "codec": "OPUS", "mos": None, "srtp": "AES_CM_128_HMAC_SHA1_80"}


SOUND: dict[str, Callable[[], Call]] = {
    "a question": lambda: kept("asked1"),
    "two questions": lambda: kept("asked"),
    "hung up in the greeting": lambda: kept("listened"),
    "a message": lambda: kept("mailbox"),
    "interrupted": lambda: kept("barged"),
    "keys": lambda: kept("keyed"),
    "another route": lambda: kept("wide1"),
    "only listened": lambda: kept("talk"),
    "a browser": lambda: kept("browser"),
    "no transcript": lambda: wordless(kept("asked")),
    "held for a while": lambda: held(kept("asked")),
    "no RTCP": lambda: unreported(kept("asked")),
    "one turn not understood": lambda: one_not_understood(kept("asked")),
    "transferred": lambda: transferred(kept("asked")),
    "an unrated codec": lambda: in_another_way(kept("asked1")),
    "a packet in a hundred lost": lambda: {**kept("barged"), "lost": 12, "mos": 4.1},
    "a port that moved once": lambda: put(kept("asked"), EARLY, "rtp_moved", way="followed"),
    "asked once whether there is somebody": lambda: put(kept("asked"), EARLY, "silence", count=1),
    "an engine that was gone for a moment": lambda: put(
        put(kept("asked"), EARLY, "engine_away", code="lost"), EARLY + 0.3, "engine_back", after_s=0.3
    ),
    "goodbye": lambda: put({**kept("asked"), "how": "hung up"}, EARLY, "goodbye", why="asked"),
    "another voice of consent": lambda: put(kept("asked"), EARLY, "route", route="next", voice="heart"),
    "a call that lives": lambda: {k: v for k, v in kept("asked").items() if k not in ("how", "ended_at")},
}


@pytest.mark.parametrize("which", SOUND)
def test_a_sound_call_has_no_cause(which: str) -> None:
    assert names(SOUND[which]()) == []


def test_there_are_twenty_sound_calls() -> None:
    assert len(SOUND) >= 20


# ── calls with which something was done ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("which", "wrong"),
    [
        ("silent", ["no sound from the caller"]),
        ("quiet", ["nothing heard"]),
        ("rough", ["poor sound from the caller", "poor sound to the caller"]),
        ("stalled", ["engine lost"]),
        ("killed", ["engine away"]),
        ("hall_died", ["process taken over"]),
        ("line_died", ["line died"]),
    ],
)
def test_a_real_call_that_was_done_harm_shows_what(which: str, wrong: list[str]) -> None:
    call = kept(which)
    assert names(call) == wrong
    first = causes(call)[0]
    assert any(event["at"] == pytest.approx(first.at, abs=0.01) for event in call["events"])
    assert first.number
    assert first.remedy


# ── faults, two at a time ────────────────────────────────────────────────────────────────────────────────


def sound() -> Call:
    """A sound call of 100 s, of which the middle is free for faults."""
    call: Call = {
        "call_id": "c", "started_at": BEGAN, "answered_at": ANSWERED, "ended_at": ENDED, "spoken_s": 60.0,
        "underruns": 2, "how": "caller hung up", "packets": 4990, "lost": 3, "mos": 4.39, "far_sent": 4900,
        "far_lost": 1, "far_mos": 4.39, "events": [],
    }  # fmt: skip
    put(call, BEGAN, "opened", route="demo", voice="heart")
    put(call, BEGAN + 0.02, "line", line="n0")
    put(call, BEGAN + 10, "quality", **QUALITY)
    put(call, BEGAN + 12, "disclosed", principal="Lindens", language="en", text="…")
    put(call, BEGAN + 14, "turn", who="caller", text="hello", duration_s=1.0)
    put(call, BEGAN + 16, "turn", who="bot", text="hello", heard_s=2.0, latency_ms={"whole": 700.0})
    put(call, ENDED - 0.01, "line_quality", packets=4990, lost=3, mos=4.39)
    return put(call, ENDED, "ended", how="caller hung up")


def deaf(call: Call, _: float) -> None:
    for fact in ("packets", "lost", "mos"):
        call.pop(fact)
    without(call, "quality", "line_quality")
    call["events"] = [event for event in call["events"] if event["data"].get("who") != "caller"]


def late(call: Call, at: float) -> None:
    stages = {"endpointing": 400.0, "engine": 4100.0, "playout": 40.0, "whole": 4540.0}
    put(call, at - 1, "turn", who="caller", text="and now", duration_s=1.0)
    put(call, at + 4.54, "turn", who="bot", text="yes", heard_s=1.0, latency_ms=stages)


def engine_dies(call: Call, at: float) -> None:
    put(call, at, "engine_away", code="lost")
    put(call, at + 10, "engine_refused", code="lost", message="it is away")
    call["how"] = "failed: the engine was lost"


def cut_off(call: Call, at: float) -> None:
    for k in range(3):
        put(call, at + 2 * k, "barge_in", onset_to_cut_s=0.3, heard_s=[0.2])


def misheard(call: Call, at: float) -> None:
    for k in range(3):
        put(call, at + 2 * k, "turn", who="caller", duration_s=1.0)


def withdrawn(call: Call, at: float) -> None:
    put(call, at, "muted", reason="revoked", voice="anna")
    call["how"] = "failed: the voice may not be used: revoked"


Inject = Callable[[Call, float], object]
AT_THE_BEGINNING: dict[str, Inject] = {
    "consent refused": lambda call, at: call["events"][0]["data"].update(grant_refused="expired"),
    "no sound from the caller": deaf,
    "no sound to the caller": lambda call, at: call.update(far_lost=4890, far_mos=1.0),
}
MEANWHILE: dict[str, Inject] = {
    "not marked": lambda call, at: put(call, at, "mark_failed", error="too loud"),
    "poor sound from the caller": lambda call, at: put(
        call, at + 10, "quality", mos=2.4, loss_percent=18.0, jitter_ms=4.0
    ),
    "poor sound to the caller": lambda call, at: put(
        call, at + 10, "quality", far_mos=2.9, far_jitter_ms=9.0
    ),
    "engine away": lambda call, at: put(
        put(call, at, "engine_away", code="lost"), at + 5, "engine_back", after_s=5.0
    ),
    "engine lost": engine_dies,
    "process taken over": lambda call, at: put(call, at, "line", line="n0"),
    "answer late": late,
    "not understood": misheard,
    "cut off": cut_off,
    "consent withdrawn": withdrawn,
    "transfer failed": lambda call, at: put(
        call, at, "transfer_failed", target="office", status=486, why="Busy"
    ),
    "not played": lambda call, at: put(call, at, "not_played", file="hold.wav", why="it is gone"),
}
AT_THE_END: dict[str, Inject] = {
    "line died": lambda call, at: call.update(how="failed: its line died"),
    "console": lambda call, at: call.update(how="hung up by the console"),
    "underruns": lambda call, at: call.update(underruns=900),
}
FAULTS = AT_THE_BEGINNING | MEANWHILE | AT_THE_END
ENDINGS = ("engine lost", "consent withdrawn", "line died", "console")
BOTH_CANNOT_BE: list[set[str]] = [
    {"no sound from the caller", "answer late"},
    {"no sound from the caller", "not understood"},
    {"no sound from the caller", "poor sound from the caller"},
    {"no sound to the caller", "poor sound to the caller"},
    {"engine lost", "engine away"},
    *(set(pair) for pair in itertools.combinations(ENDINGS, 2)),
]
"""A call ends once; who is not heard says nothing."""


def pairs() -> list[tuple[str, str]]:
    """Faults of which the first begins before the second."""
    found = [*itertools.permutations(MEANWHILE, 2)]
    found += itertools.product(AT_THE_BEGINNING, [*MEANWHILE, *AT_THE_END])
    found += itertools.product(MEANWHILE, AT_THE_END)
    return [pair for pair in found if set(pair) not in BOTH_CANNOT_BE]


def test_the_call_for_the_faults_is_sound() -> None:
    assert names(sound()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_the_only_cause(fault: str) -> None:
    call = sound()
    FAULTS[fault](call, EARLY)
    assert names(call) == [fault]


def test_of_two_faults_the_first_is_named_first_and_the_other_is_not_forgotten() -> None:
    wrong = []
    for first, second in pairs():
        call = sound()
        FAULTS[first](call, EARLY)
        FAULTS[second](call, LATE)
        found = names(call)
        known = second in found or first in SYMPTOMS.get(second, ())
        if found[:1] != [first] or not known or set(found) - {first, second}:
            wrong.append((first, second, found))
    assert len(pairs()) > 150
    assert wrong == []


def test_an_answer_that_waits_for_a_lost_engine_is_no_cause_of_its_own() -> None:
    call = sound()
    put(call, EARLY - 1, "turn", who="caller", duration_s=1.0)
    put(call, EARLY + 10, "turn", who="bot", heard_s=0.0)
    assert names(call) == ["no answer"]
    engine_dies(call, EARLY + 2)
    assert names(call) == ["engine lost"]


# ── what is left ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_that_was_refused_says_by_whom_and_what_to_do() -> None:
    (cause,) = causes({"refused": {"status": 404, "reason": "no route takes it", "started_at": BEGAN}})
    assert (cause.name, cause.number, cause.at) == ("refused", "404 no route takes it", BEGAN)
    assert "dialplan" in cause.remedy


@pytest.mark.parametrize("stage", ["endpointing", "engine", "playout"])
def test_a_late_answer_names_the_stage_that_took_longest(stage: str) -> None:
    call = sound()
    stages = {"endpointing": 300.0, "engine": 200.0, "playout": 30.0} | {stage: 4000.0}
    put(call, LATE, "turn", who="bot", heard_s=1.0, latency_ms=stages | {"whole": sum(stages.values())})
    (cause,) = causes(call)
    assert stage in cause.number
    assert cause.remedy == cause_texts.LATE[stage]


def test_what_redis_has_forgotten_is_said_to_be_not_known() -> None:
    call = {"started_at": BEGAN, "ended_at": ENDED, "how": "failed: its hall died"}
    assert names(call) == ["hall died"]
    assert "Redis has forgotten" in not_known(call)[0]


def test_whether_somebody_heard_us_who_reports_nothing_is_not_known() -> None:
    assert "RTCP" in not_known(unreported(sound()))[0]
    assert not_known(sound()) == []


def test_each_end_that_is_a_fault_has_its_words() -> None:
    fine = {End.CALLER, End.CANCELLED, End.VOICE, End.TRANSFERRED, End.SOUND_STOPPED}
    assert set(cause_texts.OF_END) == set(End) - fine
    assert set(cause_texts.OF_END.values()) <= set(cause_texts.TEXTS)
    for end in End:
        call = {**sound(), "how": end.value}
        assert bool(names(call)) is (end not in fine - {End.CANCELLED, End.SOUND_STOPPED}), end


STRANGE: list[Any] = [None, [], "x", -1, 1e400, float("nan"), True, {"at": "x"}, [{"at": 1.0}], {"a": [{}]}]


@pytest.mark.parametrize("number", range(len(STRANGE)))
def test_what_a_stranger_wrote_harms_nothing(number: int) -> None:
    strange = STRANGE[number]
    for fact in sound():
        causes({**sound(), fact: strange})
        not_known({**sound(), fact: strange})
    for event in sound()["events"]:
        for key in {
            *event["data"],
            "grant_refused",
            "status",
            "latency_ms",
            "heard_s",
            "way",
            "why",
            "error",
        }:
            call = sound()
            for kind in ("opened", "muted", "barge_in", "echo", "turn", "transfer_failed", "engine_refused"):
                put(call, EARLY, kind, **{**event["data"], key: strange})
            causes(call)
    causes({"refused": {"status": strange, "started_at": strange, "reason": strange}})
