"""Marking sound: keyed noise under speech, never the same twice. First form; the strong one replaces it.

Additive spread spectrum in 300 to 3400 Hz. Every 10 ms hop draws fresh chips from AES-CTR keyed by
HMAC(key, payload, a secret start of the call); the noise follows the speech's level 29 dB below it. Silence
in, silence out. No delay is added.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from watermark.errors import MarkError
from watermark.frames import _SEAL, RATE_HZ, MarkedFrame
from watermark.keys import MarkKey

MARK_DELAY_S: Final = 0.0
HOP: Final = 240
WINDOW: Final = 2 * HOP
BINS: Final = slice(6, 69)
LEVEL: Final = 0.035
"""Noise to speech, rms (-29 dB)."""
SILENCE: Final = 1e-4

Floats = NDArray[np.float32]

_CHIPS: Final = BINS.stop - BINS.start
_WINDOW: Final = np.sqrt(np.hanning(WINDOW + 1)[:-1]).astype(np.float32)


def chip_stream(key: MarkKey, payload: int, start: bytes) -> CipherContext:
    """The keystream that a call's chips are drawn from."""
    seed = hmac.new(key.secret, b"chips|" + payload.to_bytes(8) + start, hashlib.sha256).digest()
    return Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()


def carrier_hop(stream: CipherContext) -> Floats:
    """One windowed 20 ms piece of unit-power noise in the band."""
    raw = np.frombuffer(stream.update(bytes(16)), np.uint8)
    signs = np.unpackbits(raw)[: 2 * _CHIPS].astype(np.float32) * 2 - 1
    spectrum = np.zeros(WINDOW // 2 + 1, np.complex64)
    spectrum[BINS] = signs[:_CHIPS] + 1j * signs[_CHIPS:]
    noise = np.fft.irfft(spectrum, WINDOW).astype(np.float32)
    return noise * (_WINDOW * np.float32(WINDOW / (2 * np.sqrt(_CHIPS))))


class _Row:
    """One call's stream."""

    def __init__(self, key: MarkKey, payload: int) -> None:
        self.stream = chip_stream(key, payload, secrets.token_bytes(16))
        self.tail: Floats = np.zeros(HOP, np.float32)
        self.gain = np.float32(0.0)


class MarkerBank:
    """Markers of many calls, in slots."""

    def __init__(self, key: MarkKey) -> None:
        self._key = key
        self._rows: dict[int, _Row] = {}
        self._next = 0

    def open(self, payload: int) -> int:
        """A slot for a call with this payload."""
        slot, self._next = self._next, self._next + 1
        self._rows[slot] = _Row(self._key, payload)
        return slot

    def close(self, slot: int) -> None:
        self._rows.pop(slot, None)

    def mark(self, slots: NDArray[np.intp], pcm: Floats) -> list[MarkedFrame | MarkError]:
        """`pcm` float32 `(B, n)`, n a multiple of 240, one row a slot; a row that cannot be marked comes back
        as its `MarkError` and disturbs no other."""
        out: list[MarkedFrame | MarkError] = []
        for slot, samples in zip(slots.tolist(), pcm, strict=True):
            row = self._rows.get(slot)
            if row is None or not np.isfinite(samples).all() or len(samples) % HOP:
                out.append(MarkError(f"slot {slot}: not a frame that can be marked"))
            else:
                out.append(MarkedFrame(self._one(row, samples), seal=_SEAL))
        return out

    def _one(self, row: _Row, samples: Floats) -> Floats:
        marked = samples.copy()
        for at in range(0, len(samples), HOP):
            hop = samples[at : at + HOP]
            rms = np.sqrt(np.mean(hop * hop))
            gain = np.float32(LEVEL * rms) if rms > SILENCE else np.float32(0.0)
            piece = carrier_hop(row.stream)
            ramp = np.linspace(row.gain, gain, HOP, dtype=np.float32)
            marked[at : at + HOP] += (row.tail + piece[:HOP]) * ramp
            row.tail, row.gain = piece[HOP:], gain
        return marked


assert RATE_HZ == 24_000
