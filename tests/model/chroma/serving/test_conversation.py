"""Conversations: multi-turn on kept state, interruption, company. On the toy, in float64, so that nothing
that ought to be equal can differ by rounding."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consent.grants.grant import hash_voice
from model.api import RATE_HZ, Floats, Forgot, HistoryItem, Reference, SessionConfig, Sound, Text
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import GREEDY
from model.chroma.network.weights import Chroma
from model.chroma.serving import chat, voices
from model.chroma.serving.conversation import ChromaConversation
from model.chroma.serving.engine import ChromaEngine
from model.chroma.serving.engine_settings import EngineSettings, place
from model.chroma.serving.history import Turn
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.schedule import Kind
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools.toy import tensors
from model.errors import EngineBusy, EngineError, VoiceError
from tests.model.chroma import toy
from tests.model.conftest import Grants
from tests.needs import HANGS_S

FRAME_S = 0.002
"""The toy's frames are 48 samples."""


@pytest.fixture(scope="module")
def model() -> Chroma:
    return toy.model(dtype=torch.float64)


def noise(seconds: float, seed: int = 0) -> Floats:
    return (0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def reference_of(pcm: Floats | None, text: str = "The words of the clip.", stock: bool = False) -> Reference:
    """A clip as the front hands it out."""
    voice_hash = "of-a-record" if pcm is None else hash_voice(pcm.tobytes(), text)
    return Reference("heart" if stock else "anna", voice_hash, pcm, text, stock)


REFERENCE = reference_of(noise(0.05, 99))


@dataclass
class Opener:
    """Opens conversations with a grant for whatever clip is named."""

    grants: Grants

    async def __call__(
        self, engine: ChromaEngine, call_id: str, reference: Reference = REFERENCE
    ) -> ChromaConversation:
        grant = dataclasses.replace(self.grants.issue(call_id), voice_hash=reference.voice_hash)
        return await engine.open(grant, reference)


@pytest.fixture
def opened(grants: Grants) -> Opener:
    return Opener(grants)


def engine_of(model: Chroma, **settings: Any) -> ChromaEngine:
    given = {"conversations": 3, "context": 600, "reply_s": 24 * FRAME_S, "temperature": 0.0, **settings}
    return ChromaEngine(model, chat.stand_in(model.config), EngineSettings(**given))


@pytest.fixture
async def engine(model: Chroma) -> AsyncIterator[ChromaEngine]:
    made = engine_of(model)
    yield made
    await made.close()


@dataclass
class Heard:
    """All of a reply."""

    text: str = ""
    forgot: int = 0
    pcm: list[Floats] = field(default_factory=list)

    @property
    def sound(self) -> Floats:
        return np.concatenate(self.pcm) if self.pcm else np.zeros(0, np.float32)


async def say(conversation: ChromaConversation, pcm: Floats, piece_s: float = 0.02) -> None:
    """The caller speaks."""
    size = round(piece_s * RATE_HZ)
    for at in range(0, len(pcm), size):
        conversation.hear(pcm[at : at + size])
        await asyncio.sleep(0)


async def until(met: Callable[[], bool]) -> None:
    """Waits for what the conversation does by itself."""
    async with asyncio.timeout(HANGS_S):
        while not met():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def answer(
    conversation: ChromaConversation, item: str, words: str | None = None, stop_after: int | None = None
) -> Heard:
    """A reply, all of it or up to so many frames."""
    heard = Heard()
    outputs = conversation.respond(item, words)
    try:
        async for output in outputs:
            if isinstance(output, Text):
                heard.text += output.delta
            if isinstance(output, Forgot):
                heard.forgot += output.turns
            if isinstance(output, Sound):
                heard.pcm.append(output.pcm)
                if len(heard.pcm) == stop_after:
                    break
    finally:
        await outputs.aclose()  # type: ignore[attr-defined]  # it is an async generator
    return heard


async def turn(conversation: ChromaConversation, item: str, seconds: float, seed: int) -> Heard:
    await say(conversation, noise(seconds, seed))
    await conversation.commit()
    return await answer(conversation, item)


def stateless(engine: ChromaEngine, turns: list[Turn], voice: voices.Voice) -> tuple[list[int], Floats]:
    """What a reply after these turns is, computed from nothing at once."""
    slots = Slots.make(engine.model, 1, SERVING, context=engine.slots.thinker.capacity)
    steps = Steps(engine.model, slots, SERVING)
    pieces = [piece for turn in turns for piece in turn.pieces()] + [list(engine.chat.answer_open)]
    with torch.inference_mode():
        embed = engine.model.thinker.embed
        parts = [
            embed(torch.tensor(piece, dtype=torch.long)) if isinstance(piece, list) else piece
            for piece in pieces
        ]
        steps.prefill({0: torch.cat(parts)})
        voices.lend(voice, slots, 0)
    slots.sample(0, GREEDY)
    reply, pcm = Reply(0, engine.reply_frames), []
    while reply.end is None:
        frame = perform(steps, [reply])[0]
        if frame.pcm is not None:
            pcm.append(frame.pcm)
    return reply.words, np.concatenate(pcm)


def turns_before(conversation: ChromaConversation, index: int) -> list[Turn]:
    """The history up to the answer of that index."""
    turns = conversation._history.turns
    answers = [k for k, turn in enumerate(turns) if turn.role == "assistant"]
    return turns[: answers[index]]


def as_from_nothing(engine: ChromaEngine, conversation: ChromaConversation, heard: Heard) -> None:
    """The last reply is the one that a stateless computation gives."""
    words, pcm = stateless(engine, turns_before(conversation, -1), conversation._voice)
    assert heard.text == engine.chat.decode(words)
    np.testing.assert_allclose(heard.sound, pcm, atol=1e-6)


async def test_turns_on_kept_state_equal_a_stateless_recomputation(
    engine: ChromaEngine, opened: Opener
) -> None:
    conversation = await opened(engine, "a")
    await conversation.configure(SessionConfig(instructions="Be brief.", facts={"open": "nine to five"}))
    for number, seconds in enumerate((0.9, 2.3, 0.4, 1.7)):
        heard = await turn(conversation, f"item{number}", seconds, number)
        as_from_nothing(engine, conversation, heard)
    await conversation.close()


async def test_say_speaks_exactly_these_words_and_remembers_them(
    engine: ChromaEngine, opened: Opener
) -> None:
    conversation = await opened(engine, "a")
    heard = await answer(conversation, "one", "Hello!")
    assert heard.text == "Hello!"
    assert len(heard.pcm) > 0
    after = await turn(conversation, "two", 0.8, 1)
    assert engine.chat.decode(conversation._history.turns[1].words) == "Hello!"
    as_from_nothing(engine, conversation, after)
    await conversation.close()


async def script(engine: ChromaEngine, opened: Opener, call_id: str, seed: int) -> list[Heard]:
    """A conversation by the dice: turns, verbatim words, interruptions, dropped utterances."""
    draw = random.Random(seed)
    reference = reference_of(noise(0.03 + 0.02 * (seed % 2), seed % 2))
    conversation = await opened(engine, call_id, reference)
    found = []
    for number in range(5):
        item = f"item{number}"
        kind = draw.choice(["turn", "turn", "say", "interrupted", "dropped"])
        if kind == "say":
            found.append(await answer(conversation, item, draw.choice(["One moment.", "Good day!", "Yes"])))
            continue
        await say(conversation, noise(draw.uniform(0.2, 2.0), draw.randrange(1000)))
        if kind == "dropped":
            conversation.clear()
            continue
        await conversation.commit()
        stop = draw.randrange(1, 12) if kind == "interrupted" else None
        found.append(await answer(conversation, item, stop_after=stop))
        if kind == "interrupted":
            found[-1].text = await conversation.truncate(item, draw.uniform(0, 12 * FRAME_S))
    await conversation.close()
    return found


@pytest.mark.parametrize("seed", [0, 10])
async def test_interleaved_is_alone(model: Chroma, opened: Opener, seed: int) -> None:
    """Sampled at full heat, each call by its own seed: in company it says what it says alone."""
    settings = {"conversations": 4, "temperature": 1.0, "top_k": 20, "top_p": 0.95}
    alone = []
    for k in range(4):
        quiet = engine_of(model, **settings)
        alone.append(await script(quiet, opened, f"call{k}", seed + k))
        await quiet.close()
    busy = engine_of(model, **settings)
    together = await asyncio.gather(*(script(busy, opened, f"call{k}", seed + k) for k in range(4)))
    assert busy.free == 4
    await busy.close()
    for a, b in zip(alone, together, strict=True):
        assert [h.text for h in a] == [h.text for h in b]
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one.sound, other.sound, atol=1e-6)
    sounds = [h.sound.tobytes() for found in alone for h in found]
    assert len(set(sounds)) > len(sounds) // 2, "the calls differ from each other"


