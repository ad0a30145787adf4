"""Replies in company: the goldens all at once, staggered; and 10,000 frames that leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.api import Floats
from model.chroma.network import checkpoint
from model.chroma.network.hearing import Ear, Mel
from model.chroma.network.quirks import OFFICIAL, SERVING, Quirks
from model.chroma.network.sampling import GREEDY, Sampling
from model.chroma.network.trace import Trace
from model.chroma.serving import voices
from model.chroma.serving.conductor import Conductor, Spoken
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools import golden


@pytest.fixture(scope="module")
def cases(goldens: Path) -> list[golden.Case]:
    return list(golden.read(goldens / "chroma-a"))


@torch.inference_mode()
def prompt(model: checkpoint.Chroma, case: golden.Case) -> Tensor:
    """What the thinker is told in the case, `(n, H)`."""
    ids = torch.from_numpy(case["in_thinker_input_ids"][0])
    x = model.thinker.embed(ids).clone()
    heard = []
    for sound in case.sounds:
        ear = Ear(model.thinker.audio_tower, Mel(model.config.hearing.mels))
        ear.push(torch.from_numpy(sound))
        ear.finish()
        ear.listen()
        heard.append(ear.heard())
    x[ids == model.config.audio_token] = torch.cat(heard)
    return x


@torch.inference_mode()
def ready(steps: Steps, slot: int, case: golden.Case, sampling: Sampling = GREEDY) -> Reply:
    """The slot at the point where the case's reply begins."""
    model = steps.model
    steps.prefill({slot: prompt(model, case)})
    reference = torch.from_numpy(case["in_input_values"][0, 0])
    codes = voices.encode(model, reference, steps.quirks, 1)
    voices.lend(voices.prepare(model, torch.from_numpy(case["in_input_ids"][0]), codes), steps.slots, slot)
    steps.slots.sample(slot, sampling)
    return Reply(slot, len(case["all_step_codes"]))


def bench(model: checkpoint.Chroma, count: int, quirks: Quirks) -> Steps:
    return Steps(model, Slots.make(model, count, quirks, context=400, unwindowed_frames=200), quirks)


