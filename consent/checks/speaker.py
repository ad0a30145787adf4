"""Same speaker or not: the GE2E voice encoder of Resemblyzer 0.1.4, run in numpy.

Only the weights file of that package is read, the model file `speaker` of `models.lock`; the package itself
is never installed, since it would bring torch, librosa and webrtcvad. The network: a 40-band mel power
spectrogram (25 ms window, 10 ms hop, 16 kHz), three LSTM layers of 256, a linear layer, ReLU, unit length; an
utterance is the mean over windows of 1.6 s (Wan et al., "Generalized End-to-End Loss for Speaker
Verification", 2018).

What it cannot do: tell a person from a good imitation or a synthetic copy of them, or from a close relative.
It is evidence beside a human ear, never the only gate.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from consent.checks.sound import Floats
from consent.errors import ModelFileError
from consent.models.model_files import locked_model

WEIGHTS: Final = locked_model("speaker")
MODEL: Final = f"{WEIGHTS.wheels[0].package}-{WEIGHTS.wheels[0].version}/{WEIGHTS.files[0].sha256[:12]}"
RATE_HZ: Final = 16_000
WINDOW: Final = 400
HOP: Final = 160
BANDS: Final = 40
PARTIAL: Final = 160
"""Frames of one window of the network: 1.6 s."""
STEP: Final = 40
LEVEL: Final = 10 ** (-30 / 20)

SAME: Final = 0.87
"""At or above: the same speaker. See `benchmarks/consent_speakers.py` for the error rates at both: of
two people's pairs none came so high (most .86, both over G.711), of one's over one channel none was below."""
OTHER: Final = 0.65
"""Below: another speaker (of one person's pairs none, even across channels: least .68). Between the two a
human listens."""


class SpeakerModel(Protocol):
    """The seam for a better model."""

    name: str
    same: float
    other: float

    def windows(self, speech_16k: Floats) -> Floats:
        """Speech alone, float32 at 16 kHz -> overlapping windows' unit vectors `(n, 256)`, n at least 1."""
        ...


def voiceprint(windows: Floats) -> Floats:
    """The voice of all windows together, a unit vector `(256,)`."""
    mean = windows.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def similarity(one: Floats, other: Floats) -> float:
    """Cosine of two unit vectors."""
    return float(np.dot(one, other))


class SpeakerUnavailable(Exception):
    """There is no model here: the verdict is `needs review`."""


@dataclass(frozen=True, slots=True)
class _Layer:
    of_input: Floats
    """`(4 * 256, inputs)`"""
    of_hidden: Floats
    bias: Floats


class GE2E:
    """The encoder. Stateless; about 20 ms for 10 s of speech on one core."""

    name = MODEL
    same = SAME
    other = OTHER

    def __init__(self, weights: dict[str, Floats]) -> None:
        self._layers = [
            _Layer(
                weights[f"lstm.weight_ih_l{k}"],
                weights[f"lstm.weight_hh_l{k}"],
                weights[f"lstm.bias_ih_l{k}"] + weights[f"lstm.bias_hh_l{k}"],
            )
            for k in range(3)
        ]
        self._linear, self._bias = weights["linear.weight"], weights["linear.bias"]

    @staticmethod
    @lru_cache(maxsize=1)
    def load(models: Path) -> GE2E:
        """The weights in a directory of model files. Raises `SpeakerUnavailable`."""
        try:
            return GE2E(_read_checkpoint(io.BytesIO(WEIGHTS.read(models))))
        except ModelFileError as error:
            raise SpeakerUnavailable(str(error)) from None

    def windows(self, speech_16k: Floats) -> Floats:
        """Voiceprints `(n, 256)` of windows of speech (float32 16 kHz)."""
        mel = mel_power(_levelled(speech_16k))
        if len(mel) < PARTIAL:
            mel = np.pad(mel, ((0, PARTIAL - len(mel)), (0, 0)))
        starts = range(0, len(mel) - PARTIAL + 1, STEP)
        return self._forward(np.stack([mel[at : at + PARTIAL] for at in starts]))

    def _forward(self, mels: Floats) -> Floats:
        """`(B, 160, 40)` -> unit vectors `(B, 256)`."""
        steps = mels
        for layer in self._layers:
            hidden = np.zeros((len(mels), 256), np.float32)
            cell = np.zeros_like(hidden)
            driven = steps @ layer.of_input.T + layer.bias  # (B, T, 4 * 256)
            outs = np.empty((len(mels), PARTIAL, 256), np.float32)
            for t in range(PARTIAL):
                gates = driven[:, t] + hidden @ layer.of_hidden.T
                into, keep, fresh, out = np.split(gates, 4, axis=1)  # torch's order: i, f, g, o
                cell = _sigmoid(keep) * cell + _sigmoid(into) * np.tanh(fresh)
                hidden = _sigmoid(out) * np.tanh(cell)
                outs[:, t] = hidden
            steps = outs
        raw = np.maximum(steps[:, -1] @ self._linear.T + self._bias, 0)
        return np.asarray(raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9), np.float32)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)


def _levelled(speech: Floats) -> Floats:
    """Raised to -30 dBFS when it is quieter, as the network was trained."""
    rms = float(np.sqrt(np.mean(speech.astype(np.float64) ** 2)) if len(speech) else 0.0)
    return speech * np.float32(LEVEL / rms) if 0 < rms < LEVEL else speech


def mel_power(sound: Floats) -> Floats:
    """Mel power spectrogram, float32 `(frames, 40)`: centred Hann windows of 25 ms each 10 ms."""
    padded = np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return np.asarray(power @ _mel_bands().T, np.float32)


@lru_cache(maxsize=1)
def _mel_bands() -> NDArray[np.float64]:
    """Triangles of equal area on Slaney's mel scale (linear below 1 kHz), 0 to 8 kHz, `(40, 201)`."""
    top = 15 + 27 * np.log(8_000 / 1_000) / np.log(6.4)
    mels = np.linspace(0, top, BANDS + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1_000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.arange(WINDOW // 2 + 1) * RATE_HZ / WINDOW
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise, fall = (bins - low) / (mid - low), (high - bins) / (high - mid)
    return np.asarray(np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low))


class _Unpickler(pickle.Unpickler):
    """Reads the tensors of a torch checkpoint (the form before torch 1.6) and can make nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _View,
            ("torch", "FloatStorage"): "float",
            ("torch", "LongStorage"): "long",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no business in this file")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return str(pid[2])  # ("storage", type, key, device, count, view)


class _View:
    """Where a tensor lies in its storage."""

    def __init__(self, key: str, offset: int, shape: tuple[int, ...], *_: Any) -> None:
        self.key, self.offset, self.shape = key, offset, shape


def _read_checkpoint(file: IO[bytes]) -> dict[str, Floats]:
    for _ in range(3):  # magic number, protocol version, sizes of the writer's types
        _Unpickler(file).load()
    state = _Unpickler(file).load()["model_state"]
    storages: dict[str, Floats] = {}
    wanted = {view.key for view in state.values()}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        if key in wanted:
            storages[key] = np.frombuffer(file.read(4 * count), "<f4")
        if wanted <= storages.keys():
            break
    tensors = {}
    for name, view in state.items():
        size = int(np.prod(view.shape))
        tensors[name] = storages[view.key][view.offset : view.offset + size].reshape(view.shape)
    return tensors
