"""The contract, event by event, over a raw WebSocket; the engine behind it is scripted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from model import client, events
from model.api import FRAME, RATE_HZ, EarlyHearing, Tool, Understood
from model.client import EngineClient
from model.errors import EngineBusy, EngineError
from tests.model.conftest import Grants, Served, Wire, pcm16, serve
from tests.model.scripted import ScriptedConversation, ScriptedEngine


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def served(engine: ScriptedEngine, grants: Grants) -> AsyncIterator[Served]:
    async with serve(engine, grants) as served:
        yield served


@pytest.fixture
async def wire(served: Served) -> AsyncIterator[Wire]:
    async with served.wire() as wire:
        yield wire


@pytest.fixture
def conversation(wire: Wire, engine: ScriptedEngine) -> ScriptedConversation:
    return engine.conversations[0]


async def append(wire: Wire, seconds: float) -> None:
    await wire.say("input_audio_buffer.append", audio=base64.b64encode(pcm16(seconds)).decode())


def sound_of(events_: list[Any]) -> bytes:
    """PCM16 of a reply's deltas, or of its binary frames."""
    binary = b"".join(event[4:] for event in events_ if isinstance(event, bytes))
    deltas = (
        e["delta"] for e in events_ if isinstance(e, dict) and e["type"] == "response.output_audio.delta"
    )
    return binary + b"".join(base64.b64decode(delta) for delta in deltas)


def kinds(events_: list[Any]) -> list[str]:
    """Each type once, in the order in which they first came."""
    return list(dict.fromkeys(e["type"] for e in events_ if isinstance(e, dict)))


# ── session ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_says_its_voice_its_format_and_its_limits(wire: Wire) -> None:
    session = wire.created["session"]
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "heart"}
    assert session["audio"]["input"]["turn_detection"] is None
    limits = session["voicegate"]["limits"]
    assert limits == {
        "conversations": 4,
        "utterance_s": 60.0,
        "reply_s": 60.0,
        "transcribes": True,
        "recalls": True,
    }
    assert session["voicegate"]["lead_s"] == 1.0


