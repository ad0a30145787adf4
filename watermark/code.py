"""Forward error correction of the payload: a tail-biting convolutional code, K = 9, rate 1/2 (64 -> 128
bits).

Generators 561 and 753 octal (the classic K = 9 pair of IS-95 and 3GPP TS 25.212 §4.2.3.1). Decoding is soft
Viterbi around the circle (wrap-around: Shao, Lin, Fossorier 2003).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BITS: Final = 64
CODED_BITS: Final = 128
KNOWN_BITS: Final = 16
MEMORY: Final = 8
STATES: Final = 1 << MEMORY
GENERATORS: Final = (0o561, 0o753)

Floats = NDArray[np.float32]

_REGISTER: Final = np.arange(2 * STATES)
"""The register (newest bit on top): `bit << 8 | state`."""
_OUTPUT: Final = np.stack(
    [1 - 2 * (np.bitwise_count(_REGISTER & g).astype(np.int64) & 1) for g in GENERATORS], axis=1
).astype(np.float32)
"""The two coded bits as +-1 for each register, `(512, 2)`."""
_NEXT: Final = np.arange(STATES)
_BIT: Final = _NEXT >> (MEMORY - 1)
"""The newest bit of a state; its two predecessors differ in the bit that was shifted out."""
_BEFORE: Final = np.stack([(_NEXT << 1 & (STATES - 1)) | lost for lost in (0, 1)], axis=1)
_EDGE: Final = _BIT[:, None] << MEMORY | _BEFORE
"""Register on the edge into each state from each predecessor, `(256, 2)`."""


def encode(payload: int) -> Floats:
    """128 coded bits of a 64-bit payload as +-1 (0 -> +1), float32."""
    if not 0 <= payload < 1 << PAYLOAD_BITS:
        raise ValueError(f"a payload has 64 bits, not {payload:#x}")
    coded: Floats = encode_all(np.array([payload], np.uint64))[0]
    return coded


def encode_all(payloads: NDArray[np.uint64]) -> Floats:
    """The coded bits of many payloads, float32 `(P, 128)`."""
    places = np.arange(PAYLOAD_BITS - 1, -1, -1, dtype=np.uint64)
    bits = (payloads[:, None] >> places & np.uint64(1)).astype(np.int64)
    registers = np.zeros_like(bits)
    for back in range(MEMORY + 1):
        registers |= np.roll(bits, back, axis=1) << (MEMORY - back)
    coded: Floats = np.take(_OUTPUT, registers, axis=0).reshape(len(payloads), CODED_BITS)
    return coded


def decode(soft: Floats, known: int | None = None, count: int = 1) -> list[int]:
    """The likeliest payloads for 128 soft bits (positive means 0), best first, at most `count`.

    `known`: the payload's first 16 bits where they are certain (a key's gateway id); they cost the others
    less, and fix the state in which the 48 other bits begin and end.
    """
    wanted = soft.reshape(PAYLOAD_BITS, 2).astype(np.float32)
    branch = wanted @ _OUTPUT.T  # (64, 512)
    if known is None:
        first, steps, keep = PAYLOAD_BITS * 3 // 4, PAYLOAD_BITS * 3 // 2, PAYLOAD_BITS // 4
        metric = np.full((STATES, count), -np.inf, np.float32)
        metric[:, 0] = 0.0
        take = PAYLOAD_BITS
    else:
        head = [known >> k & 1 for k in range(KNOWN_BITS - 1, -1, -1)]
        first, steps, keep = KNOWN_BITS, PAYLOAD_BITS - KNOWN_BITS + MEMORY, 0
        begin = sum(bit << at for at, bit in enumerate(head[-MEMORY:]))
        certain = np.float32(2 * np.abs(wanted).sum() + 1)
        for at in range(MEMORY):
            branch[at, head[at] != (_REGISTER >> MEMORY)] -= certain
        metric = np.full((STATES, count), -np.inf, np.float32)
        metric[begin, 0] = 0.0
        take = PAYLOAD_BITS - KNOWN_BITS
    came = np.empty((steps, STATES, count), np.int64)
    for step in range(steps):
        gain = branch[(first + step) % PAYLOAD_BITS][_EDGE]
        paths = (metric[_BEFORE] + gain[:, :, None]).reshape(STATES, 2 * count)
        order = np.argsort(-paths, axis=1)[:, :count] if count > 1 else np.argmax(paths, axis=1)[:, None]
        came[step] = order
        metric = np.take_along_axis(paths, order, axis=1)
    payloads: list[int] = []
    ends = np.argsort(-metric, axis=None)[:count]
    for state, rank in zip(*np.unravel_index(ends, metric.shape), strict=True):
        if not np.isfinite(metric[state, rank]):
            break
        payload = _walk(came, int(state), int(rank), count)[keep : keep + take]
        bits = np.asarray(payload)
        if known is None:
            bits = np.roll(bits, first + keep)
        value = sum(int(bit) << at for at, bit in enumerate(bits[::-1]))
        value |= 0 if known is None else known << (PAYLOAD_BITS - KNOWN_BITS)
        if value not in payloads:
            payloads.append(value)
    return payloads


def _walk(came: NDArray[np.int64], state: int, rank: int, count: int) -> list[int]:
    """The bits along one path, the first step first."""
    bits: list[int] = []
    for step in range(len(came) - 1, -1, -1):
        bits.append(int(_BIT[state]))
        which, rank = divmod(int(came[step, state, rank]), count)
        state = int(_BEFORE[state, which])
    return bits[::-1]