async def test_speech_and_its_end_in_one_breath_are_heard_alike(engine: ChromaEngine, opened: Opener) -> None:
    """The commit comes before the loop had a pass for what was to be done while the caller spoke."""
    slow, quick = await opened(engine, "a"), await opened(engine, "a")
    await say(slow, noise(1.3))
    await slow.commit()
    quick.hear(noise(1.3))
    await quick.commit()
    await quick._tasks.join()
    np.testing.assert_array_equal((await answer(quick, "one")).sound, (await answer(slow, "one")).sound)
    await slow.close()
    await quick.close()


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 13])
async def test_a_cancelled_reply_leaves_nothing_behind(
    engine: ChromaEngine, opened: Opener, frames: int
) -> None:
    """Whatever point it is cut at, the next reply is that of a conversation with just the words that came."""
    conversation = await opened(engine, "a")
    await say(conversation, noise(0.7))
    await conversation.commit()
    await answer(conversation, "one", stop_after=frames)
    heard = await turn(conversation, "two", 0.5, 3)
    first = conversation._history.turns[2]
    assert first.role == "assistant"
    assert len(first.words) == (frames + 1) // 2
    as_from_nothing(engine, conversation, heard)
    assert engine.conductor.playing == 0
    await conversation.close()
    assert engine.free == 3
    assert engine.slots.thinker.lengths == [0, 0, 0]


