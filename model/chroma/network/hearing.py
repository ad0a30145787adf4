"""How the caller is heard: log-mel frames (Whisper's) and the audio encoder, in chunks of 2 s.

The encoder attends within a chunk only and starts each anew, so a chunk can be encoded as soon as it was
spoken. What is not causal is the mel's floor, 8 decades below the utterance's loudest point: `Ear` encodes
with the loudest point so far, and encodes those chunks again that a louder one changes.

An `Ear` works in two halves, so that the encoder can take the chunks of many ears at once, and mel frames be
made beside it: `wanted` says what is to be encoded, `learn` is told what came of it. `listen` does both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from model.chroma.network.attention import attend
from model.chroma.network.config import HearingConfig
from model.chroma.network.upload import uploaded

EAR_HZ: Final = 16_000
FFT: Final = 400
HOP: Final = 160
FLOOR: Final = 8.0
"""Decades below the loudest point that are kept."""
QUIETEST: Final = 1e-10


class Mel:
    """Log-mel frames of a sound that comes in pieces; without the floor, which needs the whole."""

    def __init__(self, mels: int) -> None:
        bank = mel_filter_bank(1 + FFT // 2, mels, 0.0, 8000.0, EAR_HZ, norm="slaney", mel_scale="slaney")
        self._bank = torch.from_numpy(bank).float().T.contiguous()
        self._window = torch.hann_window(FFT)

    def frames(self, padded: Tensor) -> Tensor:
        """`(n,)` samples to `(mels, (n - 400) // 160 + 1)`: log10 of power."""
        spectrum = torch.stft(padded, FFT, HOP, window=self._window, center=False, return_complex=True)
        power = (spectrum.abs() ** 2).contiguous()
        return (self._bank @ power).clamp(min=QUIETEST).log10()


class AudioAttention(nn.Module):
    """All of a chunk attends to all of it; no bias on the keys."""

    def __init__(self, config: HearingConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            proj(x).view(*x.shape[:2], self._heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module's call


class AudioBlock(nn.Module):
    def __init__(self, config: HearingConfig) -> None:
        super().__init__()
        self.self_attn = AudioAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden)
        self.fc1 = nn.Linear(config.hidden, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, config.hidden)
        self.final_layer_norm = nn.LayerNorm(config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))  # type: ignore[no-any-return]  # nn.Module's call


class AudioTower(nn.Module):
    """The audio encoder."""

    def __init__(self, config: HearingConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.mels, config.hidden, 3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden, config.hidden, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(AudioBlock(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.hidden)
        self.proj = nn.Linear(config.hidden, config.out)
        # not under a meta device: these are computed, not loaded
        with torch.device("cpu"):
            self._positions = _sinusoids((config.chunk + 1) // 2, config.hidden)

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """Chunks `(B, mels, L)`, L at most `config.chunk`, to `(B, tokens(L), out)`.

        `frames` `(B,)`: how many of each chunk's are real, at least one (None: all L). Behind them the mel is
        0, which is what the convolutions see behind any chunk; nothing attends there. So a chunk's own tokens
        are those that it has without the padding, and the tokens behind them mean nothing.
        """
        weight = self.conv1.weight
        x = F.gelu(self.conv1(mel.to(weight.device, weight.dtype)))
        mask = None
        if frames is not None:
            at = torch.arange(x.shape[2], device=x.device)
            x = torch.where(at < frames[:, None, None], x, 0.0)
            seen = at[: (x.shape[2] + 1) // 2] < (frames[:, None, None, None] + 1) // 2
            # added to the scores, in their own type: made once for all layers
            mask = torch.zeros(seen.shape, device=x.device, dtype=x.dtype).masked_fill(~seen, -torch.inf)
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self._sinusoids(x)
        for layer in self.layers:
            x = layer(x, mask)
        pairs = x.shape[1] // 2
        pooled = (x[:, 0 : 2 * pairs : 2] + x[:, 1 : 2 * pairs : 2]) / 2
        return self.proj(self.ln_post(pooled))  # type: ignore[no-any-return]  # nn.Module's call

    def _sinusoids(self, like: Tensor) -> Tensor:
        """Positions within a chunk, for `like` `(B, T, channels)`."""
        if self._positions.device != like.device or self._positions.dtype != like.dtype:
            self._positions = self._positions.to(like.device, like.dtype)
        return self._positions[: like.shape[1]]

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Chunks `(mels, L)` of any lengths in one pass, each to its tokens `(tokens(L), out)`."""
        lengths = [mel.shape[1] for mel in mels]
        longest = max(lengths)
        padded = torch.stack([F.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        same = min(lengths) == longest
        heard = self(padded, None if same else uploaded(lengths, self.proj.weight.device))
        return [of[: tokens(length)] for of, length in zip(heard, lengths, strict=True)]

    def whole(self, mel: Tensor) -> Tensor:
        """An utterance `(mels, L)` at once: `(tokens, out)`."""
        *full, last = torch.split(mel, self.config.chunk, dim=1)
        parts = list(self(torch.stack(full))) if full else []
        return torch.cat([*parts, self(last[None])[0]])


def _sinusoids(length: int, channels: int) -> Tensor:
    """`(length, channels)` float32."""
    half = channels // 2
    scales = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(half).float())
    turned = torch.arange(length)[:, None] * scales
    return torch.cat((turned.sin(), turned.cos()), dim=1)


def tokens(frames: int) -> int:
    """Audio tokens of `frames` mel frames."""
    return ((frames - 1) // 2 + 1) // 2 if frames else 0


@dataclass(slots=True)
class _Chunk:
    raw: Tensor
    quietest: float
    floor: float = -math.inf
    heard: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Chunks of an ear that the encoder must hear: their numbers, and mels `(mels, L)` above that floor."""

    numbers: list[int]
    floor: float
    mels: list[Tensor]


@dataclass(slots=True)
class Ear:
    """One utterance as it comes. With the `maximum` "exact", what a louder sound changes is encoded again;
    with "running" it is not."""

    tower: AudioTower
    mel: Mel
    maximum: Literal["exact", "running"] = "exact"
    encoded_chunks: int = 0
    """how many chunks went through the encoder, repeated ones too"""
    _samples: int = 0
    _waiting: Tensor = field(default_factory=lambda: torch.zeros(0))
    _raw: list[Tensor] = field(default_factory=list)
    _frames: int = 0
    _chunks: list[_Chunk] = field(default_factory=list)
    _loudest: float = -math.inf
    _begun: bool = False

    def push(self, pcm: Tensor) -> None:
        """More of it: `(n,)` float32 at 16 kHz."""
        self._samples += len(pcm)
        self._waiting = torch.cat((self._waiting, pcm))
        if not self._begun:
            if len(self._waiting) <= FFT // 2:
                return
            self._begin()
        self._take((len(self._waiting) - FFT) // HOP + 1)

    def _begin(self) -> None:
        # the first frame is centred on the first sample; what would be before it is mirrored
        self._waiting = torch.cat((self._waiting[1 : FFT // 2 + 1].flip(0), self._waiting))
        self._begun = True

    def _take(self, count: int) -> None:
        """`count` frames out of what waits."""
        if count <= 0:
            return
        frames = self.mel.frames(self._waiting[: (count - 1) * HOP + FFT])
        self._waiting = self._waiting[count * HOP :]
        self._loudest = max(self._loudest, float(frames.max()))
        self._raw.append(frames)
        self._frames += frames.shape[1]
        size = self.tower.config.chunk
        if self._frames >= size:
            whole = torch.cat(self._raw, dim=1)
            while whole.shape[1] >= size:
                self._add(whole[:, :size])
                whole = whole[:, size:]
            self._raw, self._frames = [whole], whole.shape[1]

    def _add(self, raw: Tensor) -> None:
        self._chunks.append(_Chunk(raw, float(raw.min())))

    def finish(self) -> None:
        """It is over: silence follows."""
        self._waiting = torch.cat((self._waiting, torch.zeros(2 * FFT)))
        if not self._begun:
            self._begin()
        wanted = -(-self._samples // HOP)
        # frames centred after the end count for the maximum, but are not kept
        self._take((len(self._waiting) - FFT) // HOP + 1)
        extra = len(self._chunks) * self.tower.config.chunk + self._frames - wanted
        rest = torch.cat(self._raw, dim=1) if self._raw else torch.zeros(self.tower.config.mels, 0)
        while extra > rest.shape[1]:  # the extra frames filled a chunk
            rest = torch.cat((self._chunks.pop().raw, rest), dim=1)
        rest = rest[:, : rest.shape[1] - extra]
        self._raw, self._frames = [], 0
        if rest.shape[1]:
            self._add(rest)

    def wanted(self) -> Wanted | None:
        """The chunks that are new or changed; None when there is none."""
        floor = self._loudest - FLOOR
        numbers = [k for k, chunk in enumerate(self._chunks) if self._stale(chunk, floor)]
        if not numbers:
            return None
        return Wanted(numbers, floor, [self.floored(self._chunks[k].raw, floor) for k in numbers])

    def learn(self, wanted: Wanted, heard: Sequence[Tensor]) -> int:
        """The encoder made these tokens of what was `wanted`; answers the first of its chunks."""
        for k, tokens_ in zip(wanted.numbers, heard, strict=True):
            self._chunks[k].heard, self._chunks[k].floor = tokens_, wanted.floor
        self.encoded_chunks += len(wanted.numbers)
        return wanted.numbers[0]

    def listen(self) -> int | None:
        """Encodes what can be; answers the first chunk that is new or changed, None when there is none."""
        wanted = self.wanted()
        return None if wanted is None else self.learn(wanted, self.tower.encode(wanted.mels))

    @property
    def missing(self) -> int:
        """Samples that must still come before the next chunk is whole."""
        frames = self.tower.config.chunk - self._frames
        waiting = len(self._waiting) + (0 if self._begun else FFT // 2)
        return max(1, (frames - 1) * HOP + FFT - waiting)

    def _stale(self, chunk: _Chunk, floor: float) -> bool:
        if chunk.heard is None:
            return True
        return self.maximum == "exact" and floor > chunk.floor and chunk.quietest < floor

    @staticmethod
    def floored(raw: Tensor, floor: float) -> Tensor:
        """`(mels, L)` as the encoder wants it."""
        return (raw.clamp(min=floor) + 4.0) / 4.0

    def heard(self, first: int = 0) -> Tensor:
        """Tokens `(n, out)` of the chunks from `first` on."""
        parts = [chunk.heard for chunk in self._chunks[first:] if chunk.heard is not None]
        if not parts:
            weight = self.tower.proj.weight
            return torch.zeros(0, self.tower.config.out, device=weight.device, dtype=weight.dtype)
        return torch.cat(parts)

    def before(self, chunk: int) -> int:
        """Tokens of the chunks before that one."""
        return sum(tokens(c.raw.shape[1]) for c in self._chunks[:chunk])

    @property
    def chunks(self) -> int:
        """Chunks that are whole, and the last one once it is over."""
        return len(self._chunks)

    def features(self) -> Tensor:
        """The whole mel `(mels, L)` as far as it is cut into chunks."""
        raw = [chunk.raw for chunk in self._chunks]
        if not raw:
            return torch.zeros(self.tower.config.mels, 0)
        return self.floored(torch.cat(raw, dim=1), self._loudest - FLOOR)
