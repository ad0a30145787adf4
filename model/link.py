"""The socket between a server and its engine's own process: what is said on it, and how it travels.

What one end says in a pass of its event loop goes as one packet: a u32 length, and a pickled list of the
messages below. Pickle, because both ends are one program and nobody else holds the socket, a pair that the
child inherits; its protocol 5 carries an array as its raw bytes.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

AHEAD: Final = 8
"""Outputs that may be under way to who asked: words and sound of about .4 s."""
ROOM: Final = 4
"""Room is told of so many at once, since each word wakes the other end."""
ENGINE: Final = 0
"""The number that means no conversation but the engine itself."""
_LENGTH: Final = struct.Struct("<I")


class LinkAsk(NamedTuple):
    """Calls `method` of a conversation, or of the engine; a `LinkAnswer` comes, after `Output`s if it
    yields."""

    number: int
    of: int
    method: str
    given: tuple[Any, ...]


class LinkTell(NamedTuple):
    """Call `method`; nothing comes back."""

    of: int
    method: str
    given: tuple[Any, ...]


class More(NamedTuple):
    """Who asked is done with `ROOM` outputs; there is room for as many."""

    number: int


class Stop(NamedTuple):
    """Nobody wants to know any more what was asked; its `LinkAnswer` still comes."""

    number: int


class Output(NamedTuple):
    """One of those that were asked for."""

    number: int
    output: Any


class LinkAnswer(NamedTuple):
    """What was asked is done, or failed."""

    number: int
    result: Any
    error: Exception | None


Message = LinkAsk | LinkTell | More | Stop | Output | LinkAnswer


class Link(asyncio.Protocol):
    """One end. `take` gets each message in the order in which it was said, `lost` is called at the end."""

    def __init__(self, take: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._take = take
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._said: list[Message] = []

    def say(self, message: Message) -> None:
        """Sends it with all else that is said in this pass; at a broken link, nothing."""
        if not self._said:
            asyncio.get_running_loop().call_soon(self._flush)
        self._said.append(message)

    def _flush(self) -> None:
        said, self._said = self._said, []
        if self._transport is not None:
            body = pickle.dumps(said, 5)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    def cut(self) -> None:
        """Breaks it, whatever is still on its way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            body = self._received[_LENGTH.size : end]
            del self._received[:end]
            for message in pickle.loads(body):  # noqa: S301 - of our own process, see the module
                self._take(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()
