"""Silero VAD's network, carried with this program: `silero_vad.onnx` of silero-vad 6.2.3 (MIT, `LICENSE`).

The file judges windows of 32 ms at 8 and at 16 kHz. The package it comes from would bring torch; ONNX Runtime
takes 27 MB of each process and twice the time for many callers at once, so the network is computed here: the
magnitudes of four short spectra, four convolutions, one step of an LSTM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from consent.errors import ModelFileError
from consent.silero.onnx_file import Tensor, constants

PATH: Final = Path(__file__).with_name("silero_vad.onnx")
SHA256: Final = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
STATE: Final = 128
"""Numbers of each of the two halves of a listener's state."""
_BRANCHES: Final[Mapping[int, str]] = {8_000: "else", 16_000: "then"}
"""The file asks once whether the rate is 16,000; these are the two branches, by rate."""
_SPECTRA: Final = 4

Floats = NDArray[np.float32]


def read_network() -> bytes:
    """The file's content. Raises `ModelFileError` when the file is away or has another hash."""
    try:
        content = PATH.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{PATH}: {error.strerror}; install voicegate again") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelFileError(f"{PATH} is not the file that came with voicegate; install voicegate again")
    return content


def open_network(rate_hz: int) -> SileroNetwork:
    """The network for sound at 8,000 or 16,000 Hz. Raises `ModelFileError` as `read_network` does."""
    start = f"If_0_{_BRANCHES[rate_hz]}_branch__Inline_0__"
    found = constants(read_network())
    return SileroNetwork({name.removeprefix(start): found[name] for name in found if name.startswith(start)})


class SileroNetwork:
    """One rate's. It keeps nothing between two questions, so several threads may ask at once."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        basis = weights["stft.forward_basis_buffer"][:, 0]  # (2 * bins, samples of a spectrum)
        self._bins, self._span = len(basis) // 2, basis.shape[1]
        self._basis = _own(basis.T)
        kernels = [weights[f"encoder.{layer}.reparam_conv.weight"].transpose(2, 1, 0) for layer in range(4)]
        self._biases = [weights[f"encoder.{layer}.reparam_conv.bias"].copy() for layer in range(4)]
        # (taps, in, out): what falls on the zeros beside one or two frames is left out
        taps = (kernels[0], kernels[1], kernels[2][1:], kernels[3][1:2])
        self._kernels = [_own(kernel.reshape(-1, kernel.shape[2])) for kernel in taps]
        self._lstm = _own(
            np.concatenate([weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"]], axis=1).T
        )
        self._lstm_bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
        self._out = weights["decoder.decoder.2.weight"][0, :, 0].copy()
        self._out_bias = float(weights["decoder.decoder.2.bias"][0])

    def judge(self, heard: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Probability of speech `(B,)`, and the state after it, `(2, B, 128)`.

        `heard`: float32 `(B, n)`, a window of 32 ms after the last eighth of the one before it; `state`: what
        the window before left, zeros at first.
        """
        count = len(heard)
        wide = _padded(self._spectra(heard), 1)
        wide = _padded(self._layer(0, _windows(wide, _SPECTRA, 3, 1), count), 1)
        wide = self._layer(1, _windows(wide, 2, 3, 2), count)
        wide = self._layer(2, wide.reshape(count, -1), count)
        wide = self._layer(3, wide.reshape(count, -1), count)
        gates = np.concatenate([wide.reshape(count, -1), state[0]], axis=1) @ self._lstm
        gates += self._lstm_bias
        keep = _sigmoid(gates[:, : 2 * STATE])  # input and forget
        cell = keep[:, STATE:] * state[1]
        cell += keep[:, :STATE] * np.tanh(gates[:, 2 * STATE : 3 * STATE])
        after = np.empty_like(state)
        after[0] = _sigmoid(gates[:, 3 * STATE :]) * np.tanh(cell)
        after[1] = cell
        return _sigmoid(np.maximum(after[0], 0) @ self._out + self._out_bias), after

    def _spectra(self, heard: Floats) -> Floats:
        """Magnitudes `(B, 4, bins)` of half-overlapping pieces; the last one ends in the sound reversed."""
        span, hop = self._span, self._span // 2
        whole = np.concatenate([heard, heard[:, -2 : -2 - hop // 2 : -1]], axis=1)
        down, along = whole.strides
        pieces = as_strided(whole, (len(heard), _SPECTRA, span), (down, hop * along, along), writeable=False)
        parts: Floats = pieces.reshape(-1, span) @ self._basis
        parts *= parts
        power: Floats = parts[:, : self._bins] + parts[:, self._bins :]
        np.sqrt(power, out=power)
        return power.reshape(len(heard), _SPECTRA, self._bins)

    def _layer(self, number: int, windows: Floats, count: int) -> Floats:
        """A convolution as one product, and ReLU: `(B, frames, out)`."""
        out: Floats = windows @ self._kernels[number]
        out += self._biases[number]
        np.maximum(out, 0, out=out)
        return out.reshape(count, -1, out.shape[1])


def _own(matrix: Floats) -> Floats:
    return np.array(matrix, np.float32, order="C")


def _padded(frames: Floats, by: int) -> Floats:
    """`(B, n, width)` with zero frames before and after."""
    count, length, width = frames.shape
    out = np.zeros((count, length + 2 * by, width), np.float32)
    out[:, by : by + length] = frames
    return out


def _windows(frames: Floats, count: int, taps: int, stride: int) -> Floats:
    """The `count` windows of so many frames that a convolution looks at: `(B * count, taps * width)`."""
    size, _, width = frames.shape
    down, along, each = frames.strides
    shape, strides = (size, count, taps * width), (down, stride * along, each)
    return as_strided(frames, shape, strides, writeable=False).reshape(size * count, taps * width)


def _sigmoid(values: Floats) -> Floats:
    """By the hyperbolic tangent, which no value overflows."""
    out: Floats = np.tanh(values * np.float32(0.5))
    out *= np.float32(0.5)
    out += np.float32(0.5)
    return out
