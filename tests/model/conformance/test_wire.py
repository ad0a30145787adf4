"""The contract as a hall meets it, on a WebSocket, with every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.model.conformance.conftest import Subject, noise
from tests.model.conformance.test_conversation import TEXT
from tests.model.conftest import Wire, serve
from watermark.pcm import bytes_from_float

HALLS = {
    "instructions": "Answer in one sentence.",
    "tools": [{"type": "function", "name": name} for name in ("hang_up", "transfer")],
    "voicegate": {
        "binary": True,
        "lead_s": 10.0,
        "answers": [],
        "facts": {"hours": "nine to five"},
        "phrases": {
            "unsure": "Did you ask about {about}?",
            "not_understood": ["Pardon?"],
            "engine_lost": "Call again.",
            "hold": "One moment.",
        },
        "timezone": "Europe/Berlin",
    },
}


@pytest.fixture
async def wire(subject: Subject) -> AsyncIterator[Wire]:
    """A session that is set up as a hall does it."""
    async with (
        serve(subject.engine, subject.grants, fetch=subject.fetch) as served,
        served.wire(subject.grant()) as wire,
    ):
        updated = await wire.ask("session.update", "session.updated", session=HALLS)
        limits = updated["session"]["voicegate"]["limits"]
        assert limits["transcribes"] == subject.engine.limits.transcribes
        yield wire


async def say(wire: Wire, text: str = TEXT) -> list[Any]:
    """All events of a verbatim reply."""
    await wire.say("response.create", response={"voicegate": {"say": text}})
    return await wire.gather("response.done")


def words_of(events: list[Any]) -> str:
    return "".join(
        event["delta"]
        for event in events
        if isinstance(event, dict) and event["type"] == "response.output_audio_transcript.delta"
    )


async def test_a_verbatim_reply_from_its_first_event_to_its_last(wire: Wire) -> None:
    events = await say(wire)
    kinds = [event["type"] for event in events if isinstance(event, dict)]
    sound = [event for event in events if isinstance(event, bytes)]
    assert kinds[:2] == ["response.created", "response.output_item.added"]
    assert kinds[-4:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.output_item.done",
        "response.done",
    ]
    done = events[-1]["response"]
    assert done["status"] == "completed"
    assert words_of(events).strip() == TEXT
    assert done["output"][0]["content"][0]["transcript"].strip() == TEXT
    assert sum(len(frame) - 4 for frame in sound) / 48_000 == pytest.approx(done["voicegate"]["audio_s"])
    assert all(len(frame) <= 4 + 2 * 1_920 for frame in sound)


async def test_an_utterance_and_its_answer(wire: Wire, subject: Subject) -> None:
    subject.tell("when do you open")
    await wire.socket.send(bytes_from_float(noise(0.4)))
    await wire.say("input_audio_buffer.commit")
    await wire.say("response.create")
    events = await wire.gather("response.done")
    kinds = [event["type"] for event in events if isinstance(event, dict)]
    heard = "conversation.item.input_audio_transcription.completed"
    assert (heard in kinds) == subject.engine.limits.transcribes
    assert kinds.index("input_audio_buffer.committed") < kinds.index("conversation.item.added")
    assert kinds.index("conversation.item.added") < kinds.index("response.output_item.added")
    assert events[-1]["response"]["status"] == "completed"
    assert events[-1]["response"]["voicegate"]["audio_s"] > 0


async def test_words_that_come_late_are_told_late_and_once(wire: Wire, subject: Subject) -> None:
    subject.hold(2.0)
    subject.tell("when do you open")
    await wire.socket.send(bytes_from_float(noise(0.4)))
    await wire.say("input_audio_buffer.commit")
    await wire.say("response.create")
    events = [event for event in await wire.gather("response.done") if isinstance(event, dict)]
    added = next(event for event in events if event["type"] == "conversation.item.added")
    assert added["item"]["content"][0]["transcript"] is None
    told = [event for event in events if event["type"].endswith("input_audio_transcription.completed")]
    if not subject.engine.limits.transcribes:
        assert told == []
        return
    (words,) = told
    assert (words["item_id"], words["voicegate"]["duration_s"]) == (added["item"]["id"], pytest.approx(0.4))
    assert (words["transcript"] == "when do you open") == (subject.name == "cascade"), "noise says nothing"
    first = next(event for event in events if event["type"].endswith("output_audio_transcript.delta"))
    assert events.index(first) < events.index(words), "a filler was said meanwhile"


async def test_a_reply_is_cancelled_and_cut(wire: Wire) -> None:
    await wire.say("response.create", response={"voicegate": {"say": TEXT * 3}})
    created = (await wire.until("response.created"))["response"]
    while not isinstance(await wire.next(), bytes):
        pass
    await wire.say("response.cancel", response_id=created["id"])
    await wire.say("response.cancel", response_id=created["id"])
    done = (await wire.until("response.done"))["response"]
    assert done["status"] in ("cancelled", "completed")  # a short one may have been over
    item_id = created["voicegate"]["item_id"]
    cut = await wire.ask(
        "conversation.item.truncate", "conversation.item.truncated", item_id=item_id, audio_end_ms=0
    )
    assert cut["voicegate"]["text"] == ""
    events = await say(wire)
    assert words_of(events).strip() == TEXT


async def test_what_was_heard_of_a_whole_reply_is_told(wire: Wire) -> None:
    done = (await say(wire))[-1]["response"]["voicegate"]
    cut = await wire.ask(
        "conversation.item.truncate",
        "conversation.item.truncated",
        item_id=done["item_id"],
        audio_end_ms=done["audio_s"] * 250,
    )
    text = cut["voicegate"]["text"]
    assert text
    assert TEXT.startswith(text)
    assert len(text) < len(TEXT)


async def test_what_is_wrong_is_named_and_the_session_goes_on(wire: Wire) -> None:
    assert (await wire.error("input_audio_buffer.commit"))["param"] == "input_audio_buffer"
    assert (await wire.error("session.update", session={"sing": True}))["param"] == "session.sing"
    unknown = await wire.error("conversation.item.truncate", item_id="nobody's", audio_end_ms=1)
    assert unknown["param"] == "item_id"
    assert (await wire.error("response.create", response={"voicegate": {"say": " "}}))[
        "code"
    ] == "invalid_value"
    assert words_of(await say(wire)).strip() == TEXT


async def test_a_history_is_restored_before_anything_is_asked_for(wire: Wire) -> None:
    for role, text in (("assistant", "Hello."), ("user", "hello"), ("assistant", "How can I help?")):
        kind = "input_text" if role == "user" else "output_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        await wire.ask("conversation.item.create", "conversation.item.added", item=item)
    assert words_of(await say(wire)).strip() == TEXT
