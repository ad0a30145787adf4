"""The carrier: chips in a grid of 10 ms hops by 50 Hz bins, drawn from a cipher, and never drawn twice.

A hop is one 20 ms sine-windowed frame; hops overlap by half, so that random chips have constant power. Its 64
bins (250 to 3400 Hz) each hold one QPSK chip. 12 of them are the **pilot**, which lets a detector that knows
nothing but the key find its place; 52 are **data**, which carry the payload's coded bits.

Chips are AES-256 in counter form, `E(HMAC(key, purpose), row | hop)`, so that any hop can be drawn without
those before it. Pilot chips depend on the hop's place on the key's **line** of 66.9 minutes; a call enters
the line at a secret place. Data chips depend on that place and on the **row**, one of 1,024, that the call
takes on this lap of the line. Place and rows are an HMAC of the payload: a detector that has decoded a
payload checks them, and one that knows the payload needs no search for them.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from watermark.envelope.cells import CELL_HOPS, Cells
from watermark.keys import MarkKey

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Signs = NDArray[np.float32]
Bytes = NDArray[np.uint8]

HOPS_HZ: Final = 100
BIN_HZ: Final = 50
FIRST_BIN: Final = 5
BINS: Final = 64
PILOT: Final = slice(11, 23)
"""Pilot bins, 800 to 1350 Hz: inside every telephone codec's best band, and narrow, so that a search over the
whole line runs at 800 samples a second."""
PILOT_BINS: Final = 12
DATA: Final = np.array([b for b in range(BINS) if not PILOT.start <= b < PILOT.stop])
DATA_BINS: Final = 52
LINE_HOPS: Final = 401_408
"""Hops of the line (66.9 min): 448 search blocks of 896 hops."""
ROWS: Final = 1_024
GROUP_HOPS: Final = 32
CODED_BITS: Final = 128
"""A group of 32 hops x 52 data bins carries each of the 128 coded bits in 13 bins, 200 Hz apart."""
LAPS: Final = 4
"""Laps of the line whose rows a detector recognises: 4.4 hours of one call."""
REMEMBERED: Final = 64
"""Places and rows of calls that are remembered; to compute one takes some microseconds."""


@lru_cache(maxsize=64)
def _secret(key: MarkKey, purpose: bytes) -> bytes:
    return hmac.new(key.secret, b"watermark|" + purpose, hashlib.sha256).digest()


@lru_cache(maxsize=64)
def _cipher(key: MarkKey, purpose: bytes) -> Cipher[modes.ECB]:
    return Cipher(algorithms.AES(_secret(key, purpose)), modes.ECB())  # noqa: S305  (counters never repeat)


def _blocks(key: MarkKey, purpose: bytes, row: int | NDArray[np.int64], hops: NDArray[np.int64]) -> Bytes:
    """128 random bits for each (row, hop): uint8 `(..., 16)`."""
    shape = np.broadcast(row, hops).shape
    counters = np.empty((*shape, 2), ">u8")
    counters[..., 0] = row
    counters[..., 1] = hops
    drawn = _cipher(key, purpose).encryptor().update(counters.tobytes())
    return np.frombuffer(drawn, np.uint8).reshape(*shape, 16)


_SIGNS: Final = (
    1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
).astype(np.float32)
"""The 8 bits of each byte as +-1."""


def _signs(blocks: Bytes, bins: int) -> Signs:
    """The first `2 * bins` bits of each block as +-1: float32 `(..., 2 * bins)`."""
    return np.take(_SIGNS, blocks[..., : bins // 4], axis=0).reshape(*blocks.shape[:-1], 2 * bins)


def pilot_chips(key: MarkKey, places: NDArray[np.int64]) -> Complexes:
    """Pilot chips `+-1 +-1j` at these places of the line, complex64 `(H, 12)`."""
    return _signs(_blocks(key, b"pilot", 0, places % LINE_HOPS), PILOT_BINS).view(np.complex64)


def data_signs(key: MarkKey, row: int | NDArray[np.int64], places: NDArray[np.int64]) -> Signs:
    """Real and imaginary parts of the data chips, before the payload is laid over them: `(..., 104)`."""
    return _signs(_blocks(key, b"data", row, places % LINE_HOPS), DATA_BINS)


def data_chips(key: MarkKey, row: int | NDArray[np.int64], places: NDArray[np.int64]) -> Complexes:
    """Data chips before the payload is laid over them, complex64 `(..., 52)`."""
    return data_signs(key, row, places).view(np.complex64)


_BIT_OF_TILE: Final = np.arange(GROUP_HOPS * DATA_BINS).reshape(GROUP_HOPS, DATA_BINS) % CODED_BITS


def bit_of_tile(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which coded bit each data tile carries, `(H, 52)`."""
    return _BIT_OF_TILE[places % GROUP_HOPS]


def groups(places: NDArray[np.int64]) -> slice:
    """The whole groups among these places, which follow each other."""
    skip = int(-places[0]) % GROUP_HOPS
    return slice(skip, skip + max(0, len(places) - skip) // GROUP_HOPS * GROUP_HOPS)


@lru_cache(maxsize=REMEMBERED)
def entry(key: MarkKey, payload: int) -> int:
    """The place of the line at which a call with this payload begins. With a key that has an envelope layer,
    a call enters both lines at the same hop: where one layer is found, the other one lies."""
    if key.has_envelope:
        return _cells(key.secret).entry(payload) * CELL_HOPS
    return _derived(key, b"entry", payload) % LINE_HOPS


@lru_cache(maxsize=4)
def _cells(secret: bytes) -> Cells:
    return Cells(secret)


@lru_cache(maxsize=REMEMBERED)
def row(key: MarkKey, payload: int, lap: int) -> int:
    """The row of data chips that the call uses on its `lap`-th lap of the line."""
    return _derived(key, b"row%d" % lap, payload) % ROWS


def _derived(key: MarkKey, what: bytes, payload: int) -> int:
    return int.from_bytes(hmac.digest(_secret(key, what), payload.to_bytes(8), "sha256")[:8])


def call_chips(key: MarkKey, payload: int, coded: Signs, counter: NDArray[np.int64]) -> Complexes:
    """All chips of a call's hops, counted from its beginning, in rising order: complex64 `(H, 64)`.

    `coded` are the payload's 128 coded bits as +-1. The row changes when the call has been once around the
    line.
    """
    places = (entry(key, payload) + counter) % LINE_HOPS
    laps = np.maximum(counter // LINE_HOPS, 0)
    rows = np.array([row(key, payload, lap) for lap in range(int(laps[0]), int(laps[-1]) + 1)], np.int64)
    data = data_chips(key, rows[laps - laps[0]], places)
    data *= np.take(np.take(coded, _BIT_OF_TILE), places % GROUP_HOPS, axis=0)
    chips = np.empty((len(counter), BINS), np.complex64)
    chips[:, PILOT] = pilot_chips(key, places)
    chips[:, : PILOT.start] = data[:, : PILOT.start]
    chips[:, PILOT.stop :] = data[:, PILOT.start :]
    return chips
