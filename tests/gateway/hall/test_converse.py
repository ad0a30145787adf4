"""Turns of a live conversation: who speaks, who is cut, and what the engine is told of it."""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import groupby

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse, Hangup
from gateway.dialplan.routes import Keep
from gateway.hall.media.turns import TurnRules
from gateway.ipc.hall_messages import TurnAnswered
from gateway.ipc.line_messages import ReferCall, ShownHeard, ShownNote, ShownState, ShownWords
from model import client
from model.api import EarlyHearing, HearingState
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, TOLD_S, WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind",
    greeting="how can I help",
    goodbye="bye bye now",
    silence_s=3.0,
    silence_prompts=("are you there", "I cannot hear you"),
    no_transfer="nobody is here",
)
KEEP = {"keep": Keep(transcript=True)}


async def talking(house: House, verb: Converse = TALK, **offer: object) -> Phone:
    """A call whose greeting was heard."""
    phone = await house.ring(Answer(), verb, **offer)  # type: ignore[arg-type]
    await house.until(lambda: phone.heard_s() > 4 * WORD_S - 0.1)
    await house.until(lambda: not house.call(phone).playout.busy)
    return phone


async def test_a_turn_goes_to_the_engine_with_its_preroll_and_is_answered(house: House) -> None:
    house.engine.answers = [scripted.Answer("nine to five")]
    phone = await talking(house)
    phone.speak(1.0)
    await house.says("nine to five")
    kinds = [kind for kind, _ in house.engine.sessions[0].told if kind in ("append", "commit", "respond")]
    assert kinds[-2:] == ["commit", "respond"]
    sound = np.concatenate(house.engine.told("append"))
    loud = np.flatnonzero(np.abs(sound) > 0.05)
    assert loud[0] / 24_000 == pytest.approx(0.3, abs=0.09), "300 ms of what came before the onset"
    assert (loud[-1] - loud[0]) / 24_000 == pytest.approx(1.0, abs=0.03), "and all of the turn"
    assert house.engine.told("commit") == [pytest.approx(len(sound) / 24_000)]
    await house.until(lambda: phone.heard_s() == pytest.approx(7 * WORD_S, abs=0.12))


async def test_the_engine_hears_while_the_caller_still_speaks(house: House) -> None:
    phone = await talking(house)
    phone.speak(2.0)
    await asyncio.sleep(1.0)
    sent_s = sum(len(sound) for sound in house.engine.told("append")) / 24_000
    assert sent_s == pytest.approx(1.3, abs=0.2)
    assert house.engine.told("commit") == []


async def test_silence_is_not_sent_to_the_engine(house: House) -> None:
    await talking(house)
    await asyncio.sleep(2.0)
    assert house.engine.told("append") == []


async def test_the_voice_is_ducked_at_the_onset_and_cut_when_it_is_speech(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 0.4)
    began = len(phone.heard)
    phone.speak(1.0)
    await house.until(lambda: house.events(phone, "barge_in"))
    await asyncio.sleep(0.2)
    levels = phone.heard[began:]
    full = levels[0]
    ducked = next(at for at, level in enumerate(levels) if level < 0.3 * full)
    silent = next(at for at, level in enumerate(levels) if level < 0.01)
    assert ducked * 0.02 <= 0.15, "two windows of 32 ms, the frame under way, and the line's queue"
    assert silent * 0.02 <= 0.5
    assert all(level < 0.3 * full for level in levels[ducked:silent])


async def test_an_onset_ducks_within_a_frame(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 0.4)
    phone.speak(1.0)
    call = house.call(phone)
    await house.until(lambda: call.ear.turns.speaking)
    await asyncio.sleep(0.02)
    legs = house.hall.floor.rates[8_000].legs
    assert legs._target[call.seat.row] == pytest.approx(0.2)


async def test_the_engine_is_told_what_was_really_played(house: House) -> None:
    long = dataclasses.replace(TALK, greeting=" ".join(["word"] * 10))
    phone = await house.ring(Answer(), long)
    phone.waiting.extend([None] * 3)  # the line is three frames behind the hall
    await house.until(lambda: phone.heard_s() > 0.4)
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("truncate"))
    ((item, told_ms),) = house.engine.told("truncate")
    assert item == "engine-item1"
    assert house.engine.told("cancel") == ["resp1"]
    pulled_ms = phone.played / 8  # 8 kHz: what the line played while its direction included send
    assert told_ms <= pulled_ms
    assert told_ms == pytest.approx(pulled_ms, abs=45)
    (event,) = house.events(phone, "barge_in")
    assert event["heard_s"] == [pytest.approx(told_ms / 1000, abs=0.011)]


