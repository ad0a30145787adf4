"""Recordings of the operator's own in a call: heard whole, again and again, or until the caller ends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.config.settings import Settings
from gateway.dialplan import Answer, Gather, Hangup, Playback, Route, Say
from gateway.ipc.line_messages import AnswerCall, ProgressCall
from tests.gateway.hall.virtual_hall import RINGING_S, WORD_S, House, Phone
from watermark import sound

HOUSE_TIME = True

LONG_S = 4.0
BYE = Hangup(say="goodbye")


def hold(**changes: Any) -> Playback:
    return Playback(**{"file": "music/long.wav", "text": "please hold", "synthetic": False, **changes})


@pytest.fixture
def house(house: House, tmp_path: Path) -> House:
    folder = tmp_path / "dialplans" / "music"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(7).normal(0, 0.1, round(LONG_S * 16_000))
    sound.write(folder / "long.wav", np.clip(noise, -0.5, 0.5).astype(np.float32), 16_000)
    return house


def played(house: House, phone: Phone) -> dict[str, Any]:
    (event,) = house.events(phone, "played")
    return event


async def test_a_recording_is_heard_whole_noted_and_remembered(house: House) -> None:
    phone = await house.ring(Answer(), hold(), Hangup(say="now goodbye"))
    await house.says("now goodbye")
    assert played(house, phone) == {
        "file": "music/long.wav", "text": "please hold", "heard_s": LONG_S, "ended": "end",
    }  # fmt: skip
    assert any("please hold" in item for item in house.memory.lists[f"vg:history:{phone.call_id}"])
    call = house.call(phone)
    assert call.said <= 480, "nothing of it counts as said under the grant, but the mark's tail"
    await house.over(phone)
    assert phone.heard_s() == pytest.approx(LONG_S + 2 * WORD_S, abs=0.1)
    assert house.engine.said == ["now goodbye"]


async def test_a_long_one_never_waits_in_the_call_s_queue_as_a_whole(house: House) -> None:
    phone = await house.ring(Answer(), hold(loop=True, max_s=90.0), BYE)
    most = 0.0
    for seconds in range(1, 81):
        await house.until(lambda: phone.heard_s() > seconds, 1.5, "sound without a gap")  # noqa: B023
        most = max(most, house.call(phone).playout.waiting_s)
    await house.says("goodbye", 20.0)
    assert most <= 1.6
    assert played(house, phone)["heard_s"] == 90.0
    await house.over(phone)
    assert phone.heard_s() == pytest.approx(90.0 + WORD_S, abs=0.3), "no gap at the seams"


async def test_a_limit_ends_it_in_the_middle(house: House) -> None:
    phone = await house.ring(Answer(), hold(max_s=1.0), BYE)
    await house.over(phone)
    assert played(house, phone)["heard_s"] == 1.0


@pytest.mark.parametrize("by", ["keys", "both"])
async def test_a_key_ends_it_and_counts_for_what_follows(house: House, by: str) -> None:
    one = Route(name="one", do=(Hangup(say="you chose one"),))
    menu = Gather(prompt="dial", branches={"12": "one"}, digits=2)
    phone = await house.ring(Answer(), hold(interruptible=by), menu, BYE, others=(one,))
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.press(phone, "12")
    await house.over(phone)
    assert house.engine.said == ["dial", "you chose one"] or house.engine.said == ["you chose one"]
    assert played(house, phone)["ended"] == "key"
    assert 0.9 < played(house, phone)["heard_s"] < 1.4


def asks(**changes: Any) -> Gather:
    menu = {"file": "music/long.wav", "prompt": "one two", "synthetic": False, "digits": 2}
    return Gather(**{**menu, "branches": {"12": "one"}, "otherwise": "none", "timeout_s": 2.0, **changes})


OTHERS = (
    Route(name="one", do=(Hangup(say="you chose one"),)),
    Route(name="none", do=(Hangup(say="nobody chose"),)),
)


async def test_a_gathers_recording_ends_at_the_first_key_which_counts(house: House) -> None:
    phone = await house.ring(Answer(), asks(), BYE, others=OTHERS)
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.press(phone, "12")
    await house.over(phone)
    assert house.engine.said == ["you chose one"]
    assert (played(house, phone)["ended"], played(house, phone)["text"]) == ("key", "one two")
    assert 0.9 < played(house, phone)["heard_s"] < 1.4
    assert house.events(phone, "gathered") == [{"digits": "12"}]


async def test_a_gathers_time_begins_when_its_recording_is_over(house: House) -> None:
    phone = await house.ring(Answer(), asks(), BYE, others=OTHERS)
    await house.until(lambda: phone.heard_s() >= LONG_S, 10.0)
    assert not house.events(phone, "gathered")
    await house.over(phone)
    assert played(house, phone)["heard_s"] == LONG_S
    assert house.engine.said == ["nobody chose"]


async def test_a_gather_without_its_recording_still_takes_keys(house: House) -> None:
    phone = await house.ring(Answer(), asks(file="music/gone.wav"), BYE, others=OTHERS)
    await house.until(lambda: house.events(phone, "not_played"))
    await house.press(phone, "12")
    await house.over(phone)
    assert house.engine.said == ["you chose one"]


async def test_speech_ends_it_and_goes_to_no_engine(house: House) -> None:
    phone = await house.ring(Answer(), hold(interruptible="speech"), BYE)
    await house.until(lambda: phone.heard_s() > 1.0)
    phone.speak(2.0)
    await house.over(phone)
    assert played(house, phone)["ended"] == "speech"
    assert played(house, phone)["heard_s"] < 2.5
    assert house.engine.told("append") == []


@pytest.mark.parametrize("by", ["no", "keys"])
async def test_who_may_not_end_it_by_speech_does_not(house: House, by: str) -> None:
    phone = await house.ring(Answer(), hold(interruptible=by), BYE)
    await house.until(lambda: phone.heard_s() > 1.0)
    phone.speak(2.0)
    await house.over(phone)
    assert played(house, phone)["ended"] == "end"


async def test_a_key_that_may_not_end_it_still_counts_for_what_follows(house: House) -> None:
    one = Route(name="one", do=(Hangup(say="you chose one"),))
    phone = await house.ring(Answer(), hold(), Gather(prompt="dial", branches={"1": "one"}), others=(one,))
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.press(phone, "1")
    await house.over(phone)
    assert played(house, phone)["ended"] == "end"
    assert house.engine.said[-1] == "you chose one"


async def test_one_that_the_engine_s_end_does_not_touch(house: House) -> None:
    phone = await house.ring(Answer(), hold(), hold())
    await house.until(lambda: phone.heard_s() > 1.0)
    house.engine.die()
    await house.over(phone)
    assert [event["ended"] for event in house.events(phone, "played")] == ["end", "end"]


async def test_a_revoked_voice_silences_the_recording_too(house: House) -> None:
    phone = await house.ring(Answer(), hold(loop=True, interruptible="keys"))
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.revoke()
    frames = len(phone.heard)
    await house.over(phone)
    assert phone.heard_s(frames + 5) == 0, "no grant, no voice, and nothing in its place"


async def test_one_that_is_gone_is_left_out_and_the_call_goes_on(house: House, tmp_path: Path) -> None:
    (tmp_path / "dialplans" / "music" / "long.wav").unlink()
    with capture_logs() as logs:
        phone = await house.ring(Answer(), hold(), BYE)
        await house.over(phone)
    assert house.events(phone, "not_played")[0]["file"] == "music/long.wav"
    assert [line["log_level"] for line in logs if line["event"] == "recording.unplayable"] == ["error"]
    assert house.engine.said == ["goodbye"]


# ── before the answer ────────────────────────────────────────────────────────────────────────────────


def order(phone: Phone) -> list[type]:
    return [type(asked) for asked in phone.asked if isinstance(asked, ProgressCall | AnswerCall)]


async def test_before_the_answer_it_is_heard_and_the_call_is_not_taken(house: House) -> None:
    phone = await house.ring(hold(), Answer(), Say(text="hello"))
    await house.until(lambda: phone.heard_s() > 3.0)
    call = house.call(phone)
    assert order(phone) == [ProgressCall]
    assert not call.line.confirmed.is_set()
    assert call.state not in ("answered", "confirmed")
    assert not house.events(phone, "confirmed")
    await house.over(phone)
    assert order(phone) == [ProgressCall, AnswerCall]
    assert phone.heard_s() == pytest.approx(LONG_S + WORD_S, abs=0.15)


async def test_a_line_that_has_no_sound_before_the_answer_plays_it_first_thing(house: House) -> None:
    call_id = await house.offer(hold(), Answer(), Say(text="hello"), transport="webrtc")
    phone = Phone(call_id, 101, 1)
    phone.early = None
    await (await house.line()).start(phone)
    await house.over(phone)
    assert order(phone) == [ProgressCall, AnswerCall], "and it is answered once"
    assert phone.heard_s() == pytest.approx(LONG_S + WORD_S, abs=0.15)
    assert house.engine.said == ["hello"]


async def test_who_gives_up_before_the_answer_leaves_nothing(house: House) -> None:
    phone = await house.ring(hold(), Answer(), Say(text="hello"))
    await house.until(lambda: phone.heard_s() > 1.0)
    await house.hang_up(phone)
    await house.over(phone)
    assert played(house, phone)["ended"] == "cut"
    assert house.engine.said == []
    assert house.is_empty()


async def test_the_call_s_longest_time_counts_from_the_answer(house: House) -> None:
    house.hall.settings = Settings(data_dir=house.settings.data_dir, turns_by_words="off", max_call_s=5.0)
    phone = await house.ring(hold(), Answer(), hold(loop=True, interruptible="keys"))
    await house.until(lambda: phone.answered)
    assert phone.heard_s() == pytest.approx(LONG_S, abs=0.2)
    took = await house.until(lambda: phone.call_id not in house.hall.calls)
    assert took == pytest.approx(5.0 + RINGING_S, abs=0.3)


async def test_another_hall_does_not_play_again_what_was_heard_before_the_answer(house: House) -> None:
    phone = await house.ring(hold(), Answer(), Say(text="one two three four five six"), BYE)
    await house.until(lambda: house.events(phone, "confirmed"))
    await house.hall_dies()
    await house.hall._joined(house.front)  # type: ignore[arg-type]
    await (await house.line()).start(phone, resumed=True)
    await house.over(phone)
    assert len(house.events(phone, "played")) == 1
