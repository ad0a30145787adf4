"""A phone calls the whole gateway and talks with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from gateway.cli.caller.call_request import CODECS, CallRequest
from gateway.cli.caller.testphone import place_call, place_calls
from gateway.config.runtime import runtime_for
from gateway.store.sound_track import FLAGS, STEP_S, SoundTrack, read_track, sound_key
from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import House
from tests.needs import need_sounds

pytestmark = pytest.mark.e2e

Say = Callable[[str], Path]


def test_a_question_is_answered(house: House, say: Say, tmp_path: Path) -> None:
    """By three callers at once, each with a codec of its own."""
    question = say("what are your opening hours")
    calls = [
        CallRequest(house.uri, script=[question], record=tmp_path / f"{codec}.wav", codec=codec)
        for codec in CODECS
    ]
    for codec, report in zip(CODECS, place_calls(calls), strict=True):
        assert report.answered, report.ended
        assert report.codec.lower().startswith(codec[:4])
        assert report.first_audio_s is not None
        assert report.first_audio_s < 1.0, "the greeting waits rendered when the call is answered"
        assert len(report.turns) == 1
        assert report.turns[0].latency_s is not None
        assert report.turns[0].latency_s < 6.0, "a busy machine takes its time"
        heard = loudness(tmp_path / f"{codec}.wav")
        assert np.sum(heard > 0.005) * 0.02 > 6.5, "the disclosure, the greeting and the answer"


def test_a_human_says_goodbye_and_the_gateway_hangs_up(house: House) -> None:
    human = need_sounds() / "vm-goodbye.wav"
    report = place_call(house.uri, script=[human], duration_s=40)
    assert report.answered
    assert "they hung up" in report.ended, report.ended
    house.wait_for("the session's end", lambda: _last(house)["state"] == "ended")
    assert _last(house)["how"] == "hung up"


def test_speaking_over_it_silences_it_and_is_told_to_the_engine(
    house: House, say: Say, tmp_path: Path
) -> None:
    record = tmp_path / "heard.wav"
    long_question = say("excuse me, excuse me, what is your address, tell me, where are you")
    kinds: list[str] = []
    for at_s in (8.3, 9.0, 9.7):  # on a busy machine the greeting comes later, and nobody speaks over it
        report = place_call(house.uri, script=[long_question], record=record, duration_s=12, at_s=at_s)
        assert report.answered
        house.wait_for("the session's end", lambda: _last(house)["state"] == "ended")
        call_id = _last(house)["call_id"]
        events = house.get(f"/api/calls/{call_id}")["events"]
        kinds = [event["kind"] for event in events]
        if "barge_in" in kinds:
            break
    assert "barge_in" in kinds, kinds
    assert kinds.count("grant") == 1
    barge_in_at = next(event["at"] for event in events if event["kind"] == "barge_in")
    track = _sound(house, call_id)
    assert not track.ended_early
    loud, speech, playing, ducked = [], [], [], []
    for part in track.parts:
        for step, (caller, voice, flags) in enumerate(zip(part.caller, part.voice, part.flags, strict=True)):
            at = part.began_at + STEP_S * step
            loud += [at] * (caller is not None and caller > -45)
            speech += [at] * bool(flags & FLAGS["speech"])
            playing += [at] * bool(flags & FLAGS["playing"] and voice is not None and voice > -60)
            ducked += [at] * bool(flags & FLAGS["ducked"])
    assert len(loud) * STEP_S > 2, "the caller's question"
    assert len(playing) * STEP_S > 5, "the disclosure, and the greeting's beginning"
    assert ducked
    assert ducked[0] - 1.0 < barge_in_at < ducked[-1] + 1.0, "ducked, and then cut"
    assert speech[0] < barge_in_at
    assert {duck["cut"] for duck in track.points["ducks"]} >= {1}
    ended_at = next(event["at"] for event in events if event["kind"] == "ended")
    assert track.parts[-1].ends_at == pytest.approx(ended_at, abs=1.0), "the track is as long as the call"


def test_nobody_answers_an_unknown_number(house: House) -> None:
    report = place_call(f"sip:nobody@127.0.0.1:{house.sip_port}")
    assert not report.answered
    assert "404" in report.ended


def test_the_call_is_in_the_api_the_registry_and_the_metrics(house: House) -> None:
    before = len(house.calls())
    report = place_call(house.uri, duration_s=2)
    assert report.answered
    house.wait_for("the call in the API", lambda: len(house.calls()) > before)
    call = _last(house)
    assert call["route"] == "demo"
    assert call["voice"] == "heart"
    assert re.search(r"^voicegate_\w*calls\w*(\{.*\})? [1-9]", house.get("/metrics"), re.MULTILINE)
    assert house.ready()


def _sound(house: House, call_id: str) -> SoundTrack:
    with Redis(
        unix_socket_path=str(runtime_for(house.folder / "data").redis), decode_responses=True
    ) as redis:
        rows: Any = redis.lrange(sound_key(call_id), 0, -1)
        return read_track(rows)


def _last(house: House) -> dict[str, str]:
    return max(house.calls(), key=lambda call: float(call["started_at"]))