async def test_what_a_lossy_line_did_not_play_does_not_count_as_heard(house: House) -> None:
    line = await house.line()
    line.lose = lambda seq: seq % 5 == 0  # a fifth of the ticks never arrive, nor are they answered
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 0.6)
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("truncate"))
    ((_, told_ms),) = house.engine.told("truncate")
    assert told_ms <= phone.played / 8 + 1


async def test_after_a_cough_the_voice_comes_back_and_nothing_is_lost(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 0.3)
    began = len(phone.heard)
    phone.speak(0.15)
    await house.until(lambda: not house.call(phone).playout.busy)
    await asyncio.sleep(0.1)
    levels = phone.heard[began:]
    assert min(levels[:20]) < 0.3 * levels[0], "ducked"
    assert max(levels[-20:]) == pytest.approx(levels[0], rel=0.1), "and back"
    assert phone.heard_s() == pytest.approx(4 * WORD_S, abs=0.06)
    assert house.engine.told("cancel") == house.engine.told("commit") == []
    assert house.engine.sessions[0].told[-1][0] != "append"
    assert "clear" in [kind for kind, _ in house.engine.sessions[0].told]


# ── by words ────────────────────────────────────────────────────────────────────────────────────────────────


async def ended_s(house: House, phone: Phone, state: HearingState | None) -> float:
    """Quiet until the turn is ended, when the engine understands a pause as this."""
    commits = len(house.engine.told("commit"))
    phone.speak(1.0)
    await house.until(lambda: not phone.speaking)
    quiet_since = house.loop.time()
    await asyncio.sleep(0.14)
    if state is not None:
        house.engine.sessions[-1].hears(state)
    await house.until(lambda: len(house.engine.told("commit")) > commits)
    took = house.loop.time() - quiet_since
    await house.until(lambda: house.call(phone).playout.busy)
    await house.until(lambda: not house.call(phone).playout.busy)
    return took


async def test_the_engine_s_words_decide_when_a_turn_is_over(house: House) -> None:
    house.engine.knows_asides = True
    phone = await talking(house)
    assert house.engine.told("update")[0]["hearing"] is True
    rules = TurnRules()
    assert await ended_s(house, phone, "answered") == pytest.approx(rules.answered_s, abs=0.06)
    assert await ended_s(house, phone, None) == pytest.approx(rules.plain_s, abs=0.06)
    assert await ended_s(house, phone, "plain") == pytest.approx(rules.plain_s, abs=0.06)
    assert await ended_s(house, phone, "unfinished") == pytest.approx(rules.unfinished_s, abs=0.06)


async def test_at_a_pause_the_engine_has_all_of_the_sound_at_once(house: House) -> None:
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: not phone.speaking)
    await asyncio.sleep(0.15)
    sound = np.concatenate(house.engine.told("append"))
    quiet_s = (len(sound) - np.flatnonzero(np.abs(sound) > 0.05)[-1]) / 24_000
    assert quiet_s == pytest.approx(0.15, abs=0.03), "not in pieces of 80 ms"


async def test_words_of_a_turn_that_is_over_mean_nothing_to_the_next(house: House) -> None:
    house.engine.knows_asides = True
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("commit"))
    late = client.HeardEarly(0, EarlyHearing("answered", 60.0))
    house.engine.sessions[-1].send(late)
    phone.speak(1.0)
    await house.until(lambda: not phone.speaking)
    began = house.loop.time()
    await asyncio.sleep(0.1)
    house.engine.sessions[-1].send(late)
    await house.until(lambda: len(house.engine.told("commit")) == 2)
    assert house.loop.time() - began == pytest.approx(TurnRules().plain_s, abs=0.06)


