"""The engine: away, busy, silent, too fast, dying; and what the caller hears of it."""

from __future__ import annotations

import asyncio
from itertools import groupby

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.dialplan import Answer, Converse, Say
from gateway.hall.dialogue.engine_life import RECONNECT_FOR_S
from gateway.hall.dialogue.prompts import RETRY_S, Prompts, render
from gateway.hall.dialogue.speech import FILLER
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import EndCall, RenderPrompts
from gateway.ipc.line_messages import ShownState, ShownWords
from model import client, events
from model.errors import EngineError
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind",
    greeting="how can I help",
    engine_lost="something is broken",
    busy="we are busy now",
    silence_s=30.0,
)
LOST_S, BUSY_S, FILLER_S, TELLING_S = 1.0, 0.8, 0.6, 1.1


@pytest.fixture
def prompts(house: House) -> Prompts:
    kept = house.hall.prompts
    lengths = {TALK.engine_lost: LOST_S, TALK.busy: BUSY_S, FILLER: FILLER_S, TOLD: TELLING_S}
    for text, seconds in lengths.items():
        kept.keep(text, [np.full(round(24_000 * seconds), 0.3, np.float32)])
    return kept


async def talking(house: House, *verbs: object, **offer: object) -> Phone:
    phone = await house.ring(Answer(), *verbs or (TALK,), **offer)  # type: ignore[arg-type]
    await house.until(lambda: phone.heard_s() > 4 * WORD_S - 0.1)
    await house.until(lambda: not house.call(phone).playout.busy)
    return phone


async def test_a_busy_engine_is_said_to_be_busy_at_once(house: House, prompts: Prompts) -> None:
    house.engine.busy = True
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    took = await house.until(lambda: phone.heard_s() > 0)
    assert took < 0.5
    assert await house.over(phone) == "failed: the engine was busy"
    assert phone.heard_s() == pytest.approx(TELLING_S + BUSY_S, abs=0.05), "after what must be told first"
    assert house.events(phone, "engine_refused")[0]["code"] == "busy"


async def test_a_busy_engine_without_a_prompt_ends_the_call_all_the_same(house: House) -> None:
    house.engine.busy = True
    phone = await house.ring(Answer(), Say(text="hello"))
    assert await house.over(phone) == "failed: the engine was busy"


async def test_an_engine_that_never_will_is_not_asked_again(house: House, prompts: Prompts) -> None:
    house.engine.refuses = True
    phone = await house.ring(Answer(), TALK)
    assert await house.over(phone, 5) == "failed: the engine refused"


async def test_an_engine_that_comes_back_goes_on_where_it_stopped(house: House, prompts: Prompts) -> None:
    house.engine.hears = ["a question"]
    house.engine.answers = [scripted.Answer("an answer"), scripted.Answer("another answer")]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5.9 * WORD_S)
    await house.until(lambda: not house.call(phone).playout.busy)
    house.engine.die()
    await asyncio.sleep(2.0)
    assert phone.heard_s() == pytest.approx(6 * WORD_S, abs=0.1), "nobody waits, so nothing is said of it"
    house.engine.down = False
    await asyncio.sleep(0.3)
    phone.speak(0.6)
    await house.says("another answer")
    (restored,) = house.engine.told("restore")
    words = [(item["role"], item["content"][0]["text"]) for item in restored]
    assert words == [
        ("assistant", "how can I help"),
        ("user", "a question"),
        ("assistant", "an answer"),
    ]
    assert house.engine.sessions[-1].told[0][1]["instructions"] == "be kind"
    assert phone.call_id in house.hall.calls


async def test_calls_while_an_engine_prepares_itself_wait_ten_seconds_for_it(
    house: House, prompts: Prompts
) -> None:
    """It takes two minutes, since it captures graphs."""
    house.engine.down = True
    await asyncio.sleep(60.0)
    early = await house.ring(Answer(), TALK)
    assert await house.over(early, 2 * RECONNECT_FOR_S) == "failed: the engine was lost"
    assert early.heard_s() >= LOST_S - 0.1
    await asyncio.sleep(30.0)
    late = await house.ring(Answer(), TALK)
    await asyncio.sleep(RECONNECT_FOR_S - 2.0)
    house.engine.down = False
    await house.says("how can I help")
    assert late.call_id in house.hall.calls


