"""G.711 (ITU-T), both laws, by tables: many calls' frames in one look-up.

For each int16 it is the code whose value is nearest.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from watermark.pcm import A_LAW_VALUES, MU_LAW_VALUES

Pcm = NDArray[np.int16]
Law = Literal["PCMU", "PCMA"]

LAWS: Final[tuple[Law, ...]] = ("PCMU", "PCMA")


def _nearest_codes(values: Pcm) -> NDArray[np.uint8]:
    """The code of each int16, by its bits as uint16."""
    order = np.argsort(values, kind="stable")
    ranked = values[order].astype(np.int32)
    borders = (ranked[1:] + ranked[:-1] + 1) // 2
    sound = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    return order[np.searchsorted(borders, sound, side="right")].astype(np.uint8)


_VALUES: Final = {"PCMU": MU_LAW_VALUES, "PCMA": A_LAW_VALUES}
_CODES: Final = {law: _nearest_codes(values) for law, values in _VALUES.items()}
SILENT_CODE: Final = {law: bytes(_CODES[law][:1])[0] for law in LAWS}
"""What a zero is written as."""


def decode(law: Law, codes: bytes) -> Pcm:
    """A sample for each byte; `codes` may be the sound of many calls that follow one another."""
    return _VALUES[law].take(np.frombuffer(codes, np.uint8))


def encode(law: Law, pcm: bytes | Pcm) -> bytes:
    """A code for each int16 sample; `pcm` may be the sound of many calls that follow one another."""
    return _CODES[law].take(np.frombuffer(pcm, np.uint16)).tobytes()
