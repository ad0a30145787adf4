"""The points of the library's sentences, kept in a file so that nobody waits for them: `points.bin`.

32 bytes of hash, then 384 int8 numbers a sentence. `python -m benchmarks.meaning --points` makes it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np

from model.api import Floats
from model.errors import EngineError
from model.meaning.embedder import SIZE, WEIGHTS
from model.meaning.intents import Library

PATH: Final = Path(__file__).with_name("points.bin")
SCALE: Final = 400.0
HASH_BYTES: Final = 32


def library_hash(library: Library) -> bytes:
    """Of the sentences and of the network: these points are only theirs."""
    return hashlib.sha256("\n".join([WEIGHTS.files[0].sha256, *library.sentences()]).encode()).digest()


def read_points(library: Library, path: Path = PATH) -> Floats:
    """`(sentences, 384)` float32, each row of length 1, in the library's order.

    Raises `EngineError` when they are of other sentences or of another network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; install voicegate again") from None
    numbers = np.frombuffer(content[HASH_BYTES:], np.int8)
    known = content[:HASH_BYTES] == library_hash(library)
    if not known or len(numbers) != SIZE * len(library.sentences()):
        raise EngineError(
            f"{path} is not of this library's sentences; make it with: python -m benchmarks.meaning --points"
        )
    points = numbers.reshape(-1, SIZE).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def write_points(library: Library, points: Floats, path: Path = PATH) -> None:
    """What `read_points` reads; `points` as the embedder makes them of the sentences, each `plain`."""
    numbers = np.clip(np.rint(points * SCALE), -127, 127).astype(np.int8)
    path.write_bytes(library_hash(library) + numbers.tobytes())
