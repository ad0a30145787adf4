"""What is said on the ears' socket, and how it travels.

A message is one of the dataclasses below: two u32 (little-endian) with the lengths of its head and its body,
the head as JSON, and the body: int16 mono at 24 kHz. Both ends check what arrives, since a socket in a
directory may be opened by whoever may enter there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Final, get_args

from model.api import MAX_UTTERANCE_S, RATE_HZ
from model.errors import EarsError

LENGTHS: Final = struct.Struct("<II")
MOST_HEAD: Final = 1 << 20
MOST_BODY: Final = round(MAX_UTTERANCE_S * RATE_HZ) * 2


@dataclass(frozen=True, slots=True)
class Hear:
    """Write down what the body says; a `Heard` comes, unless `Forget` comes first."""

    number: int
    language: str
    """ISO 639-1; empty: find out"""
    phrases: tuple[str, ...]
    """what may be said, for recognisers that know phrases only"""
    patient: bool
    """it may wait behind everybody who is not"""


@dataclass(frozen=True, slots=True)
class Which:
    """Which of the languages does the body speak? A `SpokenLanguage` comes."""

    number: int
    among: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sayable:
    """Which of the phrases cannot be heard? An `Unsayable` comes."""

    number: int
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody wants to know any more; nothing comes back."""

    number: int


@dataclass(frozen=True, slots=True)
class Heard:
    """`text` was said."""

    number: int
    text: str = field(repr=False)
    language: str
    confidence: float
    sounded_s: float
    refused: str


@dataclass(frozen=True, slots=True)
class SpokenLanguage:
    """The language that was asked for; empty when it cannot be told."""

    number: int
    language: str
    probability: float


@dataclass(frozen=True, slots=True)
class Unsayable:
    """Phrases that nobody will be heard saying."""

    number: int
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """How busy the ears are; said whenever it changes, and first of all."""

    waiting: int
    wait_s: float
    """until a question that came now would be begun"""


EarMessage = Hear | Which | Sayable | Forget | Heard | SpokenLanguage | Unsayable | Queue
KINDS: Final[dict[str, type[EarMessage]]] = {kind.__name__.lower(): kind for kind in get_args(EarMessage)}
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "int": int, "str": str, "float": (int, float), "bool": bool,
}  # fmt: skip


def written(message: EarMessage, body: bytes = b"") -> bytes:
    """The message as it goes over the socket."""
    head = json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode()
    return LENGTHS.pack(len(head), len(body)) + head + body


class EarReader:
    """Messages out of the bytes of one connection."""

    def __init__(self, take: Callable[[EarMessage, bytes], None]) -> None:
        self._take = take
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes each whole message. Raises `EarsError` at what is none."""
        self._received += data
        while len(self._received) >= LENGTHS.size:
            head, body = LENGTHS.unpack_from(self._received)
            if head > MOST_HEAD or body > MOST_BODY or body % 2:
                raise EarsError(f"a message of {head} and {body} bytes is none of ours")
            end = LENGTHS.size + head + body
            if len(self._received) < end:
                return
            raw = bytes(self._received[LENGTHS.size : end])
            del self._received[:end]
            self._take(_read(raw[:head]), raw[head:])


def _read(head: bytes) -> EarMessage:
    try:
        given = json.loads(head)
        kind = KINDS[given.pop("kind")]
        for field in fields(kind):
            value = given[field.name]
            if field.type == "tuple[str, ...]":
                if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                    raise TypeError(f"{field.name} is not a list of words")
                given[field.name] = tuple(value)
            elif not isinstance(value, _TYPES[str(field.type)]):
                raise TypeError(f"{field.name} is not of the type {field.type}")
        return kind(**given)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EarsError(f"a message cannot be read: {type(error).__name__}: {error}") from None
