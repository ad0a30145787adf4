"""Once an engine is ready nothing is compiled, and nothing that the host brings is waited for.

At the full model's shapes on torch's `meta` device, by the ways that a GPU takes; Triton's kernels are keyed
and not run (see `specialised`).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.chroma.network import cache, checkpoint, config, hearing, upload
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.serving import prefill, voices, warming
from model.chroma.serving import slots as slots_module
from model.chroma.serving.engine import PIECE_FRAMES
from model.chroma.serving.slots import Positions, Slots
from model.chroma.serving.steps import Steps
from tests.model.chroma.kernels.specialised import Compilations, counted
from tests.model.chroma.serving.test_step import OnDevice

SLOTS = 6


def without_data() -> Steps:
    """The full model without its data, and two layers of each part, which are keyed as all are."""
    full = config.read(config.FULL_SIZE)
    parts = {
        name: dataclasses.replace(getattr(full, name), layers=2)
        for name in ("thinker", "backbone", "decoder", "hearing", "codec")
    }
    model = checkpoint.blueprint(dataclasses.replace(full, **parts)).to(torch.bfloat16)
    promised = Positions(1024, 1024)
    slots = Slots.make(model, SLOTS, SERVING, context=2048, reply=1500, promised=promised)
    return Steps(model, slots, SERVING)


@pytest.fixture
def keyed() -> Iterator[Compilations]:
    """Kernels are keyed and not run."""
    with counted() as found:
        yield found


def claim(slots: Slots) -> None:
    """Every slot has a conversation."""
    for of in (slots.thinker, slots.backbone):
        assert all(of.claim(slot, 1024) for slot in range(SLOTS))


@torch.inference_mode()
def serve(steps: Steps, draw: random.Random) -> None:
    """What callers may bring: prefills of any widths together, chunks of any lengths, clips, steps."""
    slots, model = steps.slots, steps.model
    claim(slots)
    hidden = model.config.thinker.hidden
    for _ in range(8):
        company = draw.sample(range(SLOTS), draw.randint(1, SLOTS))
        widths = {slot: draw.randint(1, 256 // len(company)) for slot in company}
        steps.prefill(
            {slot: torch.empty(n, hidden, device="meta", dtype=model.dtype) for slot, n in widths.items()}
        )
    for slot in range(SLOTS):
        slots.thinker.cut(slot, 0)
    for chunks in (1, 3, 16):
        steps.encoder([torch.empty(model.config.hearing.mels, draw.randint(1, 200)) for _ in range(chunks)])
    frame = model.config.codec.frame
    for samples, words in ((PIECE_FRAMES * frame, 31), (draw.randint(1, 24) * frame, 17), (frame - 7, 1)):
        stream = voices.encoding(model, samples, SERVING, PIECE_FRAMES)
        pcm = upload.uploaded_sound(np.zeros(samples, np.float32), model.device)
        codes = voices.encode_piece(model, pcm, stream)
        voice = voices.prepare(model, upload.uploaded([1] * words, model.device), codes)
        voices.lend(voice, slots, draw.randrange(SLOTS))


@torch.inference_mode()
def test_whatever_callers_bring_every_kernel_is_compiled_by_then(keyed: Compilations) -> None:
    steps = without_data()
    for words, pairs in product((True, False), repeat=2):
        shape = steps.shape(range(SLOTS), words=words, pairs=pairs)
        steps.step(shape, torch.empty(SLOTS, dtype=torch.long, device="meta"))
    warming.warm(steps, SERVING, PIECE_FRAMES)
    ready = keyed.count()
    assert ready["_rotate_put"] > 0
    for seed in range(3):
        serve(steps, random.Random(seed))
    assert keyed.count() == ready


def at_once(values: Any, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """`uploaded`, whose copy nobody waits for."""
    return torch.empty(np.shape(values), dtype=dtype, device="meta")


@torch.inference_mode()
def test_prefill_voices_and_the_beginning_of_a_reply_bring_nothing_but_by_uploads(
    keyed: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other copy from the host would be waited for; a reading of the device would raise."""
    steps = without_data()
    slots, model = steps.slots, steps.model
    warming.warm(steps, SERVING, PIECE_FRAMES)  # frequencies and codewords are put in place once
    claim(slots)
    for module in (cache, hearing, prefill, slots_module, voices, warming):
        monkeypatch.setattr(module, "uploaded", at_once)
    pcm = torch.empty(PIECE_FRAMES * model.config.codec.frame, device="meta")
    fresh = {slot: torch.empty(9 + slot, 2048, device="meta", dtype=model.dtype) for slot in (3, 1)}
    with OnDevice() as watched:
        steps.prefill(fresh)
        codes = voices.encode_piece(model, pcm, voices.encoding(model, len(pcm), SERVING, PIECE_FRAMES))
        voice = voices.prepare(model, at_once([1] * 20, model.device), codes)
        voices.lend(voice, slots, 1)
        slots.sample(1, Sampling())
        slots.begin(1, 100, [3, 4, 5])
        slots.thinker.cut(3, 2)
    assert watched.calls > 200


def test_an_upload_to_a_gpu_is_pinned_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Sent:
        def to(self, device: torch.device, *, non_blocking: bool) -> None:
            asked[-1]["non_blocking"] = non_blocking

    monkeypatch.setattr(upload.torch, "tensor", lambda values, **how: (asked.append(how), Sent())[1])
    for device in ("cuda", "cpu"):
        upload.uploaded([1, 2], torch.device(device))
    long = {"dtype": torch.long, "non_blocking": True}
    assert asked == [{**long, "pin_memory": True}, {**long, "pin_memory": False}]
