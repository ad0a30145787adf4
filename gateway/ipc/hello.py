"""The first message of a connection: who is there, with what right, of which version.

All processes of one gateway are of one version, because their messages are; one that is not (a child that was
restarted after an upgrade) is refused, and both sides say so.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from gateway.errors import OtherVersion, RpcError
from gateway.ipc.envelope import Tell, name_of, read
from model import __version__

Role = Literal["front", "line", "engine", "supervisor", "doctor"]
LineKind = Literal["narrow", "wide", "web"]


@dataclass(frozen=True, slots=True)
class LineCall:
    """A call that a line has already."""

    call_id: str
    call: int
    """The line's own number for it, on its ticks."""
    slot: int


@dataclass(frozen=True, slots=True)
class LineFacts:
    """What a line says of itself."""

    kind: LineKind
    rate_hz: int
    hall: str
    """Name of the hall that has its calls."""
    capacity: int
    """Calls that it takes."""
    calls: tuple[LineCall, ...]
    sip_port: int | None = None
    """UDP on 127.0.0.1; none: it takes browsers."""
    process: str = ""
    """Lines with the same name here die together; none: it is alone."""


@dataclass(frozen=True, slots=True)
class Hello(Tell):
    """Told by the side that connects."""

    wire: ClassVar[str] = "hello"
    role: Role
    name: str
    token: str = field(repr=False)
    """This boot's."""
    version: str = __version__
    line: LineFacts | None = None


@dataclass(frozen=True, slots=True)
class TickHello(Tell):
    """A line's first packet on its hall's tick socket."""

    wire: ClassVar[str] = "tick.hello"
    name: str
    rate_hz: int
    token: str = field(repr=False)
    version: str = __version__


H = TypeVar("H", Hello, TickHello)


def admitted(kind: type[H], said: dict[str, Any], token: str) -> H:
    """The hello in a connection's first message.

    Raises `OtherVersion` for a peer that knows `token` and is of another version, whatever else its hello
    holds; `RpcError` for everybody else who may not come in.
    """
    if "tell" not in said or name_of(said) != kind.wire:
        raise RpcError("the first message must be hello")
    params = said.get("params")
    if not isinstance(params, dict):
        raise RpcError("hello must say who is there")
    name = params.get("name", "?")
    if not hmac.compare_digest(str(params.get("token", "")).encode(), token.encode()):
        raise RpcError(f"{name} does not know this boot's token")
    if (version := params.get("version")) != __version__:
        raise OtherVersion(
            f"{name} is of version {version}, this process of {__version__}: restart the gateway"
        )
    return read(kind, said)
