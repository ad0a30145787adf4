"""The row of data chips that a call is on: which of the 1,024 is heard, and whose it may be."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier
from watermark.align import Aligned
from watermark.carrier import CODED_BITS, DATA, GROUP_HOPS, LAPS, ROWS
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


def likely(key: MarkKey, found: Aligned, part: int, count: int = 2) -> list[tuple[int, float]]:
    """The rows of data chips that explain the data tiles best, whatever the bits they carry, and the energy
    of those bits.

    All rows are tried on the strongest of so many parts of the recording, the better ones on all of it.
    """
    inside = carrier.groups(found.places)
    hops = found.places[inside].reshape(-1, GROUP_HOPS)
    groups = len(hops)
    if not groups:
        return []
    tiles = np.ascontiguousarray(found.tiles[inside][:, DATA]).reshape(groups, -1)
    loud = np.argsort(np.square(np.abs(tiles)).sum(axis=1))[::-1][: max(GROUPS, groups // part)]
    rows, energy = np.arange(ROWS, dtype=np.int64), np.zeros(ROWS, np.float32)
    for chosen, kept in ((loud, KEPT), (np.arange(groups), count)):
        energy = _energy(key, rows, hops[chosen].reshape(-1), tiles[chosen])
        order = np.argsort(energy)[::-1][:kept]
        rows, energy = rows[order], energy[order]
    return list(zip(rows.tolist(), energy.tolist(), strict=True))


def _energy(
    key: MarkKey, rows: NDArray[np.int64], hops: NDArray[np.int64], tiles: NDArray[np.complex64]
) -> Floats:
    """Squared soft bits summed, about 128 without a mark, for each row: float32 `(R,)`."""
    sound = np.ascontiguousarray(tiles).view(np.float32).reshape(-1, 2 * CODED_BITS)
    spread = np.square(sound).sum(axis=0).reshape(CODED_BITS, 2).sum(axis=1) + np.float32(1e-20)
    energy = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), BATCH):
        some = rows[first : first + BATCH]
        products = carrier.data_signs(key, some[:, None], hops[None, :]).reshape(
            len(some), -1, 2 * CODED_BITS
        )
        products *= sound
        soft = products.sum(axis=1).reshape(len(some), CODED_BITS, 2).sum(axis=2)
        energy[first : first + BATCH] = (np.square(soft) / spread).sum(axis=1)
    return energy