async def test_how_far_a_cancelled_reply_was_ahead_does_not_show_in_the_next(
    model: Chroma, opened: Opener
) -> None:
    """The thread steps a few frames ahead of the listener, as many as time allows."""
    found = []
    for pause_s in (0.0, 0.2):
        engine = engine_of(model, temperature=1.0)
        conversation = await opened(engine, "a")
        outputs = conversation.respond("one", "One two three")
        async for output in outputs:
            if isinstance(output, Sound):
                await asyncio.sleep(pause_s)
                break
        await outputs.aclose()  # type: ignore[attr-defined]  # it is an async generator
        found.append((await answer(conversation, "two", "Yes")).sound)
        await engine.close()
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


async def test_a_task_that_is_cancelled_anywhere_frees_its_slot(engine: ChromaEngine, opened: Opener) -> None:
    for steps in range(0, 60, 3):
        conversation = await opened(engine, "a")
        await say(conversation, noise(0.3))

        async def talk(c: ChromaConversation = conversation) -> None:
            await c.commit()
            await answer(c, "one")
            await turn(c, "two", 0.2, 1)

        task = asyncio.create_task(talk())
        for _ in range(steps):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await conversation.close()
        await conversation.close()
        assert engine.free == 3
        assert engine.conductor.playing == 0
    assert engine.slots.thinker.lengths == [0, 0, 0]
    assert len(asyncio.all_tasks()) == 2, "this test and the conductor"


