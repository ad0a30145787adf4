"""How questions and answers stand on the office's socket.

    4 + 4 + 4 bytes   lengths (big-endian) of the three pieces that follow
    envelope          JSON: {"v": VERSION, …}; what this is, and the lengths of the blobs
    body              JSON: the question or the answer itself
    blobs             raw bytes one after the other: sound, and what else is not text

Whoever reads says how large the pieces may be before they are read: the socket is a border of trust.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Final

from consent.errors import OfficeAway

VERSION: Final = 1
MAX_ENVELOPE: Final = 4_096
MAX_BLOBS: Final = 32
_LENGTHS: Final = struct.Struct(">III")
_PIECE: Final = 1 << 20


class Malformed(Exception):
    """What came is not a parcel, or is larger than it may be; the text says which, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a parcel may have."""

    body: int
    blobs: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message with what lies beside it. `envelope` has neither version nor lengths."""

    envelope: dict[str, Any]
    body: bytes
    blobs: list[bytes] = field(default_factory=list)


class Opened:
    """A parcel whose envelope was read, and whose sizes are known; `rest` reads what it holds."""

    def __init__(
        self, link: socket.socket, envelope: dict[str, Any], sizes: tuple[int, int], at: float
    ) -> None:
        self.envelope = envelope
        self._link = link
        self._body, self._blobs = sizes
        self._deadline = at

    def rest(self, limits: Sizes) -> Parcel:
        """The whole parcel. Raises `Malformed`, `OSError`."""
        if self._body > limits.body or self._blobs > limits.blobs:
            raise Malformed(f"it is larger than {limits.body} bytes of text and {limits.blobs} of sound")
        lengths = self.envelope.pop("blobs", [])
        if (
            type(lengths) is not list
            or len(lengths) > MAX_BLOBS
            or any(type(length) is not int or length < 0 for length in lengths)
            or sum(lengths) != self._blobs
        ):
            raise Malformed("the lengths of its blobs do not fit")
        body = take(self._link, self._body, self._deadline)
        return Parcel(self.envelope, body, [take(self._link, length, self._deadline) for length in lengths])


def send(link: socket.socket, parcel: Parcel, within_s: float) -> None:
    """Writes a parcel. Raises `OSError` (`TimeoutError` too)."""
    table = {"v": VERSION, **parcel.envelope, "blobs": [len(blob) for blob in parcel.blobs]}
    envelope = json.dumps(table, separators=(",", ":")).encode()
    sizes = _LENGTHS.pack(len(envelope), len(parcel.body), sum(map(len, parcel.blobs)))
    link.settimeout(within_s)
    link.sendall(b"".join((sizes, envelope, parcel.body)))
    for blob in parcel.blobs:
        link.sendall(blob)


def opened(link: socket.socket, idle_s: float | None, within_s: float) -> Opened | None:
    """Waits `idle_s` for a parcel to begin, then reads its envelope; None when the other end closed.

    All of the parcel must come `within_s` after its first bytes. Raises `Malformed`, `OSError`.
    """
    link.settimeout(idle_s)
    first = link.recv(_LENGTHS.size)
    if not first:
        return None
    deadline = time.monotonic() + within_s
    sizes = first + take(link, _LENGTHS.size - len(first), deadline)
    of_envelope, of_body, of_blobs = _LENGTHS.unpack(sizes)
    if of_envelope > MAX_ENVELOPE:
        raise Malformed("its envelope is too large")
    try:
        table = json.loads(take(link, of_envelope, deadline))
    except (ValueError, RecursionError):
        raise Malformed("its envelope is not JSON") from None
    if type(table) is not dict:
        raise Malformed("its envelope is not a JSON object")
    if (version := table.pop("v", None)) != VERSION:
        raise Malformed(
            f"it is of version {version if type(version) is int else '?'}, and this end speaks {VERSION}: "
            "restart whichever is older"
        )
    return Opened(link, table, (of_body, of_blobs), deadline)


def take(link: socket.socket, length: int, deadline: float) -> bytes:
    """Exactly so many bytes. Raises `OfficeAway` when the other end closes before, `OSError`."""
    pieces: list[bytes] = []
    while length:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it came too slowly")
        link.settimeout(left_s)
        piece = link.recv(min(length, _PIECE))
        if not piece:
            raise OfficeAway("the other end closed in the middle of a message")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
