"""Everything that serving does, done once before the first call: nothing is compiled after that.

A GPU's kernels are compiled, captured or loaded at their first use, which takes from milliseconds to seconds
on the one thread that all callers wait for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from model.chroma.network.quirks import Quirks
from model.chroma.network.sampling import Sampling
from model.chroma.network.upload import uploaded, uploaded_sound
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.steps import Steps

WIDTHS: Final = (1, 4, 16, 64, 128, 256)
"""Positions of prefills: libraries choose their kernels by size."""
CLIP_FRAMES: Final = 3
WORDS: Final = 4


def make_ready(steps: Steps, quirks: Quirks, piece_frames: int) -> None:
    """Captures and warms what a GPU needs; nothing to do elsewhere. Nobody holds a slot yet."""
    device = steps.model.device
    if device.type != "cuda":
        return
    steps.prepare()
    warm(steps, quirks, piece_frames)
    torch.cuda.synchronize(device)


@torch.inference_mode()
def warm(steps: Steps, quirks: Quirks, piece_frames: int) -> None:
    """What goes without a graph: prefills, a voice from its clip, a slot's beginning and end."""
    slots, voice = steps.slots, clip(steps.model, quirks, piece_frames)
    for width in WIDTHS:
        if width <= slots.thinker.capacity and slots.thinker.claim(0, width):
            steps.prefill({0: steps.model.thinker.embed(uploaded([0] * width, steps.model.device))})
            slots.thinker.cut(0, 0)
    if slots.backbone.claim(0, voice.positions):
        voices.lend(voice, slots, 0)
    slots.sample(0, Sampling())
    slots.begin(0, 1, [0])
    slots.clear(0)


def clip(model: Chroma, quirks: Quirks, piece_frames: int) -> voices.Voice:
    """A voice of silence: a whole piece of a clip, and a last one that ends in a frame."""
    frame = model.config.codec.frame
    stream = voices.encoding(model, (piece_frames + CLIP_FRAMES) * frame, quirks, piece_frames)
    codes = [
        voices.encode_piece(model, uploaded_sound(np.zeros(samples, np.float32), model.device), stream)
        for samples in (piece_frames * frame, CLIP_FRAMES * frame - frame // 2)
    ]
    return voices.prepare(model, uploaded([0] * WORDS, model.device), torch.cat(codes))