async def test_an_interruption_keeps_the_words_that_were_heard(engine: ChromaEngine, opened: Opener) -> None:
    conversation = await opened(engine, "a")
    heard = await answer(conversation, "one", "One two three four five", stop_after=20)
    assert heard.text.startswith("One two")
    # a word-piece (here a byte) comes with every second frame: eight of them were heard whole
    assert await conversation.truncate("one", 17 * FRAME_S) == "One two"
    assert engine.chat.decode(conversation._history.turns[1].words).strip() == "One two"
    after = await turn(conversation, "two", 0.6, 4)
    as_from_nothing(engine, conversation, after)
    await conversation.close()


async def test_what_nobody_heard_was_not_said(engine: ChromaEngine, opened: Opener) -> None:
    conversation = await opened(engine, "a")
    await answer(conversation, "one", "One two three", stop_after=3)
    assert await conversation.truncate("one", 0.0) == ""
    assert [t.role for t in conversation._history.turns] == ["system"]
    assert await conversation.truncate("no such item", 1.0) == ""
    await conversation.close()


async def test_an_answer_that_was_fed_ahead_begins_without_a_prefill(
    engine: ChromaEngine, opened: Opener
) -> None:
    """What was said was fed up to the opening of the answer when it ended."""
    conversation = await opened(engine, "a")
    await say(conversation, noise(0.7))
    await conversation.commit()
    fed: list[int] = []
    prefill = engine.steps.prefill
    engine.steps.prefill = lambda fresh: (fed.extend(map(len, fresh.values())), prefill(fresh))[1]  # type: ignore[method-assign, func-returns-value]
    heard = await answer(conversation, "one")
    assert not fed
    as_from_nothing(engine, conversation, heard)
    again = await answer(conversation, "two", "Yes")
    assert fed, "the end of the first answer"
    assert again.text == "Yes"
    await conversation.close()


async def test_utterances_that_end_while_the_thread_is_busy_are_fed_in_one_pass(
    engine: ChromaEngine, opened: Opener
) -> None:
    """And each is answered as if there had been no other."""
    both = [await opened(engine, name) for name in "ab"]
    for k, conversation in enumerate(both):
        await say(conversation, noise(0.7 + 0.4 * k, seed=k))
    await until(lambda: not any(conversation._tasks for conversation in both))
    fed: list[list[int]] = []
    prefill = engine.steps.prefill
    engine.steps.prefill = lambda fresh: (fed.append([*fresh]), prefill(fresh))[1]  # type: ignore[method-assign, func-returns-value]
    go_on = threading.Event()
    busy = asyncio.create_task(engine.conductor.do(Kind.SLOT, 1, lambda: go_on.wait(10)))
    commits = [asyncio.create_task(conversation.commit()) for conversation in both]
    await until(lambda: engine.conductor.schedule.waiting == 2)
    go_on.set()
    await asyncio.gather(busy, *commits)
    assert sorted(fed[0]) == sorted(conversation._slot for conversation in both)
    for conversation in both:
        as_from_nothing(engine, conversation, await answer(conversation, "one"))
        await conversation.close()


async def test_utterances_heard_in_one_pass_are_heard_as_each_alone(model: Chroma, opened: Opener) -> None:
    """Also where one of them is given up while its chunks wait: the others do not notice."""
    quiet = engine_of(model, conversations=1)
    alone = []
    for k in range(4):
        conversation = await opened(quiet, f"alone{k}")
        alone.append(await turn(conversation, "one", 0.7 + 0.3 * k, seed=k))
        await conversation.close()
    await quiet.close()
    engine = engine_of(model, conversations=4)
    together = [await opened(engine, f"call{k}") for k in range(4)]
    for k, conversation in enumerate(together):
        await say(conversation, noise(0.7 + 0.3 * k, seed=k))
    await until(lambda: not any(conversation._tasks for conversation in together))
    passes: list[int] = []
    encode = engine.steps.encoder.__call__
    engine.steps.encoder = lambda mels: (passes.append(len(mels)), encode(mels))[1]  # type: ignore[assignment, func-returns-value]
    go_on = threading.Event()
    busy = asyncio.create_task(engine.conductor.do(Kind.SLOT, 1, lambda: go_on.wait(10)))
    commits = [asyncio.create_task(conversation.commit()) for conversation in together]
    await until(lambda: engine.conductor.schedule.waiting == 4)
    commits[1].cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(busy, *commits, return_exceptions=True)
    assert len(passes) == 1
    for k in (0, 2, 3):
        heard = await answer(together[k], "one")
        assert heard.text == alone[k].text
        np.testing.assert_allclose(heard.sound, alone[k].sound, atol=1e-6)
    for conversation in together:
        await conversation.close()
    assert engine.free == 4
    assert engine.slots.thinker.lengths == [0] * 4
    await engine.close()


