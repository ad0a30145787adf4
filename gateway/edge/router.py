"""The seam toward whoever decides about calls: the edge asks, and never knows who that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A new INVITE that passed the doors."""

    facts: CallFacts
    kind: str
    """"narrow" or "wide", by the first codec offered"""
    user_agent: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the call under this id; `line` None: any free one of its kind."""

    call_id: str
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not; the caller is told so."""

    status: int
    reason: str
    retry_after_s: int | None = None


class Router(Protocol):
    """Who decides about calls. Both answer within seconds: a caller waits for `offered`."""

    async def offered(self, call: IncomingCall) -> Accept | Refuse: ...

    async def ended(self, call_id: str, how: CallEnding) -> None: ...