async def test_another_engine_s_words_end_the_turn_that_the_first_began_to_hear(house: House) -> None:
    phone = await talking(house)
    phone.speak(3.0)
    await asyncio.sleep(1.0)
    house.engine.die()
    house.engine.down = False
    await house.until(lambda: not phone.speaking)
    began = house.loop.time()
    await asyncio.sleep(0.14)
    assert len(house.engine.sessions) == 2
    house.engine.sessions[-1].hears("answered")
    await house.until(lambda: house.engine.told("commit"))
    assert house.loop.time() - began == pytest.approx(TurnRules().answered_s, abs=0.06)


async def test_an_okay_while_we_talk_ducks_our_voice_and_does_not_cut_it(house: House) -> None:
    house.engine.knows_asides = True
    house.engine.answers = [scripted.Answer("one two three four five six seven eight nine ten")]
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.call(phone).playout.busy)
    await asyncio.sleep(0.5)
    began = len(phone.heard)
    phone.speak(0.45)
    await house.until(lambda: not phone.speaking)
    await asyncio.sleep(0.2)
    house.engine.sessions[-1].hears("plain", aside=True)
    await asyncio.sleep(0.2)
    levels = phone.heard[began:]
    assert min(levels) < 0.3 * levels[0], "ducked"
    assert levels[-1] == pytest.approx(levels[0], rel=0.3), "and back"
    assert house.events(phone, "barge_in") == []
    assert len(house.engine.told("commit")) == 1
    await house.until(lambda: not house.call(phone).playout.busy)
    assert phone.heard_s(began) > 2.5, "all of it was heard"


async def test_a_hello_while_we_talk_cuts_our_voice(house: House) -> None:
    house.engine.knows_asides = True
    house.engine.answers = [scripted.Answer("one two three four five six seven eight nine ten")]
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.call(phone).playout.busy)
    await asyncio.sleep(0.5)
    phone.speak(0.45)
    await house.until(lambda: not phone.speaking)
    await asyncio.sleep(0.2)
    assert house.events(phone, "barge_in") == [], "its words are waited for"
    house.engine.sessions[-1].hears("plain")
    await asyncio.sleep(0.1)
    assert len(house.events(phone, "barge_in")) == 1
    await house.until(lambda: len(house.engine.told("commit")) == 2)


async def test_who_speaks_on_cuts_our_voice_before_any_words_are_known(house: House) -> None:
    house.engine.knows_asides = True
    phone = await house.ring(Answer(), TALK)
    await house.until(lambda: phone.heard_s() > 0.4)
    phone.speak(2.0)
    await house.until(lambda: house.events(phone, "barge_in"))
    assert house.events(phone, "barge_in")[0]["onset_to_cut_s"] < TurnRules().barge_s + 0.1


async def test_a_caller_who_speaks_before_the_reply_exists_stops_it_too(house: House) -> None:
    house.engine.think_s = 1.0
    house.engine.answers = [scripted.Answer(" ".join(["long"] * 20)), scripted.Answer("second answer")]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.told("commit")) == 1)
    phone.speak(0.6)
    await house.until(lambda: house.engine.told("cancel"))
    assert house.engine.told("truncate")[-1][1] == 0, "nothing of it was heard"
    await house.says("second answer")
    heard = phone.heard_s()
    await asyncio.sleep(2.0)
    assert phone.heard_s() - heard == pytest.approx(2 * WORD_S, abs=0.1), "only the second one is heard"


async def test_a_voice_that_may_not_be_interrupted_is_not(house: House) -> None:
    phone = await house.ring(
        Answer(), Converse(instructions="x", greeting="a b c d e f", interruptible=False)
    )
    await house.until(lambda: phone.heard_s() > 0.4)
    phone.speak(1.0)
    await house.until(lambda: not house.call(phone).playout.busy)
    await asyncio.sleep(0.2)
    assert phone.heard_s() == pytest.approx(6 * WORD_S, abs=0.06)
    assert house.engine.told("append") == house.engine.told("cancel") == []


async def test_silence_is_asked_about_twice_and_then_comes_goodbye(house: House) -> None:
    phone = await talking(house)
    assert await house.over(phone) == "hung up"
    assert house.engine.said == ["how can I help", "are you there", "I cannot hear you", "bye bye now"]
    assert [event["count"] for event in house.events(phone, "silence")] == [1, 2]
    assert house.events(phone, "goodbye") == [{"why": "silence"}]
    assert phone.heard_s() == pytest.approx(14 * WORD_S, abs=0.2), "goodbye is heard to its end"