async def test_no_mel_is_made_before_a_chunk_is_whole(engine: ChromaEngine, opened: Opener) -> None:
    """The toy's chunks are .6 s."""
    conversation = await opened(engine, "a")
    attended: list[int] = []
    aside = engine.conductor.aside

    async def counted(work: Callable[[], Any]) -> Any:
        attended.append(1)
        return await aside(work)

    engine.conductor.aside = counted  # type: ignore[method-assign]
    await say(conversation, noise(0.5))
    await asyncio.sleep(0)
    assert not attended
    await say(conversation, noise(0.2, 1))
    await until(lambda: not conversation._tasks)
    assert len(attended) == 1
    assert conversation._utterance is not None
    assert conversation._utterance.ear.chunks == 1
    await say(conversation, noise(0.3, 2))
    await until(lambda: not conversation._tasks)
    assert len(attended) == 1
    await say(conversation, noise(0.21, 2))
    await until(lambda: not conversation._tasks)
    assert len(attended) == 2, "the second chunk is not whole, but the first may have changed"
    await conversation.commit()
    assert len(attended) == 3
    as_from_nothing(engine, conversation, await answer(conversation, "one"))
    await conversation.close()


async def test_a_late_truncation_reaches_behind_the_callers_turn(
    engine: ChromaEngine, opened: Opener
) -> None:
    """The reply was over, the caller has begun to speak, and only then it is known what was heard."""
    conversation = await opened(engine, "a")
    await answer(conversation, "one", "One two three")
    await say(conversation, noise(1.2, 8))
    await until(lambda: [t.role for t in conversation._history.turns] == ["system", "assistant", "user"])
    assert (await conversation.truncate("one", 9 * FRAME_S)).strip() == "One"
    await conversation.commit()
    after = await answer(conversation, "two")
    turns = turns_before(conversation, -1)
    assert [engine.chat.decode(t.words).strip() for t in turns[1:2]] == ["One"]
    as_from_nothing(engine, conversation, after)
    await conversation.close()


async def test_speech_during_a_reply_comes_after_it_in_the_history(
    engine: ChromaEngine, opened: Opener
) -> None:
    conversation = await opened(engine, "a")
    replying = asyncio.create_task(answer(conversation, "one", "One two three"))
    await asyncio.sleep(0.01)
    await say(conversation, noise(1.0, 5))
    understood = await conversation.commit()
    assert understood.duration_s == pytest.approx(1.0)
    await replying
    after = await answer(conversation, "two")
    assert [t.role for t in conversation._history.turns] == ["system", "assistant", "user", "assistant"]
    as_from_nothing(engine, conversation, after)
    await conversation.close()


async def test_a_prompt_said_while_the_caller_speaks_comes_before_their_turn(
    engine: ChromaEngine, opened: Opener
) -> None:
    conversation = await opened(engine, "a")
    await say(conversation, noise(1.1, 6))
    await until(lambda: conversation._history.turns[-1].role == "user")
    await answer(conversation, "one", "One moment.")
    await say(conversation, noise(0.3, 7))
    await conversation.commit()
    after = await answer(conversation, "two")
    assert [t.role for t in conversation._history.turns] == ["system", "assistant", "user", "assistant"]
    whole = conversation._history.turns[2].sound
    assert whole is not None
    assert len(whole) == pytest.approx(1.4 * 25, abs=1), "both halves of the utterance"
    as_from_nothing(engine, conversation, after)
    await conversation.close()