async def test_an_engine_that_writes_nothing_down_is_restored_with_the_callers_sound(
    house: House, prompts: Prompts
) -> None:
    house.engine.transcribes = False
    house.engine.answers = [scripted.Answer("an answer"), scripted.Answer("another answer")]
    phone = await talking(house)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5.9 * WORD_S)
    await house.until(lambda: not house.call(phone).playout.busy)
    said = np.concatenate(house.engine.told("append"))
    house.engine.die()
    house.engine.down = False
    await asyncio.sleep(0.5)
    phone.speak(0.6)
    await house.says("another answer")
    (restored,) = house.engine.told("restore")
    assert [item["role"] for item in restored] == ["assistant", "user", "assistant"]
    heard = events.pcm_from_base64(restored[1]["content"][0]["audio"])
    assert len(heard) == pytest.approx(len(said), abs=4)
    kept = await house.memory.history(phone.call_id)
    assert kept[1]["content"][0]["rate_hz"] == 8_000, "as the line received it"


async def test_a_question_that_died_with_the_engine_is_asked_again(house: House, prompts: Prompts) -> None:
    house.engine.think_s = 3.0
    phone = await talking(house)
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("commit"))
    heard = phone.heard_s()
    asked = np.concatenate(house.engine.told("append"))
    house.engine.die()
    filler = await house.until(lambda: phone.heard_s() > heard)
    assert filler == pytest.approx(0.7, abs=0.2), "a short filler, once"
    await asyncio.sleep(1.0)
    house.engine.down, house.engine.think_s = False, 0.05
    house.engine.answers = [scripted.Answer("here you are")]
    await house.says("here you are")
    again = house.engine.sessions[-1]
    assert np.array_equal(np.concatenate([what for kind, what in again.told if kind == "append"]), asked)
    kinds = [kind for kind, _ in again.told if kind != "append"]
    assert kinds[:4] == ["update", "restore", "commit", "respond"]
    await house.until(lambda: phone.heard_s() == pytest.approx(heard + FILLER_S + 3 * WORD_S, abs=0.15))


async def test_the_first_half_of_a_sentence_is_not_lost_with_the_engine(
    house: House, prompts: Prompts
) -> None:
    phone = await talking(house)
    phone.speak(2.0)
    await asyncio.sleep(1.0)
    house.engine.die()
    await asyncio.sleep(0.3)
    house.engine.down = False
    await house.until(lambda: house.engine.told("commit"))
    assert house.engine.told("commit") == [pytest.approx(2.7, abs=0.2)]


async def test_an_engine_that_stays_away_is_apologised_for(house: House, prompts: Prompts) -> None:
    phone = await talking(house)
    heard = phone.heard_s()
    house.engine.die()
    took = await house.until(lambda: house.call(phone).inbox.refused, RECONNECT_FOR_S + 1)
    assert took == pytest.approx(RECONNECT_FOR_S, abs=0.3)
    assert await house.over(phone) == "failed: the engine was lost"
    assert phone.heard_s() - heard == pytest.approx(LOST_S, abs=0.05)
    assert house.is_empty()


async def test_the_page_shows_what_is_said_in_the_engines_place(house: House, prompts: Prompts) -> None:
    house.engine.think_s = 3.0
    phone = await talking(house, transport="webrtc", line="web0", rate_hz=48_000)
    phone.speak(1.0)
    await house.until(lambda: house.engine.told("commit"))
    house.engine.die()
    await house.over(phone)
    shown = [event.text for event in phone.shown if isinstance(event, ShownWords) and event.final]
    assert shown[-2:] == [FILLER, TALK.engine_lost]
    states = [event.state for event in phone.shown if isinstance(event, ShownState)]
    states = [state for state, _ in groupby(states)]
    assert states[-3:] == ["speaking", "thinking", "speaking"], "a filler leaves the answer owing"