async def test_who_answers_a_silence_prompt_has_all_of_them_again(house: House) -> None:
    phone = await talking(house)
    await house.says("are you there")
    phone.speak(0.6)
    await house.until(lambda: house.engine.told("commit"))
    await house.over(phone)
    assert house.engine.said.count("are you there") == 2


async def test_the_conversation_ends_politely_at_its_time_limit(house: House) -> None:
    phone = await house.ring(
        Answer(), Converse(instructions="x", greeting="hi", goodbye="bye", max_s=5.0, silence_s=60.0)
    )
    assert await house.over(phone) == "hung up"
    assert house.events(phone, "goodbye") == [{"why": "time limit"}]


async def test_a_hold_in_a_reply_pauses_it(house: House) -> None:
    house.engine.answers = [scripted.Answer(" ".join(["word"] * 10))]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5 * WORD_S)
    await house.hold(phone, held=True)
    heard = phone.heard_s()
    await asyncio.sleep(20.0)
    assert phone.heard_s() == pytest.approx(heard, abs=0.05)
    assert not house.events(phone, "silence"), "a held caller is not asked whether they are there"
    await house.hold(phone, held=False)
    await house.until(lambda: not house.call(phone).playout.busy)
    assert phone.heard_s() == pytest.approx(14 * WORD_S, abs=0.2), "the rest is heard after it"


async def test_music_on_hold_is_no_turn_and_silence_on_hold_is_none(house: House) -> None:
    phone = await talking(house)
    await house.hold(phone, held=True)
    phone.receiving = True
    phone.speak(8.0)
    await asyncio.sleep(20.0)
    assert house.engine.told("append") == house.engine.told("commit") == []
    assert not house.events(phone, "silence"), "the caller has not been silent: they were away"
    await house.hold(phone, held=False)
    await asyncio.sleep(1.0)
    assert phone.heard_s() == pytest.approx(4 * WORD_S, abs=0.1), "and nothing was saved up for them"
    await house.says("are you there", 3.0)


async def test_what_was_begun_before_a_hold_is_forgotten(house: House) -> None:
    phone = await talking(house)
    phone.speak(5.0)
    await house.until(lambda: house.engine.told("append"))
    await house.hold(phone, held=True)
    await asyncio.sleep(6.0)
    await house.hold(phone, held=False)
    phone.speak(0.6)
    await house.until(lambda: house.engine.told("commit"))
    assert house.engine.told("commit")[0] < 1.5, "only what was said afterwards"


async def test_a_hold_while_ducked_does_not_leave_the_voice_low(house: House) -> None:
    phone = await house.ring(Answer(), Converse(instructions="x", greeting=" ".join(["word"] * 10)))
    await house.until(lambda: phone.heard_s() > 0.4)
    full = phone.heard[-1]
    phone.speak(0.2)
    await house.until(lambda: house.call(phone).ear.turns.speaking)
    await house.hold(phone, held=True)
    await asyncio.sleep(1.0)
    await house.hold(phone, held=False)
    await asyncio.sleep(0.5)
    assert phone.heard[-1] == pytest.approx(full, rel=0.1)


async def test_the_last_word_is_heard_before_the_engine_hangs_up(house: House) -> None:
    house.engine.answers = [scripted.Answer("so long my friend", tool="hang_up")]
    phone = await talking(house)
    phone.speak(0.6)
    assert await house.over(phone) == "hung up"
    assert phone.heard_s() == pytest.approx(8 * WORD_S, abs=0.1)
    assert phone.hung_up


async def test_an_engine_that_hangs_up_without_a_word_says_goodbye_first(house: House) -> None:
    house.engine.answers = [scripted.Answer("", tool="hang_up")]
    phone = await talking(house)
    phone.speak(0.6)
    assert await house.over(phone) == "hung up"
    assert house.engine.said[-1] == "bye bye now"
    assert phone.heard_s() == pytest.approx(7 * WORD_S, abs=0.1)


