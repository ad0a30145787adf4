"""The bindings of all users, in memory; who else keeps them is the registrar's business.

How long one holds is counted by a clock that nobody sets: `expires_at` is what others read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from gateway.edge.flows.transport import Flow
from gateway.ipc.binding import Binding

CONNECTED: Final = frozenset({"tcp", "tls", "ws", "wss"})
"""Transports whose flow is a connection: it ends, and nobody else can open it."""


@dataclass(slots=True)
class Held:
    """A binding, and what only this process knows of it."""

    binding: Binding
    until: float
    """monotonic"""
    flow: Flow | None
    """None over UDP, where any moment's socket will do, and for a connection of before a restart"""

    @property
    def left_s(self) -> int:
        """Whole seconds for which it holds; at least one, since zero would say that it is gone."""
        return max(1, round(self.until - time.monotonic()))


class Bindings:
    """See the module. At most `contacts.MOST_CONTACTS` of a user, and users are the house's."""

    def __init__(self, udp: Callable[[str, int], Flow]) -> None:
        """`udp` makes a flow to an address and a port from our port."""
        self._udp = udp
        self._users: dict[str, dict[str, Held]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._users.values()))

    def __iter__(self) -> Iterator[Held]:
        return iter([held for of_user in self._users.values() for held in of_user.values()])

    def of(self, user: str) -> list[Held]:
        """Those of a user that hold now, the newest last."""
        now = time.monotonic()
        return [held for held in self._users.get(user, {}).values() if held.until > now]

    def put(self, binding: Binding, flow: Flow | None) -> None:
        """Instead of the one with its key, if there is one."""
        of_user = self._users.setdefault(binding.user, {})
        of_user.pop(binding.key, None)
        kept = flow if binding.transport in CONNECTED else None
        of_user[binding.key] = Held(binding, time.monotonic() + binding.expires_at - time.time(), kept)

    def drop(self, binding: Binding) -> None:
        """It is gone; nothing happens when it was."""
        of_user = self._users.get(binding.user, {})
        of_user.pop(binding.key, None)
        if not of_user:
            self._users.pop(binding.user, None)

    def holds(self, binding: Binding) -> bool:
        """Whether it is what is known of its telephone now."""
        held = self._users.get(binding.user, {}).get(binding.key)
        return held is not None and held.binding is binding

    def load(self, bindings: Iterable[Binding]) -> None:
        """What another process before this one knew; its connections are gone."""
        for binding in bindings:
            self.put(binding, None)

    def expired(self) -> list[Binding]:
        """Those that hold no more."""
        now = time.monotonic()
        return [held.binding for held in self if held.until <= now]

    def lose(self, flow: Flow) -> list[Binding]:
        """A connection ended. Returns those that were reached by it, which are marked now."""
        lost = []
        for held in self:
            if held.flow is flow:
                held.flow = None
                held.binding = replace(held.binding, lost_at=time.time())
                lost.append(held.binding)
        return lost

    def flow_to(self, held: Held) -> Flow | None:
        """The flow that reaches it; None: its connection is gone."""
        if held.binding.transport == "udp":
            return self._udp(held.binding.host, held.binding.port)
        return held.flow if held.flow is not None and held.flow.open else None