async def test_an_engine_that_is_away_from_the_start_is_apologised_for(
    house: House, prompts: Prompts
) -> None:
    house.engine.down = True
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.until(lambda: phone.answered)
    assert await house.over(phone) == "failed: the engine was lost"
    assert phone.heard_s() == pytest.approx(TELLING_S + LOST_S, abs=0.1), "no filler before the disclosure"


async def test_a_disclosure_that_died_with_the_engine_is_said_again_from_its_first_word(
    house: House, prompts: Prompts
) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.until(lambda: phone.heard_s() > 0.5 * WORD_S)
    house.engine.die()
    await asyncio.sleep(0.3)
    house.engine.down = False
    await house.says("how can I help")
    assert house.engine.said == [TOLD, TOLD, "how can I help"]


async def test_an_engine_that_says_nothing_is_apologised_for(house: House, prompts: Prompts) -> None:
    phone = await talking(house)
    heard = phone.heard_s()
    house.engine.silent = True
    phone.speak(0.6)
    await house.until(lambda: house.engine.told("commit"))
    took = await house.until(lambda: house.call(phone).inbox.refused, 20)
    assert took == pytest.approx(8.0, abs=0.4)
    assert await house.over(phone) == "failed: the engine was lost"
    assert phone.heard_s() - heard == pytest.approx(LOST_S, abs=0.05)


async def test_an_engine_that_stops_in_mid_reply_is_apologised_for(house: House, prompts: Prompts) -> None:
    phone = await talking(house)
    house.engine.answers = [scripted.Answer(" ".join(["word"] * 20))]
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 6 * WORD_S)
    talk = house.engine.sessions[0]
    assert talk._running is not None
    task = talk._running[2]
    task.cancel()
    talk.send = lambda event: None  # type: ignore[method-assign]  # not even that it was cancelled
    assert await house.over(phone) == "failed: the engine was lost"


async def test_an_engine_that_drops_every_connection_is_given_up(house: House, prompts: Prompts) -> None:
    house.engine.loses_at_once = True
    phone = await house.ring(Answer(), TALK)
    assert await house.over(phone) == "failed: the engine was lost"
    assert 20 < len(house.engine.sessions) <= RECONNECT_FOR_S * 10 + 2


async def test_an_engine_that_ignores_its_lead_is_dropped_and_asked_anew(
    house: House, prompts: Prompts
) -> None:
    phone = await talking(house)
    house.engine.leads = False
    house.engine.answers = [scripted.Answer(" ".join(["word"] * 300)), scripted.Answer("all right")]
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.sessions) == 2)
    assert house.call(phone).playout.waiting_s <= 60.0
    phone.speak(1.0)  # over what waits
    await house.says("all right")
    assert phone.call_id in house.hall.calls


async def test_a_session_that_sends_nonsense_ends_its_own_call_only(house: House, prompts: Prompts) -> None:
    phone = await talking(house)
    other = await house.ring(Answer(), TALK)
    await house.until(lambda: other.heard_s() > 0.2)
    house.engine.sessions[0]._events.put_nowait(KeyError("item_id"))
    assert await house.over(phone) == "failed: the engine was lost"
    assert other.call_id in house.hall.calls


async def test_a_reply_that_fails_leaves_the_conversation_alive(house: House) -> None:
    phone = await talking(house)
    house.engine.think_s = 1.0
    phone.speak(0.6)
    await house.until(lambda: len(house.engine.said) == 2)
    talk = house.engine.sessions[0]
    talk._running[2].cancel()  # type: ignore[index]
    talk._running = None
    talk.send(client.Created("resp2", "engine-item2"))
    talk.send(client.Done("resp2", "engine-item2", "failed", "", "engine_error"))
    house.engine.think_s = 0.05
    house.engine.answers = [scripted.Answer("back again")]
    await asyncio.sleep(0.5)
    phone.speak(0.6)
    await house.says("back again")


