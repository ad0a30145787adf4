"""What every message is, and what is written around it.

    {"ask": id, "method": name, "params": {...}}     a question
    {"answer": id, "result": ...}                    its answer
    {"answer": id, "error": text}                    … or why there is none
    {"tell": name, "params": {...}}                  needs no answer
    {"refused": text}                                the last word to a peer that is not talked with

A message is a frozen dataclass, `Ask[A]` (A is the type of its answer) or `Tell`, with its name on the wire
as `wire`. Who takes it says so by class, and mypy compares the handler's types with the message's:

    Server(path, token, [EndCall.handled_by(self.end_call), Health.handled_by(self.health)])
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from gateway.errors import RpcError
from gateway.ipc import codec

A = TypeVar("A")
P = TypeVar("P")
"""Who sent it: `gateway.ipc.rpc.Peer`."""
R = TypeVar("R")
"""What handlers return: what is awaited, or at once."""


class Message:
    """What one process says to another."""

    __slots__ = ()
    wire: ClassVar[str]


class Tell(Message):
    """A message that needs no answer."""

    __slots__ = ()

    @classmethod
    def handled_by(cls, handler: Callable[[P, Self], Awaitable[None]]) -> Handled[P, Awaitable[object]]:
        """Says that `handler` takes messages of this class."""
        return Handled(cls, handler)


class Ask(Message, Generic[A]):
    """A message that is answered by an A, or by why not."""

    __slots__ = ()

    @classmethod
    def handled_by(cls, handler: Callable[[P, Self], Awaitable[A]]) -> Handled[P, Awaitable[object]]:
        """Says that `handler` answers messages of this class; it raises `RpcError` to refuse."""
        return Handled(cls, handler)

    def answer_from(self, result: object) -> A:
        """The answer that came, checked. Raises `RpcError` when `result` is not an A."""
        return codec.load(answer_type(type(self)), result, f"the answer to {self.wire}")  # type: ignore[no-any-return]  # it is the A


def answer_type(kind: type[Message]) -> Any:
    """The A of an `Ask[A]`; for a `Tell` the type of None."""
    for base in getattr(kind, "__orig_bases__", ()):
        if get_origin(base) is Ask:
            return get_args(base)[0]
    return type(None)


@dataclass(frozen=True, slots=True)
class Handled(Generic[P, R]):
    """A kind of message and who takes it."""

    kind: type[Message]
    handler: Callable[[P, Any], R]
    """Takes a `kind`: `Ask.handled_by` and `Tell.handled_by` see to it."""


class Handlers(Generic[P, R]):
    """The messages that one end of a connection takes."""

    def __init__(self, handled: Iterable[Handled[P, R]]) -> None:
        self._by_wire = {one.kind.wire: one for one in handled}

    def read(self, said: dict[str, Any]) -> tuple[Handled[P, R], Message]:
        """The message in a question or a tell, and who takes it. Raises `RpcError`."""
        name = name_of(said)
        handled = self._by_wire.get(name)
        if handled is None:
            raise RpcError(f"nobody here knows {name!r}")
        return handled, read(handled.kind, said)


def read(kind: type[codec.T], said: dict[str, Any]) -> codec.T:
    """The message of that kind in a question or a tell. Raises `RpcError`."""
    return codec.from_json(kind, said.get("params"), name_of(said))


def name_of(said: dict[str, Any]) -> str:
    """The name on the wire of the message in a question or a tell."""
    return str(said.get("method") or said.get("tell"))


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────


def asked(number: int, message: Ask[Any]) -> bytes:
    """The body of question number `number`."""
    params = codec.to_json(type(message), message)
    return codec.packed({"ask": number, "method": message.wire, "params": params})


def told(message: Message) -> bytes:
    """The body of a message that needs no answer."""
    return codec.packed({"tell": message.wire, "params": codec.to_json(type(message), message)})


def answered(number: object, kind: type[Message], result: object) -> bytes:
    """The body of an answer to a question of that kind. Raises `RpcError` when `result` cannot be one."""
    try:
        return codec.packed({"answer": number, "result": codec.to_json(answer_type(kind), result)})
    except (TypeError, AttributeError) as error:
        raise RpcError(f"it is not an answer to {kind.wire}: {error}") from None


def failed(number: object, why: str) -> bytes:
    """The body that says why question number `number` has no answer."""
    return codec.packed({"answer": number, "error": why})


def refused(why: str) -> bytes:
    """The body of the last word to a peer that is not talked with."""
    return codec.packed({"refused": why})
