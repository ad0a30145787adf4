"""A call from its offer to its end."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from gateway.dialplan import Answer, Converse, Hangup, Say
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.calls.call_ear import CallEar
from gateway.hall.calls.seat import Seat
from gateway.hall.dialogue.memory import Memory
from gateway.hall.dialogue.speech import Speech
from gateway.hall.media.rate import CAPACITY
from gateway.hall.parts.inbox import INBOX, Dtmf, Inbox
from gateway.hall.parts.playout import Item, Playout
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import CallClosed, Drain, EndCall, Health
from gateway.ipc.line_messages import AnswerCall, CallLeft
from model.tasks import failures
from tests.gateway.hall.virtual_hall import DISCLOSE, FRAME_S, TOLD, TOLD_S, WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(instructions="be kind", greeting="how can I help", goodbye="bye bye now")


async def test_the_greeting_is_rendered_before_the_line_is_told_to_answer(house: House) -> None:
    house.engine.think_s = 0.7
    phone = await house.ring(Answer(), DISCLOSE, Hangup())
    await house.until(lambda: phone.asked)
    assert phone.asked == [AnswerCall(phone.call_id)]
    assert house.engine.said == [TOLD]
    assert house.call(phone).playout.waiting_s > 0, "sound waits already"
    assert await house.over(phone) == "hung up"
    assert phone.hung_up


async def test_a_greeting_that_takes_long_does_not_keep_the_caller_waiting(house: House) -> None:
    house.engine.think_s = 5.0
    phone = await house.ring(Answer(), DISCLOSE, Hangup())
    took = await house.until(lambda: phone.answered)
    assert took == pytest.approx(2.0, abs=0.1)
    await house.over(phone)
    assert phone.heard_s() == pytest.approx(TOLD_S, abs=0.1), "it is heard all the same"


async def test_the_disclosure_is_verbatim_and_cannot_be_interrupted(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.until(lambda: phone.heard_s() > 0.2)
    phone.speak(1.0)
    await house.says("how can I help")
    assert house.engine.said[0] == TOLD
    assert house.engine.told("cancel") == house.engine.told("truncate") == []
    assert house.engine.told("append") == [], "nobody listened to what was said into it"
    loud = [level for level in phone.heard if level > 0.01]
    assert min(loud[1:-1]) > 0.15, "and it was not ducked"


async def test_a_disclosure_that_the_engine_broke_off_is_said_again(house: House) -> None:
    house.engine.breaks = 1
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.says("how can I help")
    assert house.engine.said == [TOLD, TOLD, "how can I help"]
    record = await house.memory.get(phone.call_id)
    assert record is not None
    (told,) = record.to_json()["disclosed"]
    at = told.pop("at")
    assert told == {"principal": "Lindens", "language": "en", "voice": "", "text": TOLD}
    assert at == pytest.approx(house.loop.wall(), abs=10.0)
    assert house.events(phone, "disclosed") == [{"principal": "Lindens", "language": "en", "text": TOLD}], (
        "once, and whole"
    )


async def test_a_bot_that_cannot_say_what_it_is_does_not_talk(house: House) -> None:
    house.engine.breaks = 99
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    assert await house.over(phone) == "failed: what must be said first could not be said"
    assert set(house.engine.said) == {TOLD}
    assert "disclosed" not in house.memory.hashes[f"vg:call:{phone.call_id}"]


async def test_every_word_is_heard_before_the_call_is_hung_up(house: House) -> None:
    phone = await house.ring(Answer(), Say(text="one two three"), Hangup(say="four five"))
    assert await house.over(phone) == "hung up"
    assert phone.heard_s() == pytest.approx(5 * WORD_S, abs=0.1)
    states = [event["state"] for event in house.events(phone, "state")]
    assert states == ["ringing", "answered", "confirmed"]
    assert house.front.told(CallClosed)[0].how == "hung up"
    assert house.is_empty()


async def test_a_caller_who_hangs_up_ends_everything_at_once(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.says("how can I help")
    await house.hang_up(phone)
    await house.until(house.is_empty, 0.5)
    assert house.memory.hashes[f"vg:call:{phone.call_id}"]["how"] == "caller hung up"
    assert house.engine.sessions[0].closed
    assert house.engine.said == [TOLD, "how can I help"], "no verb went on after the end"


async def test_a_call_that_is_cancelled_while_it_rings_is_not_answered(house: House) -> None:
    house.engine.think_s = 1.0
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.hall.call_left(house.lines["n0"], CallLeft(phone.call_id, CallEnding(End.CANCELLED)))
    assert await house.over(phone) == "cancelled"
    assert not phone.answered


async def test_a_call_that_no_line_reports_is_forgotten(house: House) -> None:
    call_id = await house.offer(Answer(), DISCLOSE)
    took = await house.until(house.is_empty, 20)
    assert took == pytest.approx(10.0, abs=0.1)
    assert house.memory.hashes[f"vg:call:{call_id}"]["how"] == "failed: no line reported the call"


async def test_an_answer_that_is_never_acknowledged_ends_the_call(house: House) -> None:
    house.engine.leads = False
    await house.line()
    phone = Phone(await house.offer(Answer(), DISCLOSE), 1, 0)
    phone.never_acks = True
    await house.lines["n0"].start(phone)
    took = await house.until(house.is_empty, 60)
    assert took == pytest.approx(32.0, abs=1.0)
    assert "never acknowledged" in house.memory.hashes[f"vg:call:{phone.call_id}"]["how"]
    assert phone.hung_up


async def test_the_longest_duration_ends_a_call(house: House) -> None:
    house.hall.settings = house.settings.model_copy(update={"max_call_s": 7.0})
    phone = await house.ring(Answer(), Say(text=" ".join(["word"] * 60)))
    await house.until(lambda: house.call(phone).line.confirmed.is_set())
    took = await house.until(house.is_empty, 60)
    assert took == pytest.approx(7.0, abs=0.2)
    assert "longest duration" in house.memory.hashes[f"vg:call:{phone.call_id}"]["how"]


async def test_a_line_that_dies_ends_its_calls_and_no_others(house: House) -> None:
    doomed = await house.ring(Answer(), DISCLOSE, TALK, line="n0")
    spared = await house.ring(Answer(), DISCLOSE, TALK, line="w0", rate_hz=16_000)
    await house.until(lambda: doomed.heard_s() and spared.heard_s())
    await house.line_dies(house.lines["n0"])
    assert await house.over(doomed) == "failed: its line died"
    assert spared.call_id in house.hall.calls
    await house.until(lambda: spared.heard_s() > 3.0)


async def test_a_line_that_refuses_to_answer_ends_the_call(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE)
    del house.lines["n0"].phones[phone.call_id]
    assert (await house.over(phone)).startswith("failed: no call")


async def test_a_call_that_the_hall_does_not_know_is_hung_up_at_the_line(house: House) -> None:
    line = await house.line()
    stranger = Phone("nobody", 5, 0)
    await line.start(stranger)
    assert stranger.hung_up


async def test_a_full_hall_refuses_and_takes_calls_again_when_one_has_gone(house: House) -> None:
    calls = [await house.offer(Answer(), DISCLOSE) for _ in range(CAPACITY)]
    with pytest.raises(RpcError, match="full"):
        await house.offer(Answer(), DISCLOSE)
    await house.hall.end_call(house.front, EndCall(calls[7], CallEnding(End.CONSOLE)))  # type: ignore[arg-type]
    await house.until(lambda: calls[7] not in house.hall.calls)
    await house.offer(Answer(), DISCLOSE)
    await house.until(house.is_empty, 20)


async def test_the_same_call_is_not_taken_twice(house: House) -> None:
    call_id = await house.offer(Answer(), DISCLOSE)
    house._numbers -= 1
    with pytest.raises(RpcError, match="already"):
        await house.offer(Answer(), DISCLOSE)
    assert list(house.hall.calls) == [call_id]
    assert len(house.hall.floor._free) == CAPACITY - 1


async def test_an_offer_that_cannot_be_marked_leaves_nothing_behind(house: House) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        await house.offer(Answer(), DISCLOSE, payload=-1)
    assert house.is_empty()


async def test_a_draining_hall_takes_no_calls(house: House) -> None:
    await house.hall.drain(house.front, Drain())  # type: ignore[arg-type]
    with pytest.raises(RpcError, match="draining"):
        await house.offer(Answer(), DISCLOSE)


async def test_what_fails_in_the_background_of_a_call_is_seen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(call: Call) -> None:
        raise LookupError("a bug")

    before = failures["call.limit"]
    monkeypatch.setattr(house.hall, "_limit", broken)
    phone = await house.ring(Answer(), DISCLOSE, Hangup())
    assert await house.over(phone) == "hung up", "the call goes on without it"
    health = await house.hall.health(house.front, Health())  # type: ignore[arg-type]
    assert health.task_failures["call.limit"] == before + 1


async def test_a_call_whose_events_nobody_takes_ends(house: House) -> None:
    phone = await house.ring(Answer(), Say(text=" ".join(["word"] * 60)))
    await house.until(lambda: phone.heard_s())
    call = house.call(phone)
    for _ in range(INBOX + 1):
        call.inbox.post(Dtmf("1"))
    assert call.inbox._events.qsize() <= INBOX
    assert await house.over(phone) == "failed: events were not taken"


async def test_many_words_do_not_fill_the_inbox(house: House) -> None:
    phone = await house.ring(Answer(), Say(text=" ".join(["word"] * (INBOX + 50))))
    assert await house.over(phone, 300) == "hung up"


async def test_two_calls_with_the_same_text_share_nothing(house: House) -> None:
    first = await house.ring(Answer(), DISCLOSE, TALK)
    second = await house.ring(Answer(), DISCLOSE, TALK, line="w0", rate_hz=16_000)
    await house.says("how can I help")
    await house.until(lambda: first.heard_s() > 2.0 and second.heard_s() > 2.0)
    first.speak(1.0)
    await house.until(lambda: house.events(first, "barge_in"))
    at = len(second.heard)
    await asyncio.sleep(0.6)
    assert not house.events(second, "barge_in")
    assert second.heard_s(at) == pytest.approx(0.6, abs=0.06), "the other one talks on"
    assert house.call(first).seat.row != house.call(second).seat.row
    assert house.call(first).seat.mark_slot != house.call(second).seat.mark_slot


async def test_nothing_of_a_hundred_calls_is_left(house: House) -> None:
    before = len(asyncio.all_tasks())
    for turn in range(10):
        phones = [await house.ring(Answer(), DISCLOSE, TALK, line=f"n{k}") for k in range(10)]
        await asyncio.sleep(0.5 + 0.3 * turn)
        for phone in phones:
            await house.hang_up(phone)
        await house.until(house.is_empty, 5.0)
    await asyncio.sleep(FRAME_S)
    assert len(asyncio.all_tasks()) == before
    assert all(session.closed for session in house.engine.sessions)
    assert not any(session._tasks for session in house.engine.sessions)


def parts_there() -> Counter[str]:
    """Parts of calls that something holds, by kind."""
    gc.collect()
    parts = (Call, Seat, CallEar, Speech, Playout, Inbox, Item, Memory)
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in parts)


async def test_nothing_of_a_call_is_left_once_it_is_over(house: House) -> None:
    before = parts_there()
    for _ in range(5):
        phone = await house.ring(Answer(), DISCLOSE, TALK)
        await house.says("how can I help")
        assert parts_there()["Call"] == before["Call"] + 1
        await house.hang_up(phone)
        await house.over(phone)
    await asyncio.sleep(0.1)
    assert parts_there() == before