async def test_a_dropped_utterance_leaves_no_trace(engine: ChromaEngine, opened: Opener) -> None:
    conversation = await opened(engine, "a")
    await say(conversation, noise(1.5, 5))
    await asyncio.sleep(0.03)
    conversation.clear()
    heard = await turn(conversation, "one", 0.6, 6)
    assert [t.role for t in conversation._history.turns] == ["system", "user", "assistant"]
    as_from_nothing(engine, conversation, heard)
    await conversation.close()


async def test_a_restored_conversation_goes_on_as_the_first_would_have(
    engine: ChromaEngine, opened: Opener
) -> None:
    first = await opened(engine, "a")
    await answer(first, "one", "Hello!")
    expected = await turn(first, "two", 0.8, 1)
    second = await opened(engine, "a")
    await second.restore(HistoryItem("assistant", text="Hello!"))
    await second.restore(HistoryItem("user", pcm=noise(0.8, 1)))
    assert (await answer(second, "two")).text == expected.text
    await first.close()
    await second.close()


async def test_a_full_context_drops_the_oldest_turns_and_goes_on(model: Chroma, opened: Opener) -> None:
    small = engine_of(model, context=300)
    conversation = await opened(small, "a")
    forgot = 0
    for number in range(6):
        heard = await turn(conversation, f"item{number}", 2.0, number)
        forgot += heard.forgot
        assert heard.pcm
        assert len(conversation._history) <= 300
    turns = conversation._history.turns
    assert turns[0].role == "system"
    assert sum(t.role == "user" for t in turns) < 6
    assert len(turns) + forgot == 13, "and the caller's side is told"
    as_from_nothing(small, conversation, heard)
    with pytest.raises(EngineError, match="more than a context of 300 takes"):
        await turn(conversation, "long", 20.0, 1)
    await small.close()


@pytest.mark.parametrize("seconds", [3.0, 9.0])
async def test_what_is_left_at_the_end_of_speech_does_not_grow(
    model: Chroma, opened: Opener, seconds: float
) -> None:
    engine = engine_of(model)
    conversation = await opened(engine, "a")
    speech = noise(seconds, 2)
    speech[:600] = 0.9  # the loudest comes first: nothing is heard twice
    await say(conversation, speech)
    await until(lambda: not conversation._tasks)
    fed: list[int] = []
    prefill = engine.steps.prefill
    engine.steps.prefill = lambda fresh: (fed.extend(map(len, fresh.values())), prefill(fresh))[1]  # type: ignore[method-assign, func-returns-value]
    await conversation.commit()
    await answer(conversation, "one")
    chunk_tokens = model.config.hearing.chunk // 4
    assert sum(fed) <= 2 * chunk_tokens + 40, f"{fed} positions after {seconds} s"
    await engine.close()


# ── voices and slots ──────────────────────────────────────────────────────────────────────────────────


