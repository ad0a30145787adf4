"""The bindings of all users, in memory; who else keeps them is the registrar's business.

How long one holds is counted by a clock that nobody sets: `expires_at` is what others read. A flow by RFC
5626 is watched: its telephone was told in what time it shall be heard, and one that is silent for longer, or
that led nowhere when somebody called, is not used until the telephone is heard again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from gateway.edge.flows.transport import Flow
from gateway.ipc.binding import Binding

FLOW_TIMER_S: Final = {"udp": 30, "tcp": 120, "tls": 120}
"""By transport: within so long a telephone shows that its flow is alive (RFC 5626 §4.4, §5.4). Not over
WebSocket, whose servers ask by themselves, and whose telephones send nothing (RFC 7118 §6)."""
GRACE_S: Final = 60.0
"""For what gets lost, and for telephones that count for themselves."""
MOST_UNANSWERED: Final = 2
"""OPTIONS in a row that a telephone that is there may not answer."""
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
    heard_from: int
    """the port that the telephone sends from, over UDP"""
    failed_at: float = 0.0
    """when a call that was sent by it led nowhere; monotonic"""
    round_trip_s: float | None = None
    """of the last OPTIONS that it answered"""
    unanswered: int = 0
    """OPTIONS in a row that it did not answer"""
    ask_at: float = 0.0
    """when it is asked next; monotonic, 0: nobody has thought of it"""
    asked_at: float = 0.0
    """when the question was asked that is under way; monotonic, 0: none is"""

    @property
    def there(self) -> bool | None:
        """Whether it answers OPTIONS; None: that is not known yet, or nobody asks."""
        if self.unanswered >= MOST_UNANSWERED:
            return False
        return None if self.round_trip_s is None else True

    @property
    def by_flow(self) -> bool:
        """Whether it is a flow between the telephone and us (RFC 5626), with no proxy between."""
        return bool(self.binding.reg_id) and not self.binding.path

    @property
    def watched(self) -> bool:
        """Whether its telephone keeps it alive, as it was told to."""
        return self.by_flow and self.binding.transport in FLOW_TIMER_S

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
        self._heard: dict[tuple[str, int], float] = {}
        """when telephones that are watched over UDP were last heard; monotonic"""

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
        before = of_user.pop(binding.key, None)
        kept = flow if binding.transport in CONNECTED else None
        until = time.monotonic() + binding.expires_at - time.time()
        heard_from = binding.port if flow is None else flow.came_from
        held = of_user[binding.key] = Held(binding, until, kept, heard_from)
        if held.watched and binding.transport == "udp":
            self._heard[binding.host, heard_from] = time.monotonic()
        if before is not None and before.binding.flow == binding.flow:
            held.round_trip_s, held.unanswered = before.round_trip_s, before.unanswered
            held.ask_at = before.ask_at

    def drop(self, binding: Binding) -> None:
        """It is gone; nothing happens when it was."""
        of_user = self._users.get(binding.user, {})
        of_user.pop(binding.key, None)
        if not of_user:
            self._users.pop(binding.user, None)

    def holds(self, binding: Binding) -> bool:
        """Whether it is what is known of its telephone now."""
        return self.find(binding) is not None

    def any_with(self, binding: Binding) -> bool:
        """Whether there is one with its key."""
        return binding.key in self._users.get(binding.user, {})

    def load(self, bindings: Iterable[Binding]) -> None:
        """What another process before this one knew; its connections are gone."""
        for binding in bindings:
            self.put(binding, None)

    def heard(self, flow: Flow) -> None:
        """Something came over UDP, whatever it was."""
        where = (flow.host, flow.came_from)
        if where in self._heard:
            self._heard[where] = time.monotonic()

    def expired(self) -> list[Binding]:
        """Those that hold no more. Who is not watched any more is not listened for either."""
        now = time.monotonic()
        watched = {(held.binding.host, held.heard_from) for held in self if held.watched}
        self._heard = {where: at for where, at in self._heard.items() if where in watched}
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
        """The flow that reaches it; None: its connection is gone, or the flow is dead."""
        if held.binding.transport != "udp" and (held.flow is None or not held.flow.open):
            return None
        if not self.alive(held):
            return None
        return held.flow or self._udp(held.binding.host, held.binding.port)

    def alive(self, held: Held) -> bool:
        """Whether its telephone was heard in time, and since a call led nowhere; else nobody watches."""
        if held.flow is not None:
            heard_at = held.flow.heard_at
        else:
            heard_at = self._heard.get((held.binding.host, held.heard_from), math.inf)
        if held.failed_at >= heard_at:
            return False
        return not held.watched or time.monotonic() - heard_at <= self.silent_after_s(held.binding)

    @staticmethod
    def silent_after_s(binding: Binding) -> float:
        """How long a watched flow may be silent."""
        return FLOW_TIMER_S[binding.transport] + GRACE_S

    def judge(self) -> list[Binding]:
        """What has become of flows since the last look: those that died (their connections are closed) and,
        over UDP, those that live again. Each is marked."""
        changed = []
        for held in self:
            dead = not self.alive(held)
            known = held.binding.lost_at is not None
            if dead == known or (known and held.binding.transport != "udp"):
                continue
            if dead and held.flow is not None:
                held.flow.close()  # `lose` marks it
                continue
            held.binding = replace(held.binding, lost_at=time.time() if dead else None)
            changed.append(held.binding)
        return changed

    def find(self, binding: Binding) -> Held | None:
        """What is known of it now."""
        held = self._users.get(binding.user, {}).get(binding.key)
        return held if held is not None and held.binding is binding else None