async def test_history_keeps_what_was_heard_of_an_interrupted_reply(house: House) -> None:
    phone = await talking(house)
    house.engine.answers = [scripted.Answer("one two three four five six"), scripted.Answer("fine")]
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > 5.5 * WORD_S)
    phone.speak(0.8)
    await house.says("fine")
    await house.until(lambda: house.call(phone).playout.busy)
    await house.until(lambda: not house.call(phone).playout.busy)
    history = await house.memory.history(phone.call_id)
    texts = [item["content"][0]["text"] for item in history if item["role"] == "assistant"]
    assert texts[0] == "how can I help"
    assert texts[1] in ("one", "one two", "one two three"), "as heard, once"
    assert texts[2:] == ["fine"]


async def test_an_engine_that_is_stuck_does_not_hold_up_the_end_of_a_call(house: House) -> None:
    phone = await talking(house)

    async def never() -> None:
        await asyncio.sleep(3600)

    house.engine.sessions[0].aclose = never  # type: ignore[method-assign]
    began = house.loop.time()
    await house.hall.end_call(house.front, EndCall(phone.call_id, CallEnding(End.CONSOLE)))  # type: ignore[arg-type]
    await house.until(lambda: phone.hung_up)
    assert house.loop.time() - began < 0.1
    await house.until(house.is_empty, 3.0)


async def test_prompts_are_rendered_once_and_an_engine_that_loads_is_waited_for(house: House) -> None:
    house.engine.down = True
    asked = RenderPrompts(("so sorry",), house.consent.token("prompts"))
    await house.hall.render_prompts(house.front, asked)  # type: ignore[arg-type]
    await asyncio.sleep(1.0)
    house.engine.down = False
    await house.until(lambda: house.hall.prompts.sound("so sorry") is not None)
    await house.until(lambda: house.hall.prompts.sound(FILLER) is not None)
    assert sorted(house.engine.said) == sorted([FILLER, "so sorry"])
    assert all(session.closed for session in house.engine.sessions)


async def test_an_engine_that_loads_for_minutes_still_renders_the_prompts(house: House) -> None:
    house.engine.down = True
    asked = RenderPrompts(("so sorry",), house.consent.token("prompts"))
    with capture_logs() as logged:
        for _ in range(2):  # the front comes back meanwhile, and asks again
            await house.hall.render_prompts(house.front, asked)  # type: ignore[arg-type]
            await asyncio.sleep(150.0)
        house.engine.down = False
        await house.until(lambda: not house.hall.prompts.missing(["so sorry", FILLER]), 20.0)
    assert sorted(house.engine.said) == sorted([FILLER, "so sorry"])
    assert [line["missing"] for line in logged if line["log_level"] == "error"] == [2, 2]


async def test_prompts_that_came_at_last_are_not_called_missing(house: House) -> None:
    house.engine.down = True
    asked = RenderPrompts(("so sorry",), house.consent.token("prompts"))
    with capture_logs() as logged:
        await house.hall.render_prompts(house.front, asked)  # type: ignore[arg-type]
        await asyncio.sleep(sum(RETRY_S[:-1]) - 1.0)
        house.engine.down = False
        await house.until(lambda: not house.hall.prompts.missing(["so sorry", FILLER]), 20.0)
        await asyncio.sleep(60.0)
    assert not [line for line in logged if line["log_level"] == "error"]


async def test_rendering_does_not_wait_for_ever(house: House) -> None:
    house.engine.silent = True
    with pytest.raises(EngineError, match="within 60 s"):
        await render(house.engine, "token", ["hello"], Prompts())  # type: ignore[arg-type]
    house.engine.silent, house.engine.think_s = False, 1.0
    work = asyncio.ensure_future(render(house.engine, "token", ["hello"], Prompts()))  # type: ignore[arg-type]
    await house.until(lambda: len(house.engine.told("respond")) == 2)
    house.engine.sessions[-1].send(client.Failure("grant_expired", "the grant has lapsed"))
    with pytest.raises(EngineError, match="lapsed"):
        await work
    assert house.engine.sessions[-1].closed
