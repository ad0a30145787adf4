"""Voices: a clip's codes and the backbone's state after its prompt, computed once and kept by hash."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model.chroma.network.cache import PAGE
from model.chroma.network.mimi import MimiStream
from model.chroma.network.quirks import Quirks
from model.chroma.network.token_run import Packing
from model.chroma.network.upload import uploaded
from model.chroma.network.weights import Chroma
from model.chroma.serving.slots import Slots

PROMPT: Final = 3
"""Positions of a voice's prompt besides its words and frames."""
TOKENS: Final = 256
"""A prompt's positions are padded to a multiple of it, so that kernels are compiled once for all."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """`codes` `(frames, codebooks)`; `keys`, `values` `(layers, kv_heads, P, head_dim)` of the backbone."""

    codes: Tensor
    prompt: Tensor
    keys: Tensor
    values: Tensor

    @property
    def positions(self) -> int:
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.codes.nbytes + self.prompt.nbytes


def encoding(model: Chroma, samples: int, quirks: Quirks, piece_frames: int) -> MimiStream:
    """State to encode a clip of `samples` samples in pieces."""
    codec = model.config.codec
    frames = -(-samples // codec.frame)
    window = codec.window if quirks.codec_forgets else None
    # with a window always as for whole pieces: kernels are compiled by the size of a ring
    return model.codec_model.encoding(frames if window is None else piece_frames, window)


@torch.inference_mode()
def encode_piece(model: Chroma, pcm: Tensor, stream: MimiStream) -> Tensor:
    """The next samples `(N,)` of a clip to codes `(frames, codebooks)`; only the last may end in a frame."""
    return model.codec_model.encode(pcm[None, None], stream, model.config.codebooks)[0].T


def encode(model: Chroma, pcm: Tensor, quirks: Quirks, piece_frames: int | None = None) -> Tensor:
    """A clip `(N,)` at Mimi's rate to codes `(frames, codebooks)`; in pieces, or at once."""
    size = model.config.codec.frame
    piece = piece_frames or -(-len(pcm) // size)
    stream = encoding(model, len(pcm), quirks, piece)
    return torch.cat([encode_piece(model, part, stream) for part in torch.split(pcm, piece * size)])


@torch.inference_mode()
def prepare(model: Chroma, text: Tensor, codes: Tensor) -> Voice:
    """The voice of a clip's words (ids `(n,)`) and codes."""
    prompt = model.voice_prompt(text, codes)
    backbone, width = model.backbone.model, len(prompt)
    padded = -(-width // TOKENS) * TOKENS
    cache = backbone.cache(1, padded, PAGE)
    if cache.kernels:
        packing = Packing(padded, 1)
        numbers = uploaded(packing.numbers(cache.extend({0: width}), {0: width}, 1), model.device)
        x = F.pad(prompt, (0, 0, 0, padded - width))
        backbone(x[:, None], cache, cache.run_span(packing.run(numbers)))
    else:
        backbone(prompt[None], cache, cache.span([0], [width], width))
    return Voice(codes, prompt, *cache.take(0, width))


def nbytes_of(model: Chroma, words: int, frames: int) -> int:
    """The bytes that a voice of `words` words and `frames` frames will take."""
    config, size = model.config, model.dtype.itemsize
    position = (config.backbone.kv_floats + config.backbone.hidden) * size
    return (words + frames + PROMPT) * position + frames * config.codebooks * torch.long.itemsize


class VoiceCache:
    """The voices that are held, and those last used, in up to `limit` bytes; at least the last one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._held: Counter[Voice] = Counter()

    def get(self, voice_hash: str) -> Voice | None:
        voice = self._voices.get(voice_hash)
        if voice is not None:
            self._voices.move_to_end(voice_hash)
        return voice

    def put(self, voice_hash: str, voice: Voice) -> None:
        self._voices[voice_hash] = voice
        self._voices.move_to_end(voice_hash)
        self._evict(voice)

    def hold(self, voice: Voice) -> None:
        """A conversation begins to use this voice."""
        self._held[voice] += 1

    def release(self, voice: Voice) -> None:
        """A conversation stops using this voice."""
        self._held[voice] -= 1
        if not self._held[voice]:
            del self._held[voice]
        self._evict(next(reversed(self._voices.values()), None))

    def erase(self, voice_hash: str) -> None:
        """Forgets a voice, as its owner may demand; who holds it has it until its call's end."""
        self._voices.pop(voice_hash, None)

    def _evict(self, last: Voice | None) -> None:
        for voice_hash, voice in list(self._voices.items()):
            if self.nbytes <= self.limit:
                return
            if voice is not last and voice not in self._held:
                del self._voices[voice_hash]

    def room(self, nbytes: int) -> bool:
        """Whether `nbytes` more fit beside the voices that are held."""
        held = sum(voice.nbytes for voice in self._held)
        return not held or held + nbytes <= self.limit

    @property
    def nbytes(self) -> int:
        return sum(voice.nbytes for voice in {*self._voices.values(), *self._held})

    def __len__(self) -> int:
        return len(self._voices)


def lend(voice: Voice, slots: Slots, slot: int) -> None:
    """The slot's backbone stands after the voice's prompt; its codec begins anew."""
    if slots.backbone.lengths[slot] >= voice.positions:
        slots.backbone.cut(slot, voice.positions)
    else:
        slots.backbone.give(slot, voice.keys, voice.values)
    slots.codec.reset(slot)
    slots.codes[slot].zero_()