async def test_a_tool_of_a_reply_that_was_interrupted_is_not_used(house: House) -> None:
    house.engine.answers = [scripted.Answer(" ".join(["bye"] * 10), tool="hang_up"), scripted.Answer("yes?")]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5 * WORD_S)
    talk = house.engine.sessions[0]
    cancel = talk.cancel

    async def too_late(response_id: str) -> None:
        talk.send(client.ToolRequest("hang_up", "{}"))
        await cancel(response_id)

    talk.cancel = too_late  # type: ignore[method-assign]
    phone.speak(0.8)
    await house.says("yes?")
    assert not house.events(phone, "tool")


async def test_a_tool_that_nobody_knows_changes_nothing(house: House) -> None:
    house.engine.answers = [scripted.Answer("one moment", tool="launch")]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: house.events(phone, "tool"))
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.told("commit")) == 2)


@pytest.mark.parametrize(
    ("target", "status", "how", "said"),
    [
        ("desk", 200, "transferred", None),
        ("desk", 486, None, "nobody is here"),
        ("desk", None, None, "nobody is here"),
        (None, 200, None, "nobody is here"),
    ],
    ids=["accepted", "refused", "failed at the line", "no target"],
)
async def test_a_caller_asks_for_a_person(
    house: House, target: str | None, status: int | None, how: str | None, said: str | None
) -> None:
    house.engine.answers = [scripted.Answer("one moment please", tool="transfer"), scripted.Answer("well")]
    verb = Converse(
        instructions="x", greeting="how can I help", no_transfer="nobody is here", transfer=target
    )
    phone = await talking(house, verb, targets={"desk": "sip:100@192.0.2.1"})
    phone.transfers_to = status
    phone.speak(0.6)
    if how is not None:
        assert await house.over(phone) == how
        asked = [message for message in phone.asked if isinstance(message, ReferCall)]
        assert asked == [ReferCall(phone.call_id, "sip:100@192.0.2.1")]
        assert phone.heard_s() == pytest.approx(7 * WORD_S, abs=0.1), "after the words were heard"
        return
    assert said is not None
    await house.says(said)
    assert bool(house.events(phone, "transfer_failed")) == (target is not None)
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(0.6)
    await house.says("well")


async def test_the_turns_are_written_down_with_their_own_words(house: House) -> None:
    house.engine.hear_s = 1.2
    house.engine.hears = ["first question", "second question"]
    house.engine.think_s = 0.2
    house.engine.answers = [scripted.Answer("first answer " * 5), scripted.Answer("second answer")]
    phone = await talking(house, route=KEEP)
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.told("commit")) == 1)
    await asyncio.sleep(0.25)
    phone.speak(0.4)  # into the first answer, which is understood after the second was asked
    await house.until(lambda: len(house.engine.told("commit")) == 2)
    await house.until(lambda: len(house.events(phone, "turn")) == 4)
    turns = house.events(phone, "turn")
    assert [turn.get("text") for turn in turns] == [
        "first question",
        turns[1].get("text"),
        "second question",
        "second answer",
    ]
    assert turns[1]["interrupted"]
    assert turns[1]["heard_s"] < 2.0
    assert turns[1]["text"].startswith("first")
    assert not turns[3].get("interrupted")
    assert turns[3]["heard_s"] == pytest.approx(2 * WORD_S, abs=0.01)


async def test_the_latency_of_a_turn_is_split_by_stage(house: House) -> None:
    house.engine.think_s = 0.5
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.front.told(TurnAnswered))
    latency = house.front.told(TurnAnswered)[0].latency
    assert latency["engine"] == pytest.approx(0.5, abs=0.03)
    assert latency["endpointing"] == pytest.approx(TurnRules().plain_s, abs=0.07)
    assert latency["playout"] < 0.1
    stages = latency["endpointing"] + latency["engine"] + latency["playout"]
    assert latency["whole"] == pytest.approx(stages, abs=0.03)
    await house.until(lambda: house.events(phone, "turn"))
    bot = house.events(phone, "turn")[1]
    assert bot["latency_ms"]["whole"] == pytest.approx(latency["whole"] * 1000, abs=1)