async def test_a_voice_is_prepared_once_and_kept_by_its_hash(
    engine: ChromaEngine, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    prepare = voices.prepare

    def counted(*args: Any) -> voices.Voice:
        prepared.append(1)
        return prepare(*args)

    monkeypatch.setattr(voices, "prepare", counted)
    both = await asyncio.gather(*(opened(engine, name) for name in "ab"))
    third = await opened(engine, "c")
    assert len(prepared) == 1
    for conversation in (*both, third):
        await conversation.close()
    engine.forget(REFERENCE.voice_hash)
    assert len(engine.voices) == 0
    await (await opened(engine, "d")).close()
    assert len(prepared) == 2


async def test_a_clip_that_is_not_the_grants_is_refused(engine: ChromaEngine, grants: Grants) -> None:
    with pytest.raises(VoiceError, match="is not that of 'heart'"):
        await engine.open(grants.issue("a"), REFERENCE)
    assert engine.free == 3


async def test_the_voice_cache_is_bounded(model: Chroma, opened: Opener) -> None:
    engine = engine_of(model, voices_bytes=1)
    for number in range(3):
        reference = reference_of(noise(0.02, number))
        await (await opened(engine, "a", reference)).close()
        assert len(engine.voices) == 1
    await engine.close()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (reference_of(None, "", stock=True), "stock voice 'heart' comes without a reference clip"),
        (reference_of(noise(1.0), " "), "without the words of its clip"),
        (reference_of(noise(61.0)), "at most 60 s"),
        (reference_of(noise(1.0)), "leaves no room for an answer"),
        (dataclasses.replace(REFERENCE, text="Other words."), "not the one that was consented to"),
        (dataclasses.replace(REFERENCE, pcm=noise(0.05, 98)), "not the one that was consented to"),
        (
            dataclasses.replace(REFERENCE, pcm=noise(0.05, 98), stock=True),
            "not the one that was consented to",
        ),
    ],
)
async def test_a_voice_that_cannot_be_used_is_refused_with_its_reason(
    engine: ChromaEngine, opened: Opener, reference: Reference, said: str
) -> None:
    with pytest.raises(VoiceError, match=said):
        await opened(engine, "a", reference)
    assert engine.free == 3


async def test_a_caller_too_many_is_refused_at_once(engine: ChromaEngine, opened: Opener) -> None:
    open_ = [await opened(engine, name) for name in "abc"]
    with pytest.raises(EngineBusy):
        await opened(engine, "d")
    await open_[1].close()
    again = await opened(engine, "d")
    assert (await turn(again, "one", 0.3, 1)).pcm
    for conversation in (open_[0], open_[2], again):
        await conversation.close()


def test_a_lead_that_holds_no_frames_is_refused(model: Chroma) -> None:
    with pytest.raises(EngineError, match=r"VOICEGATE_CHROMA_LEAD_S=0.005 must be 0.006 s or more"):
        engine_of(model, lead_s=0.005)


def test_settings_come_from_the_environment() -> None:
    settings = EngineSettings.from_environ(
        {"VOICEGATE_ENGINE_CALLS": "auto", "VOICEGATE_CHROMA_LEAD_S": "0.4", "VOICEGATE_CHROMA_DEVICE": "cpu"}
    )
    assert (settings.conversations, settings.lead_s, settings.device) == ("auto", 0.4, "cpu")
    assert EngineSettings.from_environ({"VOICEGATE_ENGINE_CALLS": "7"}).conversations == 7


def test_an_engine_in_a_directory_of_its_own(tmp_path: Path) -> None:
    toy.save(tmp_path, tensors(toy.model()))
    made = asyncio.run(ChromaEngine.load(tmp_path, EngineSettings(conversations=1)))
    assert made.chat.meaningless


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"VOICEGATE_ENGINE_CALLS": "many"}, "VOICEGATE_ENGINE_CALLS=many is not a number"),
        ({"VOICEGATE_CHROMA_CONTEXT": "-1"}, "must be above 0"),
        ({"VOICEGATE_CHROMA_LEAD_S": "0"}, "must be above 0"),
        ({"VOICEGATE_CHROMA_DTYPE": "int4"}, "not in int4"),
        ({"VOICEGATE_CHROMA_WEIGHTS": "int4"}, "not int4"),
        ({"VOICEGATE_CHROMA_KV": "int8"}, "keeps keys and values full, fp8, not int8"),
        ({"VOICEGATE_CHROMA_DEVICE": "abacus"}, "abacus is not a device of torch"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        place(EngineSettings.from_environ(environ))


def test_float32_is_float32_in_serving_as_in_the_proof() -> None:
    """Both ask where to run; torch's own choice for convolutions is TF32."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    for switch in switches:
        switch.allow_tf32 = True
    place(EngineSettings(device="cpu"))
    assert [switch.allow_tf32 for switch in switches] == [False, False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="torch sees no GPU here"):
        asyncio.run(ChromaEngine.load(tmp_path, EngineSettings(device="cuda")))