async def test_an_update_configures_the_conversation_and_comes_back(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    ours = {
        "answers": [{"intent": "a", "ask": ["b"]}], "facts": {"hours": "nine"}, "phrases": {"unsure": "?"},
        "timezone": "Europe/Berlin", "lead_s": 2.5,
    }  # fmt: skip
    session = {
        "type": "realtime",
        "instructions": "Be short.",
        "tools": [{"name": "hang_up"}],
        "voicegate": ours,
    }
    updated = await wire.ask("session.update", "session.updated", session=session)
    assert updated["session"]["instructions"] == "Be short."
    assert updated["session"]["voicegate"]["lead_s"] == 2.5
    config = conversation.config
    assert (config.instructions, config.tools) == ("Be short.", [{"name": "hang_up"}])
    assert (config.answers, config.facts) == ([{"intent": "a", "ask": ["b"]}], {"hours": "nine"})
    assert (config.phrases, config.timezone) == ({"unsure": "?"}, "Europe/Berlin")
    await wire.ask("session.update", "session.updated", session={"voicegate": {"facts": {"hours": "ten"}}})
    assert conversation.config.instructions == "Be short."  # what an update leaves out stays
    assert conversation.config.facts == {"hours": "ten"}


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"colour": "red"}, "session.colour"),
        ({"voicegate": {"colour": "red"}}, "session.voicegate.colour"),
        ({"voicegate": {"lead_s": "long"}}, "session.voicegate.lead_s"),
        ({"voicegate": {"lead_s": -1}}, "session.voicegate.lead_s"),
        ({"voicegate": {"lead_s": True}}, "session.voicegate.lead_s"),
        ({"voicegate": {"facts": {"hours": 9}}}, "session.voicegate.facts.hours"),
        ({"voicegate": {"answers": "none"}}, "session.voicegate.answers"),
        ({"voicegate": {"answers": ["none"]}}, "session.voicegate.answers[0]"),
        ({"voicegate": {"hearing": "yes"}}, "session.voicegate.hearing"),
        ({"voicegate": []}, "session.voicegate"),
        ({"tools": {}}, "session.tools"),
        ({"instructions": 3}, "session.instructions"),
        ({"instructions": "nonsense"}, "session.instructions"),
        ({"type": "transcription"}, "session.type"),
        ({"output_modalities": ["text"]}, "session.output_modalities[0]"),
        ({"audio": {"input": {"format": {"type": "audio/pcmu"}}}}, "session.audio.input.format.type"),
        ({"audio": {"output": {"format": {"rate": 8000}}}}, "session.audio.output.format.rate"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}},
            "session.audio.input.turn_detection",
        ),
        ({"audio": {"output": {"voice": "marin"}}}, "session.audio.output.voice"),
        ({"audio": {"output": {"speed": 1.5}}}, "session.audio.output.speed"),
    ],
)
async def test_what_a_session_does_not_know_or_cannot_honour_is_named(
    wire: Wire, session: dict[str, Any], param: str
) -> None:
    error = await wire.error("session.update", session=session, event_id="mine")
    assert (error["param"], error["event_id"]) == (param, "mine")
    assert error["type"] == "invalid_request_error"
    await wire.ask("session.update", "session.updated", session={})  # the session lives on


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "session.close"}, "type"),
        ({"type": 3}, "type"),
        ({}, "type"),
        ({"type": "response.create", "respond": {}}, "respond"),
        ({"type": "response.create", "response": {"instructions": "Sing."}}, "response.instructions"),
        ({"type": "response.create", "response": {"voicegate": {"say": ""}}}, "response.voicegate.say"),
        ({"type": "response.create", "response": {"voicegate": {"say": 5}}}, "response.voicegate.say"),
        ({"type": "response.create", "response": {"voicegate": {"sing": "x"}}}, "response.voicegate.sing"),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "not base64!"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "QUJD"}, "audio"),  # three bytes
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer"),  # nothing was said
        ({"type": "input_audio_buffer.commit", "now": True}, "now"),
        ({"type": "conversation.item.create"}, "item"),
        ({"type": "conversation.item.create", "item": 7}, "item"),
        ({"type": "conversation.item.create", "item": {"type": "message"}}, "item.role"),
        ({"type": "conversation.item.create", "item": {"role": "king"}}, "item.role"),
        (
            {
                "type": "conversation.item.create",
                "item": {"role": "user", "content": [{"type": "input_image"}]},
            },
            "item.content[0].type",
        ),
        ({"type": "conversation.item.create", "item": {}, "previous_item_id": "x"}, "previous_item_id"),
        ({"type": "conversation.item.truncate", "item_id": "item_0", "audio_end_ms": 5}, "item_id"),
        ({"type": "conversation.item.truncate", "item_id": "item_0"}, "audio_end_ms"),
        ({"type": "voicegate.playout", "item_id": "item_0", "played_ms": "all"}, "played_ms"),
    ],
)
async def test_an_unknown_event_or_field_is_an_error_that_names_it(
    wire: Wire, event: dict[str, Any], param: str
) -> None:
    await wire.socket.send(events.dump(event))
    assert (await wire.until("error"))["error"]["param"] == param
    await wire.ask("session.update", "session.updated", session={})


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", "[" * 100_000])
async def test_what_is_no_event_at_all_is_said_to_be_none(wire: Wire, text: str) -> None:
    await wire.socket.send(text)
    assert (await wire.until("error"))["error"]["param"] == "type"


async def test_null_is_as_good_as_absent(wire: Wire) -> None:
    await wire.ask(
        "session.update", "session.updated", session={"voicegate": {"lead_s": None}}, event_id=None
    )
    await wire.ask("response.create", "response.done", response=None)


# ── hearing ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_utterance_is_appended_committed_and_told(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    await append(wire, 0.1)
    await append(wire, 0.2)
    committed = await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    assert committed["voicegate"]["duration_s"] == pytest.approx(0.3)
    added = await wire.until("conversation.item.added")
    assert added["item"]["id"] == committed["item_id"]
    assert added["item"]["role"] == "user"
    told = await wire.until("conversation.item.input_audio_transcription.completed")
    assert (told["item_id"], told["transcript"]) == (committed["item_id"], "hello")
    assert told["voicegate"] == {"confidence": 0.5, "duration_s": pytest.approx(0.3)}
    (heard,) = conversation.utterances
    sent = np.frombuffer(pcm16(0.1) + pcm16(0.2), "<i2") / 32768
    assert np.max(np.abs(heard - sent)) < 1e-4


async def test_late_words_are_told_once_and_before_those_of_the_next_utterance(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    kind = "conversation.item.input_audio_transcription.completed"
    conversation.late = asyncio.get_running_loop().create_future()
    await append(wire, 0.1)
    first = await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    added = await wire.until("conversation.item.added")
    assert (added["item"]["id"], added["item"]["content"][0]["transcript"]) == (first["item_id"], None)
    late, conversation.late = conversation.late, None
    await append(wire, 0.2)
    second = await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    late.set_result(Understood(0.1, "late words", 0.4))
    told = [await wire.until(kind), await wire.until(kind)]
    assert [(one["item_id"], one["transcript"]) for one in told] == [
        (first["item_id"], "late words"),
        (second["item_id"], "hello"),
    ]


async def test_late_words_that_fail_are_none_and_their_error_goes_nowhere(
    wire: Wire, conversation: ScriptedConversation, capfd: pytest.CaptureFixture[str]
) -> None:
    conversation.late = asyncio.get_running_loop().create_future()
    await append(wire, 0.1)
    await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    conversation.late.set_exception(ValueError("the caller said zyzzyva"))
    told = await wire.until("conversation.item.input_audio_transcription.completed")
    assert (told["transcript"], told["voicegate"]["confidence"]) == ("", None)
    logged = capfd.readouterr()
    assert "zyzzyva" not in logged.out + logged.err


async def test_binary_frames_are_sound_both_ways(wire: Wire, conversation: ScriptedConversation) -> None:
    await wire.ask("session.update", "session.updated", session={"voicegate": {"binary": True}})
    await wire.socket.send(pcm16(0.25))
    await wire.say("input_audio_buffer.commit")
    created = await wire.ask("response.create", "response.created")
    frames = [e for e in await wire.gather("response.done") if isinstance(e, bytes)]
    assert len(conversation.utterances[0]) == 0.25 * RATE_HZ
    numbers = {events.BINARY_HEAD.unpack_from(frame)[0] for frame in frames}
    assert numbers == {created["response"]["voicegate"]["number"]}
    assert {len(frame) for frame in frames} == {4 + 2 * FRAME}
    assert len(frames) == 6


async def test_a_binary_frame_of_half_a_sample_is_refused(wire: Wire) -> None:
    await wire.socket.send(b"abc")
    assert (await wire.until("error"))["error"]["param"] == "audio"


async def test_clear_drops_the_utterance(wire: Wire) -> None:
    await append(wire, 0.2)
    await wire.ask("input_audio_buffer.clear", "input_audio_buffer.cleared")
    assert (await wire.error("input_audio_buffer.commit"))["param"] == "input_audio_buffer"


async def test_an_utterance_is_at_most_a_minute(wire: Wire, conversation: ScriptedConversation) -> None:
    for _ in range(6):
        await append(wire, 10.0)
    await append(wire, 0.01)
    error = (await wire.until("error"))["error"]
    assert error["param"] == "audio"
    assert "60 s" in error["message"]
    await wire.ask("input_audio_buffer.commit", "conversation.item.added")
    assert len(conversation.utterances[0]) == 60 * RATE_HZ  # what fitted is kept
    await append(wire, 0.01)
    await wire.ask("input_audio_buffer.commit", "conversation.item.added")


async def test_the_next_utterance_waits_until_the_last_is_understood(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    conversation.hold = asyncio.Event()
    await append(wire, 0.1)
    await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    await append(wire, 0.2)
    conversation.hold.set()
    await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    await wire.until("conversation.item.added")
    assert [len(sound) / RATE_HZ for sound in conversation.utterances] == [0.1, 0.2]


async def test_a_client_that_asked_is_told_what_a_pause_is_understood_as(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    ours = wire.created["session"]["voicegate"]
    assert (ours["hearing"], ours["asides"]) == (False, False)
    updated = await wire.ask("session.update", "session.updated", session={"voicegate": {"hearing": True}})
    ours = updated["session"]["voicegate"]
    assert (ours["hearing"], ours["asides"]) == (True, True)
    await append(wire, 0.3)
    await wire.ask("input_audio_buffer.clear", "input_audio_buffer.cleared")
    await append(wire, 0.5)
    await wire.ask("session.update", "session.updated", session={})  # the sound has been heard
    conversation.hears(EarlyHearing("unfinished", 0.4, aside=True))
    told = await wire.until("voicegate.hearing")
    del told["event_id"]
    assert told == {
        "type": "voicegate.hearing", "utterance": 1, "heard_ms": 400, "state": "unfinished", "aside": True,
    }  # fmt: skip


async def test_a_hall_is_told_by_its_client(served: Served, engine: ScriptedEngine) -> None:
    hall = await EngineClient(served.url).connect(served.grants.issue("call-2").token)
    await hall.update(hearing=True)
    await hall.append(np.zeros(2_400, np.float32))
    await hall.clear()
    await hall.append(np.zeros(2_400, np.float32))
    await hall.respond()
    heard = []
    async for event in hall:
        if isinstance(event, client.Done):  # the engine has taken all of it
            engine.conversations[0].hears(EarlyHearing("answered", 0.1))
        elif isinstance(event, client.HeardEarly):
            heard.append(event)
            break
    assert heard == [client.HeardEarly(1, EarlyHearing("answered", 0.1))]
    assert hall.knows_asides
    await hall.aclose()


async def test_a_client_that_did_not_ask_hears_nothing_of_it(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    await append(wire, 0.5)
    await wire.ask("session.update", "session.updated", session={})
    conversation.hears(EarlyHearing("answered", 0.4))
    await wire.say("input_audio_buffer.commit")
    assert "voicegate.hearing" not in kinds(await wire.gather("conversation.item.added"))


async def test_nothing_is_told_of_an_utterance_that_is_over(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    await wire.ask("session.update", "session.updated", session={"voicegate": {"hearing": True}})
    await append(wire, 0.5)
    await wire.ask("input_audio_buffer.commit", "input_audio_buffer.committed")
    conversation.hears(EarlyHearing("answered", 0.4))
    await wire.say("response.create")
    assert "voicegate.hearing" not in kinds(await wire.gather("response.done"))


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reply_is_words_and_sound_between_created_and_done(wire: Wire) -> None:
    await wire.say("response.create", response={"metadata": {"turn": "1"}})
    reply = await wire.gather("response.done")
    assert kinds(reply) == [
        "response.created", "response.output_item.added", "response.output_audio_transcript.delta",
        "response.output_audio.delta", "response.output_audio.done", "response.output_audio_transcript.done",
        "response.output_item.done", "response.done",
    ]  # fmt: skip
    created, done = reply[0]["response"], reply[-1]["response"]
    assert created["id"] == done["id"]
    assert (created["metadata"], created["status"]) == ({"turn": "1"}, "in_progress")
    assert done["status"] == "completed"
    assert done["output"][0]["content"][0]["transcript"] == "one two three"
    assert done["output"][0]["id"] == created["voicegate"]["item_id"]
    assert done["voicegate"]["audio_s"] == pytest.approx(6 * 0.08)
    assert len(sound_of(reply)) == 6 * 2 * FRAME


async def test_say_is_said_word_for_word(wire: Wire) -> None:
    await wire.say("response.create", response={"voicegate": {"say": "Exactly this."}})
    done = (await wire.gather("response.done"))[-1]["response"]
    assert done["output"][0]["content"][0]["transcript"] == "Exactly this."


async def test_say_does_not_wait_for_what_is_being_understood(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    conversation.hold = asyncio.Event()
    await append(wire, 0.1)
    await wire.say("input_audio_buffer.commit")
    await wire.ask("response.create", "response.done", response={"voicegate": {"say": "One moment."}})
    await wire.say("response.create")
    conversation.hold.set()
    assert "conversation.item.added" in kinds(await wire.gather("response.output_audio_transcript.delta"))


async def test_a_tool_is_told_after_the_words(wire: Wire, conversation: ScriptedConversation) -> None:
    conversation.tool = Tool("transfer", {"intent": "person"})
    await wire.say("response.create")
    reply = await wire.gather("response.done")
    told = next(e for e in reply if e["type"] == "response.function_call_arguments.done")
    assert (told["name"], told["arguments"]) == ("transfer", '{"intent": "person"}')
    await wire.ask(
        "conversation.item.create",
        "conversation.item.added",
        item={"type": "function_call_output", "call_id": told["call_id"], "output": "{}"},
    )


async def test_an_event_says_what_the_engine_had_to_forget(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    conversation.forgot = 2
    forgot = await wire.ask("response.create", "voicegate.forgot")
    assert forgot["turns"] == 2
    await wire.until("response.done")


async def test_one_reply_at_a_time(wire: Wire, conversation: ScriptedConversation) -> None:
    conversation.frames_a_word = 1000
    created = await wire.ask("response.create", "response.created")
    error = await wire.error("response.create")
    assert error["param"] == "response"
    assert created["response"]["id"] in error["message"]


async def test_an_engine_that_fails_says_why_and_the_session_goes_on(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    failures = {
        EngineBusy("too slow"): "busy",
        EngineError("broken"): "engine_error",
        ValueError("a bug"): "engine_error",
    }
    for failure, code in failures.items():
        conversation.fails = failure
        await wire.say("response.create")
        reply = await wire.gather("response.done")
        assert next(e for e in reply if e["type"] == "error")["error"]["code"] == code
        assert reply[-1]["response"]["status"] == "failed"
        assert reply[-1]["response"]["voicegate"]["reason"] == code
    conversation.fails = None
    assert (await wire.ask("response.create", "response.done"))["response"]["status"] == "completed"


async def test_the_text_of_an_error_is_told_nobody_since_it_may_hold_what_was_said(
    wire: Wire, conversation: ScriptedConversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit() -> None:
        raise ValueError("cannot make sense of 'zyzzyva'")

    monkeypatch.setattr(conversation, "commit", commit)
    conversation.fails = ValueError("no answer to 'zyzzyva'")
    with capture_logs() as logs:
        await append(wire, 0.2)
        await wire.say("input_audio_buffer.commit")
        told = await wire.gather("error")
        await wire.say("response.create")
        told += await wire.gather("response.done")
    errors = [event["error"]["message"] for event in told if event["type"] == "error"]
    assert errors == ["ValueError", "ValueError"]
    failed = {line["event"]: line for line in logs if line["event"].endswith(".failed")}
    assert failed.keys() == {"commit.failed", "reply.failed"}
    assert "commit" in failed["commit.failed"]["where"], "but where it arose is"
    assert "zyzzyva" not in repr(told) + repr(logs)


# ── lead ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_played_makes_room_for_more(wire: Wire, conversation: ScriptedConversation) -> None:
    """By how much, `test_reply.py` says to the frame. By the clock alone this reply takes 96 s."""
    conversation.frames_a_word = 400
    await wire.ask("session.update", "session.updated", session={"voicegate": {"lead_s": 0.8}})
    created = await wire.ask("response.create", "response.created")
    item_id = created["response"]["voicegate"]["item_id"]
    for _ in range(10):
        await wire.until("response.output_audio.delta")
    await wire.say("voicegate.playout", item_id=item_id, played_ms=300_000)
    async with asyncio.timeout(60):
        assert (await wire.until("response.done"))["response"]["status"] == "completed"


# ── interruption ────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancel_ends_a_reply_and_may_be_said_again(
    wire: Wire, conversation: ScriptedConversation
) -> None:
    conversation.frames_a_word = 1000
    created = await wire.ask("response.create", "response.created")
    await wire.until("response.output_audio.delta")
    response_id = created["response"]["id"]
    for _ in range(2):
        await wire.say("response.cancel", response_id=response_id)
    done = (await wire.until("response.done"))["response"]
    assert (done["id"], done["status"]) == (response_id, "cancelled")
    assert conversation.ended == 1
    await wire.say("response.cancel")
    conversation.frames_a_word = 1
    assert (await wire.ask("response.create", "response.done"))["response"]["status"] == "completed"


async def test_a_reply_cancelled_before_it_began_is_over_too(wire: Wire) -> None:
    await wire.say("response.create")
    await wire.say("response.cancel")
    assert (await wire.until("response.done"))["response"]["status"] in ("cancelled", "completed")
    assert (await wire.ask("response.create", "response.done"))["response"]["status"] == "completed"


async def test_cancelling_another_reply_than_this_one_does_nothing(wire: Wire) -> None:
    first = await wire.ask("response.create", "response.done")
    await wire.say("response.create")
    await wire.say("response.cancel", response_id=first["response"]["id"])
    assert (await wire.until("response.done"))["response"]["status"] == "completed"


async def test_truncate_during_a_reply_ends_it(wire: Wire, conversation: ScriptedConversation) -> None:
    conversation.frames_a_word = 1000
    created = await wire.ask("response.create", "response.created")
    item_id = created["response"]["voicegate"]["item_id"]
    await wire.say("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=240)
    events_ = await wire.gather("conversation.item.truncated")
    done = next(e for e in events_ if isinstance(e, dict) and e["type"] == "response.done")
    assert done["response"]["status"] == "cancelled"
    assert (events_[-1]["item_id"], events_[-1]["voicegate"]["text"]) == (item_id, "0.24 s")
    assert conversation.truncated == [(item_id, 0.24)]


async def test_truncate_after_done_is_valid_for_older_replies_too(wire: Wire) -> None:
    done = [await wire.ask("response.create", "response.done") for _ in range(3)]
    item_id = done[0]["response"]["voicegate"]["item_id"]
    truncated = await wire.ask(
        "conversation.item.truncate", "conversation.item.truncated", item_id=item_id, audio_end_ms=100
    )
    assert (truncated["item_id"], truncated["audio_end_ms"]) == (item_id, 100)


# ── history ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_history_is_restored_item_by_item(wire: Wire, conversation: ScriptedConversation) -> None:
    audio = base64.b64encode(pcm16(0.1)).decode()
    parts: list[tuple[str, dict[str, str]]] = [
        ("system", {"type": "input_text", "text": "Be kind."}),
        ("user", {"type": "input_audio", "audio": audio}),
        ("assistant", {"type": "output_text", "text": "Good morning."}),
        ("assistant", {"type": "output_audio", "transcript": "Goodbye."}),
    ]
    for k, (role, part) in enumerate(parts):
        item = {"type": "message", "id": f"i{k}", "role": role, "content": [part]}
        added = await wire.ask("conversation.item.create", "conversation.item.added", item=item)
        assert added["item"]["id"] == f"i{k}"
    restored = conversation.restored
    assert [item.role for item in restored] == ["system", "user", "assistant", "assistant"]
    assert [item.text for item in restored] == ["Be kind.", None, "Good morning.", "Goodbye."]
    assert restored[1].pcm is not None
    assert len(restored[1].pcm) == 0.1 * RATE_HZ


# ── neighbours ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_conversations_do_not_touch_each_other(
    served: Served, wire: Wire, engine: ScriptedEngine, grants: Grants
) -> None:
    async with served.wire(grants.issue("call-2")) as other:
        first, second = engine.conversations
        first.words = ["mine"]
        second.words, second.frames_a_word = ["yours"], 1000
        await append(wire, 0.1)
        await other.ask("response.create", "response.created")
        await wire.say("input_audio_buffer.commit")
        await wire.say("response.create")
        mine = await wire.gather("response.done")
        await other.say("response.cancel")
        yours = await other.gather("response.done")
    assert (len(first.utterances), len(second.utterances), len(second.heard)) == (1, 0, 0)
    assert {e["delta"] for e in mine if e["type"] == "response.output_audio_transcript.delta"} == {"mine"}
    levels = [set(np.frombuffer(sound_of(reply), "<i2")) for reply in (mine, yours)]
    assert levels == [{3277}, {6554}]
    assert (mine[-1]["response"]["status"], yours[-1]["response"]["status"]) == ("completed", "cancelled")