async def test_the_course_of_a_reply_is_one_line_from_the_speech_to_the_wire(house: House) -> None:
    house.engine.think_s = 0.5
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: not phone.speaking)
    ended_at, began = house.loop.wall(), len(phone.heard)
    await house.until(lambda: phone.heard_s(began) > 0.01)
    heard_at = house.loop.wall()
    await house.until(lambda: house.events(phone, "turn"))
    bot = house.events(phone, "turn")[1]
    course = bot["course_ms"]
    assert bot["speech_ended_at"] == pytest.approx(ended_at, abs=0.07)
    assert list(course) == ["endpoint", "asked", "word", "sound", "frame", "wire"]
    times = list(course.values())
    assert times == sorted(times)
    assert course["endpoint"] == pytest.approx(bot["latency_ms"]["endpointing"], abs=1)
    assert course["sound"] - course["asked"] == pytest.approx(500, abs=30)
    assert course["wire"] == pytest.approx(bot["latency_ms"]["whole"], abs=1)
    assert bot["speech_ended_at"] + course["wire"] / 1000 == pytest.approx(heard_at, abs=0.05)


async def test_a_reply_that_never_sounds_has_the_course_that_it_had(house: House) -> None:
    phone = await talking(house)
    house.engine.think_s = 30.0
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("commit"))
    await asyncio.sleep(0.2)
    await house.hang_up(phone)
    await house.over(phone)
    bot = house.events(phone, "turn")[1]
    assert list(bot["course_ms"]) == ["endpoint", "asked"]
    assert "latency_ms" not in bot


async def test_a_turn_is_written_down_when_the_caller_hangs_up_in_the_reply(house: House) -> None:
    house.engine.hears = ["a question"]
    house.engine.answers = [scripted.Answer("a long answer " * 5)]
    phone = await talking(house, route=KEEP)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5 * WORD_S)
    await house.hang_up(phone)
    await house.over(phone)
    asked, answered = house.events(phone, "turn")
    assert asked["text"] == "a question"
    assert answered["interrupted"]


async def test_without_leave_no_word_is_kept(house: House) -> None:
    house.engine.hears = ["a secret"]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: house.events(phone, "turn"))
    assert all("text" not in turn for turn in house.events(phone, "turn"))


async def test_the_page_of_a_browser_sees_what_is_said_and_heard(house: House) -> None:
    house.engine.hears = ["when are you open"]
    house.engine.answers = [scripted.Answer("nine to five")]
    phone = await talking(house, transport="webrtc", line="web0", rate_hz=48_000, route=KEEP)
    phone.speak(0.6)
    await house.until(lambda: house.front.told(TurnAnswered))
    await house.until(lambda: not house.call(phone).playout.busy)
    kinds = [event.kind for event in phone.shown]
    assert kinds[0] == "said" or kinds[0] == "state"
    final = [event.text for event in phone.shown if isinstance(event, ShownWords) and event.final]
    assert final == ["how can I help", "nine to five"]
    assert [e.text for e in phone.shown if isinstance(e, ShownHeard)] == ["when are you open"]
    states = ["thinking", "speaking", "listening"]
    await house.until(lambda: [e.state for e in phone.shown if isinstance(e, ShownState)][-3:] == states)


async def test_the_page_says_that_the_voice_speaks_from_the_first_word_on(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK, transport="webrtc", line="web0", rate_hz=48_000)
    await house.until(lambda: phone.heard_s() > 0.1)
    states = [event.state for event in phone.shown if isinstance(event, ShownState)]
    assert states[-1] == "announcing", "the caller may not interrupt a disclosure"
    await house.until(lambda: phone.heard_s() > TOLD_S + 4 * WORD_S - 0.1)
    await house.until(lambda: not house.call(phone).playout.busy)
    await asyncio.sleep(0.1)
    states = [event.state for event in phone.shown if isinstance(event, ShownState)]
    assert [state for state, _ in groupby(states)][-2:] == ["speaking", "listening"]
    words = [event.text for event in phone.shown if isinstance(event, ShownWords) and event.final]
    assert words == [TOLD, "how can I help"]


async def test_a_key_that_nothing_asks_for_is_said_to_be_none(house: House) -> None:
    phone = await talking(house, transport="webrtc", line="web0", rate_hz=48_000)
    await house.press(phone, "5")
    await house.until(lambda: [event for event in phone.shown if isinstance(event, ShownNote)])


async def test_after_the_conversation_the_route_hangs_up(house: House) -> None:
    phone = await house.ring(Answer(), Hangup(say="we are closed"))
    assert await house.over(phone) == "hung up"
    assert house.engine.said == ["we are closed"]
