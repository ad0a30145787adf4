"""Somebody speaks to the embedded engine through its WebSocket and is answered as the demo plan has it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from structlog.testing import capture_logs

from model.api import Reference, SessionConfig
from model.ears.words_heard import Words
from model.embedded.engine import EmbeddedEngine, believed, load_heads
from model.meaning.embedder import WEIGHTS
from model.meaning.head import AnswerHead
from model.meaning.heads import Examples, Heads
from tests.model.conftest import Grants, Served, Wire, serve
from tests.model.embedded.callers import demo, hibari, telephone
from tests.needs import HANGS_S
from watermark.pcm import bytes_from_float

BATCH = 2_400
"""Samples of one append: 100 ms."""
FAR_ZONE = "Pacific/Kiritimati"


@pytest.fixture
async def served(engine: EmbeddedEngine, grants: Grants) -> AsyncIterator[Served]:
    async with serve(engine, grants) as served:
        yield served


@pytest.fixture
async def wire(served: Served) -> AsyncIterator[Wire]:
    async with served.wire() as wire:
        plan = demo()
        ours = {
            "answers": plan["answers"], "facts": plan["facts"], "timezone": FAR_ZONE, "binary": True,
            "lead_s": 10.0, "phrases": {key: plan[key] for key in ("unsure", "not_understood")},
        }  # fmt: skip
        await wire.ask("session.update", "session.updated", session={"voicegate": ours})
        yield wire


@dataclass
class Answer:
    heard: str
    said: str
    tool: str | None
    seconds: float


async def say(wire: Wire, text: str) -> None:
    """As a hall sends it: speech with some silence around, then a commit."""
    pcm = telephone(hibari(text), text)
    for at in range(0, len(pcm), BATCH):
        await wire.socket.send(bytes_from_float(pcm[at : at + BATCH]))
    await wire.say("input_audio_buffer.commit")


async def answer(wire: Wire) -> Answer:
    await wire.say("response.create")
    events = await wire.gather("response.done")
    told = {event["type"]: event for event in events if not isinstance(event, bytes)}
    tool = told.get("response.function_call_arguments.done")
    return Answer(
        told["conversation.item.input_audio_transcription.completed"]["transcript"],
        told["response.done"]["response"]["output"][0]["content"][0]["transcript"],
        tool["name"] if tool else None,
        sum(len(event) - 4 for event in events if isinstance(event, bytes)) / 48_000,
    )


async def ask(wire: Wire, text: str) -> Answer:
    """Says it, and yes if the engine is not sure (or the plan wants a confirmation)."""
    await say(wire, text)
    first = await answer(wire)
    if first.said.startswith("Did you ask about"):
        await say(wire, "yes please")
        return await answer(wire)
    return first


@pytest.mark.parametrize(
    ("text", "said", "tool"),
    [
        ("what are your opening hours", "We are open Monday to Friday from nine", None),
        ("how do i find you", "You find us at twelve Mill Lane", None),
        ("can i talk to a person", "One moment please.", "transfer"),
        ("who am i talking to", "", "disclosure"),
        ("thank you goodbye", "", "hang_up"),
    ],
)
async def test_what_the_plan_knows_is_answered(wire: Wire, text: str, said: str, tool: str | None) -> None:
    got = await ask(wire, text)
    assert (got.said.startswith(said), got.tool) == (True, tool), got
    assert got.seconds >= len(got.said) * 0.03  # and it can be heard


@pytest.mark.parametrize(
    ("text", "said", "tool"),
    [
        ("until what time is your shop open on saturdays", "We are open Monday to Friday from nine", None),
        ("i need directions how do i drive to your shop", "You find us at twelve Mill Lane", None),
        ("could a human being from your team help me instead", "One moment please.", "transfer"),
        ("thanks for everything and have a good day goodbye", "", "hang_up"),
    ],
)
async def test_callers_ask_in_their_own_words(wire: Wire, text: str, said: str, tool: str | None) -> None:
    assert text not in {phrase for one in demo()["answers"] for phrase in one["ask"]}
    got = await ask(wire, text)
    assert (got.said.startswith(said), got.tool) == (True, tool), got


async def test_what_was_understood_names_the_intent_and_what_was_said_with_it(wire: Wire) -> None:
    await say(wire, "are you open tomorrow at five p m")
    await wire.say("response.create")
    events = await wire.gather("response.done")
    kind = "conversation.item.input_audio_transcription.completed"
    told = next(one for one in events if not isinstance(one, bytes) and one["type"] == kind)["voicegate"]
    tomorrow = datetime.now(ZoneInfo(FAR_ZONE)).date() + timedelta(1)
    assert told["intent"] == "hours"
    assert told["slots"] == {"times": ["17:00"], "dates": [tomorrow.isoformat()]}


async def test_who_speaks_on_while_the_head_is_fitted_does_not_stop_that(
    engine: EmbeddedEngine, heads: Heads, grants: Grants, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = threading.Event()

    class SlowHeads:
        def head(self, answers: Sequence[Examples]) -> AnswerHead:
            assert fitted.wait(HANGS_S)
            return heads.head(answers)

    monkeypatch.setattr(engine, "heads", SlowHeads())
    grant = grants.issue()
    conversation = await engine.open(grant, Reference(grant.voice, grant.voice_hash, None, "", stock=True))
    await conversation.configure(SessionConfig(answers=tuple(demo()["answers"])))
    conversation._comprehension._hear_pause(Words("Could you tell me whether", "en", 0.9, 1.0))
    await asyncio.sleep(0)
    conversation.clear()
    await asyncio.sleep(0)
    fitted.set()
    text = "until what time is your shop open on saturdays"
    conversation.hear(telephone(hibari(text), text))
    assert (await conversation.commit()).intent == "hours"
    await conversation.close()


def test_without_weights_of_meaning_only_phrases_are_understood(tmp_path: Path) -> None:
    assert load_heads({"VOICEGATE_DATA_DIR": str(tmp_path)}) is None
    WEIGHTS.paths(tmp_path)[0].write_bytes(b"not these")
    with capture_logs() as logs:
        assert load_heads({"VOICEGATE_MODELS": str(tmp_path)}) is None
    assert [(log["event"], log["log_level"]) for log in logs] == [("meaning.weights_refused", "error")]


async def test_doubtful_words_are_asked_about_and_are_no_yes(heads: Heads) -> None:
    head = heads.head([Examples("hours", ("when are you open",))])
    words = Words("When are you open?", "en", 0.2, 1.0)
    assert believed(replace(words, confidence=0.9), head.judge(words.text)).sure
    assert not believed(words, head.judge(words.text)).sure
    assert believed(words, head.judge("yes please")).agrees is None
    assert believed(words, head.judge("no thank you")).agrees is False


async def test_the_time_is_that_of_the_routes_zone(wire: Wire) -> None:
    before = datetime.now(ZoneInfo(FAR_ZONE))
    got = await ask(wire, "can you tell me the time")
    after = datetime.now(ZoneInfo(FAR_ZONE))
    said = {
        f"It is {at.hour % 12 or 12}:{at.minute:02d} {'AM' if at.hour < 12 else 'PM'}."
        for at in (before, after)
    }
    assert got.said in said


async def test_the_last_answer_is_repeated_also_when_it_was_a_prompt(wire: Wire) -> None:
    greeting = "You can ask about our opening hours."
    await wire.ask("response.create", "response.done", response={"voicegate": {"say": greeting}})
    assert (await ask(wire, "please repeat that")).said == greeting
    hours = await ask(wire, "when do you open")
    assert (await ask(wire, "could you repeat that please")).said == hours.said


async def test_other_speech_is_not_understood_and_said_so(wire: Wire) -> None:
    await say(wire, "my grandmother baked seventeen wonderful apple cakes yesterday")
    first = await answer(wire)
    await say(wire, "the quick brown fox jumps over the lazy dog near the river bank")
    second = await answer(wire)
    assert "grandmother" in first.heard.lower()
    assert "fox" in second.heard.lower()
    assert [first.said, second.said] == demo()["not_understood"][:2]


async def test_who_says_okay_after_an_answer_is_not_asked_what_they_meant(wire: Wire) -> None:
    await ask(wire, "what are your opening hours")
    await say(wire, "okay")
    got = await answer(wire)
    assert (got.said, got.tool) == ("", None)
    assert (await ask(wire, "how do i find you")).said.startswith("You find us")


async def test_who_needs_nothing_else_may_say_no(wire: Wire) -> None:
    assert (await ask(wire, "thank you very much")).said.endswith("Is there anything else?")
    await say(wire, "no")
    assert (await answer(wire)).said == "All right."


async def test_an_answer_that_an_okay_cut_short_is_said_again(wire: Wire) -> None:
    text = "One two three four. Five six seven eight."
    asked = await wire.ask("response.create", "response.done", response={"voicegate": {"say": text}})
    done = asked["response"]["voicegate"]
    cut = {"item_id": done["item_id"], "audio_end_ms": done["audio_s"] * 500}
    await wire.ask("conversation.item.truncate", "conversation.item.truncated", **cut)
    await say(wire, "okay")
    assert (await answer(wire)).said == text


async def test_a_reply_without_an_utterance_says_so_too(wire: Wire) -> None:
    done = (await wire.ask("response.create", "response.done"))["response"]
    assert done["output"][0]["content"][0]["transcript"] == demo()["not_understood"][0]


async def test_words_stay_as_far_as_they_were_heard(wire: Wire) -> None:
    text = "One two three four. Five six seven eight."
    done = (await wire.ask("response.create", "response.done", response={"voicegate": {"say": text}}))[
        "response"
    ]
    item_id, seconds = done["voicegate"]["item_id"], done["voicegate"]["audio_s"]

    async def kept(heard_s: float) -> str:
        event = await wire.ask(
            "conversation.item.truncate",
            "conversation.item.truncated",
            item_id=item_id,
            audio_end_ms=heard_s * 1000,
        )
        return str(event["voicegate"]["text"])

    assert await kept(0) == ""
    assert await kept(seconds + 1) == text
    shares = [await kept(seconds * k / 10) for k in range(11)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shares))
    assert shares[3] != "" and shares[7].startswith("One two three four. Five")  # noqa: PT018


async def test_a_plan_that_cannot_be_held_is_refused_by_name(wire: Wire) -> None:
    error = await wire.error("session.update", session={"voicegate": {"answers": [{"intent": "x"}]}})
    assert error["param"] == "session.voicegate.answers[0].ask"
    error = await wire.error("session.update", session={"voicegate": {"timezone": "Middle/Earth"}})
    assert error["param"] == "session.voicegate.timezone"


async def test_only_its_own_voice_is_spoken(engine: EmbeddedEngine, grants: Grants) -> None:
    from model.errors import EngineError

    grant = grants.issue()
    registered = Reference("heart", grant.voice_hash, np.zeros(24_000, np.float32), "hello", stock=False)
    with pytest.raises(EngineError, match="VOICEGATE_ENGINE=chroma"):
        await engine.open(grant, registered)


async def test_openais_own_client_holds_a_conversation(served: Served, grants: Grants) -> None:
    """The `openai` package, unchanged: its URL and its key are all that differ."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(
        api_key=grants.issue().token,
        base_url=f"http://127.0.0.1:{served.port}/v1",
        websocket_base_url=f"{served.url}/v1",
    )
    plan = demo()
    async with client.realtime.connect(model="voicegate") as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert created.session.model == "voicegate"
        ours = {"answers": plan["answers"], "facts": plan["facts"], "lead_s": 10}
        session: Any = {"type": "realtime", "instructions": "Be short.", "voicegate": ours}
        await connection.session.update(session=session)
        updated = await connection.recv()
        assert updated.type == "session.updated"
        assert updated.session.instructions == "Be short."
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        assert (await connection.recv()).type == "conversation.item.added"
        pcm = bytes_from_float(telephone(hibari("what are your opening hours"), "openai"))
        for at in range(0, len(pcm), 2 * BATCH):
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(pcm[at : at + 2 * BATCH]).decode()
            )
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        types, text, sound, item_id = [], "", b"", ""
        async for event in connection:
            types.append(event.type)
            if event.type == "conversation.item.input_audio_transcription.completed":
                assert event.transcript == "what are your opening hours"
            elif event.type == "response.output_audio_transcript.delta":
                text, item_id = text + event.delta, event.item_id
            elif event.type == "response.output_audio.delta":
                sound += base64.b64decode(event.delta)
            elif event.type == "response.done":
                assert event.response.status == "completed"
                break
        assert text == f"We are open {plan['facts']['hours']}."
        assert len(sound) / 48_000 > 4
        assert {"input_audio_buffer.committed", "conversation.item.added", "response.created"} <= set(types)
        await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=500)
        truncated = await connection.recv()
        assert (truncated.type, truncated.audio_end_ms) == ("conversation.item.truncated", 500)
        await connection.response.create(response={"metadata": {"turn": "2"}})
        assert (await connection.recv()).type == "response.created"
        await connection.response.cancel()
        async for event in connection:
            if event.type == "response.done":
                assert event.response.status in ("cancelled", "completed")
                break
        await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4_800)).decode())
        await connection.input_audio_buffer.clear()
        assert (await connection.recv()).type == "input_audio_buffer.cleared"
        wrong: Any = {"instructions": "Sing."}
        await connection.response.create(response=wrong)
        error = await connection.recv()
        assert error.type == "error"
        assert error.error.param == "response.instructions"
