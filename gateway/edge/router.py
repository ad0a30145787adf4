"""The seam toward whoever decides about calls: the edge asks, and never knows who that is."""

from __future__ import annotations

from collections.abc import Mapping
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
    hall: str
    """Whose line has a slot for it."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the call under this id, on the line that has its slot."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not; the caller is told so."""

    status: int
    reason: str
    retry_after_s: int | None = None
    call_id: str | None = None
    """The id that it had been given by then."""
    elsewhere: bool = False
    """Its hall does not take it; another one may."""


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """A web line took the call, or what changed in it; its answer to the offer."""

    call_id: str
    sdp: str


@dataclass(frozen=True, slots=True)
class RefusedInvite:
    """An INVITE that was refused, by the edge, the router or a line."""

    facts: CallFacts
    status: int
    reason: str
    sip_call_id: str
    """the caller's own"""
    call_id: str | None = None
    """ours, if it had been given one"""


class Router(Protocol):
    """Who decides about calls. `offered` and `ended` answer within seconds: a caller waits for `offered`."""

    def hall_for(self, held: Mapping[str, int]) -> str | None:
        """The hall that shall have the next call, of those that have a free line; None when none can.

        `held`: how many calls the lines of each of these halls hold.
        """

    def no_hall(self) -> Refuse:
        """What a caller hears while no hall can take a call although a line is free."""

    def answers_emergencies(self) -> bool:
        """Whether a call to an emergency number is answered, by a recording that says what to do."""

    async def offered(self, call: IncomingCall) -> Accept | Refuse: ...

    async def web_offered(self, facts: CallFacts, offer: str) -> WebAnswer | Refuse:
        """A new INVITE with a browser's offer."""

    async def web_renewed(self, call_id: str, offer: str) -> WebAnswer | Refuse:
        """Another offer in such a call: on hold, off hold, from another network."""

    async def web_pressed(self, call_id: str, digit: str) -> None:
        """The caller of such a call pressed a key, by INFO."""

    def on_web_line(self, call_id: str) -> bool:
        """Whether a browser's line has that call."""

    def target_of(self, call_id: str, target: str) -> str | Refuse:
        """Where a target of the dialplan is that a running call may be handed to: the text of `[targets]`."""

    def refused(self, call: RefusedInvite) -> str | None:
        """A caller hears that its call is not taken; told once for each call.

        The id under which the call is remembered; None: there are too many, and its messages are not kept.
        """

    async def ended(self, call_id: str, how: CallEnding) -> None: ...