@torch.inference_mode()
def test_a_prompt_packed_with_others_pieces_is_understood_as_alone(
    cases: list[golden.Case], chroma_a: checkpoint.Chroma
) -> None:
    """The second halves of all cases in one pass, behind first halves of other lengths."""
    steps = bench(chroma_a, len(cases), OFFICIAL)
    trace = steps.trace = Trace()
    prompts = [prompt(chroma_a, case) for case in cases]
    assert len({len(x) for x in prompts}) > 1
    for slot, x in enumerate(prompts):
        steps.prefill({slot: x[: len(x) // 2]})
    steps.prefill({slot: x[len(x) // 2 :] for slot, x in enumerate(prompts)})
    assert steps.slots.thinker.lengths == [len(x) for x in prompts]
    for slot, case in enumerate(cases):
        assert int(steps.slots.token[slot]) == case["text_tokens"][0]
        logits = torch.from_numpy(case["thinker_logits"][0])
        torch.testing.assert_close(trace.of(slot).thinker_logits[0], logits, atol=1e-3, rtol=0)


def test_all_goldens_at_once_each_as_alone(cases: list[golden.Case], chroma_a: checkpoint.Chroma) -> None:
    """Five cases in nine slots, begun at different times, some frames skipped by the dice."""
    steps, draw = bench(chroma_a, 9, OFFICIAL), random.Random(7)
    slots = draw.sample(range(9), len(cases))
    running: dict[str, Reply] = {}
    frames: dict[str, list[list[int]]] = {case.name: [] for case in cases}
    sound: dict[str, list[Floats]] = {case.name: [] for case in cases}
    waiting = list(zip(cases, slots, strict=True))
    while waiting or any(reply.end is None for reply in running.values()):
        if waiting and draw.random() < 0.2:
            case, slot = waiting.pop()
            running[case.name] = ready(steps, slot, case)
        going = [(n, r) for n, r in running.items() if r.end is None and draw.random() < 0.8]
        if not going:
            continue
        for (name, _), frame in zip(going, perform(steps, [reply for _, reply in going]), strict=True):
            if frame.codes is not None and frame.pcm is not None:
                frames[name].append(frame.codes.tolist())
                sound[name].append(frame.pcm)
    for case in cases:
        assert running[case.name].words == case["text_tokens"].tolist()
        assert frames[case.name] == case["frames"].tolist()
        np.testing.assert_allclose(np.concatenate(sound[case.name]), case["wave"], atol=1e-4)


def test_a_frame_of_nothing_at_once_ends_quietly(
    cases: list[golden.Case], chroma_a: checkpoint.Chroma
) -> None:
    """The official code fails on a reply whose first frame is the end; ours has no sound."""
    steps = bench(chroma_a, 1, OFFICIAL)
    reply = ready(steps, 0, cases[0])
    zero = torch.zeros(1, chroma_a.config.codebooks, dtype=torch.long)
    steps.codes = lambda *_: zero  # type: ignore[method-assign]
    (frame,) = perform(steps, [reply])
    assert reply.end == "sound"
    assert frame.codes is None
    assert frame.pcm is None
    assert frame.word == reply.words[0]


def test_a_full_backbone_ends_a_reply_cleanly(cases: list[golden.Case], chroma_a: checkpoint.Chroma) -> None:
    case = next(case for case in cases if case.name == "basic")
    slots = Slots.make(chroma_a, 2, SERVING, context=400, reply=80)
    steps = Steps(chroma_a, slots, SERVING)
    short, prompt = ready(steps, 1, case), slots.backbone.lengths[1]
    short.frames_at_most = 1000
    while short.end is None:
        perform(steps, [short])
    assert short.end == "positions"
    assert 77 <= slots.backbone.lengths[1] <= 80
    sound_only, with_word = short.frames // 2, (short.frames - 1) // 2
    assert slots.backbone.lengths[1] == prompt + 2 + sound_only + 3 * with_word


def test_ids_that_are_no_sound_are_never_drawn_when_serving(
    cases: list[golden.Case], chroma_a: checkpoint.Chroma
) -> None:
    case, hot = cases[0], Sampling(temperature=50.0, top_k=0)
    for quirks, drawn in ((SERVING, False), (OFFICIAL, True)):
        steps = bench(chroma_a, 1, quirks)
        reply, beyond = ready(steps, 0, case, hot), False
        while reply.end is None:
            perform(steps, [reply])
            beyond |= bool((steps.slots.codes >= chroma_a.config.codebook_size).any())
        assert beyond is drawn


def test_ten_thousand_frames_in_flat_memory(cases: list[golden.Case], chroma_a: checkpoint.Chroma) -> None:
    """Twenty conversations, reply after reply of up to 50 frames, drawn hot."""
    count = 20
    case = next(case for case in cases if case.name == "early_text_end")
    slots = Slots.make(chroma_a, count, SERVING, context=200, reply=160)
    steps = Steps(chroma_a, slots, SERVING)
    ready(steps, 0, case)
    keys, values = slots.thinker.take(0, slots.thinker.lengths[0])
    prompt, hidden = slots.backbone.take(0, slots.backbone.lengths[0]), slots.hidden[0].clone()
    word = int(slots.token[0])
    frames, memory = 0, []
    while frames < 10_000:
        replies = []
        with torch.inference_mode():
            for slot in range(count):
                slots.clear(slot)
                slots.thinker.give(slot, keys, values)
                slots.backbone.give(slot, *prompt)
                slots.hidden[slot], slots.token[slot] = hidden, word
                slots.sample(slot, Sampling(temperature=1.0, seed=frames + slot))
                replies.append(Reply(slot, 50))
        while going := [reply for reply in replies if reply.end is None]:
            for frame in perform(steps, going):
                frames += frame.codes is not None
                assert frame.pcm is None or bool(np.isfinite(frame.pcm).all())
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert memory[-1] - memory[2] < 20_000, f"kilobytes grew: {memory}"


async def test_the_last_frame_is_heard_however_slowly_it_comes(
    cases: list[golden.Case], chroma_a: checkpoint.Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ends the reply before its last frame is with the listener, who may ask just then."""
    steps = bench(chroma_a, 1, SERVING)
    conductor = Conductor(steps)
    reply = ready(steps, 0, next(case for case in cases if case.name == "basic"))
    reply.frames_at_most = 5
    step = conductor._step

    def late(replies: list[Reply]) -> list[Spoken]:
        found = step(replies)
        time.sleep(0.03)
        return found

    monkeypatch.setattr(conductor, "_step", late)
    heard = 0
    async for _ in conductor.perform(reply):
        heard += 1
        await asyncio.sleep(0.015)
    await conductor.close()
    assert heard == 5
    assert reply.end == "length"
