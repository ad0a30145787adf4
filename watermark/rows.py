"""The row of data chips that a call is on: which of the 1,024 is heard, and whose it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from watermark import carrier, code
from watermark.align import Aligned
from watermark.carrier import CODED_BITS, DATA, DATA_BINS, GROUP_HOPS, LAPS, ROWS
from watermark.keys import MarkKey

Floats = NDArray[np.float32]

PART: Final = 3
GROUPS: Final = 10
"""Groups (320 ms), the strongest ones, on which all rows are tried, or a third of all if that is more; at the
clearest pilot, all."""
KEPT: Final = 128
BATCH: Final = 8


def lap(key: MarkKey, payload: int, row: int) -> int | None:
    """The lap on which a call with this payload uses this row of data chips; None when it never does."""
    return next((each for each in range(LAPS) if carrier.row(key, payload, each) == row), None)


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """Calls among which one is sought. `coded`: their bits as +-1, float32 `(P, 128)`; `rows`: theirs on each
    lap, int64 `(P, LAPS)`."""

    payloads: tuple[int, ...]
    coded: Floats
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, key: MarkKey, payloads: Sequence[int]) -> Self:
        rows = [[carrier.row(key, payload, each) for each in range(LAPS)] for payload in payloads]
        return cls(tuple(payloads), code.encode_all(np.array(payloads, np.uint64)), np.array(rows, np.int64))


def fitting(
    key: MarkKey, found: Aligned, calls: Calls, laps: Sequence[int], count: int
) -> list[tuple[int, int]]:
    """Which of the calls, on which lap, explain the data tiles best: at most `count`."""
    if len(calls.payloads) * len(laps) <= count:
        return list(product(range(len(calls.payloads)), laps))
    hops, tiles = _groups(found)
    if not len(tiles):
        return []
    soft = _soft(key, np.arange(ROWS), hops.reshape(-1), tiles)
    fits = np.stack([np.einsum("pb,pb->p", calls.coded, soft[calls.rows[:, each]]) for each in laps], axis=1)
    best = np.argsort(fits, axis=None)[::-1][:count]
    return [(at // len(laps), laps[at % len(laps)]) for at in best.tolist()]


def likely(key: MarkKey, found: Aligned, part: int, count: int = 2) -> list[tuple[int, float]]:
    """The rows of data chips that explain the data tiles best, whatever the bits they carry, and the energy
    of those bits.

    All rows are tried on the strongest of so many parts of the recording, the better ones on all of it.
    """
    hops, tiles = _groups(found)
    groups = len(hops)
    if not groups:
        return []
    loud = np.argsort(np.square(np.abs(tiles)).sum(axis=1))[::-1][: max(GROUPS, groups // part)]
    rows, energy = np.arange(ROWS, dtype=np.int64), np.zeros(ROWS, np.float32)
    for chosen, kept in ((loud, KEPT), (np.arange(groups), count)):
        energy = _energy(key, rows, hops[chosen].reshape(-1), tiles[chosen])
        order = np.argsort(energy)[::-1][:kept]
        rows, energy = rows[order], energy[order]
    return list(zip(rows.tolist(), energy.tolist(), strict=True))


def _groups(found: Aligned) -> tuple[NDArray[np.int64], NDArray[np.complex64]]:
    """Places `(G, 32)` and data tiles `(G, 32 * 52)` of the whole groups."""
    inside = carrier.groups(found.places)
    hops = found.places[inside].reshape(-1, GROUP_HOPS)
    tiles = np.ascontiguousarray(found.tiles[inside][:, DATA])
    return hops, tiles.reshape(len(hops), GROUP_HOPS * DATA_BINS)


def _energy(
    key: MarkKey, rows: NDArray[np.int64], hops: NDArray[np.int64], tiles: NDArray[np.complex64]
) -> Floats:
    """Squared soft bits summed, about 128 without a mark, for each row: float32 `(R,)`."""
    parts = np.square(_parts(tiles)).sum(axis=0)
    spread = parts.reshape(CODED_BITS, 2).sum(axis=1) + np.float32(1e-20)
    energy: Floats = (np.square(_soft(key, rows, hops, tiles)) / spread).sum(axis=1)
    return energy


def _parts(tiles: NDArray[np.complex64]) -> Floats:
    """Real and imaginary parts of the tiles, by coded bit: float32 `(n, 256)`."""
    return np.ascontiguousarray(tiles).view(np.float32).reshape(-1, 2 * CODED_BITS)


def _soft(
    key: MarkKey, rows: NDArray[np.int64], hops: NDArray[np.int64], tiles: NDArray[np.complex64]
) -> Floats:
    """The soft bits of each row: float32 `(R, 128)`."""
    sound = _parts(tiles)
    bits = np.empty((len(rows), CODED_BITS), np.float32)
    for first in range(0, len(rows), BATCH):
        some = rows[first : first + BATCH]
        products = carrier.data_signs(key, some[:, None], hops[None, :]).reshape(
            len(some), -1, 2 * CODED_BITS
        )
        products *= sound
        bits[first : first + BATCH] = products.sum(axis=1).reshape(len(some), CODED_BITS, 2).sum(axis=2)
    return bits
