"""What is seen of each call on the wire: its messages between caller, trunk or telephone and us, blanked.

A message belongs to a call by its Call-ID. Whose Call-ID that is, is known once the call is taken or refused
(`known`); until then an INVITE and what follows it wait, few and not for long, and what never becomes a call
is forgotten: scanners leave nothing. A message is blanked when it is given on, and of a call with very many
in a row some are left out.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.blanking import blanked
from gateway.edge.grammar.message import branch_of, to_tag
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import RouteToken
from gateway.ipc.wire_message import CALLER, US, Standing, WireMessage

MAX_KNOWN: Final = 4096
"""Call-IDs whose call is known; those that were heard of last."""
MAX_REFUSED: Final = 512
MAX_WAITING: Final = 512
"""Call-IDs of INVITEs that are not decided yet."""
WAITING_S: Final = 40.0
MAX_OF_WAITING: Final = 12
"""Messages of each of them."""
MAX_WAITING_BYTES: Final = 4 << 20
FREELY: Final = 200
"""Messages of one Call-ID that are all looked at; from then on at most `PER_S` are in a second."""
PER_S: Final = 5.0
_CALL_ID: Final = re.compile(rb"\r\n[Cc][Aa][Ll][Ll]-[Ii][Dd][ \t]*+:[ \t]*+([^\r\n]*)")

log = structlog.get_logger("edge")

OnWire = Callable[[str, WireMessage, Standing], None]
"""Takes a call's id and one of its messages; must neither wait nor fail."""


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    outward: bool
    protocol: str
    host: str
    port: int
    data: bytes


@dataclass(slots=True)
class _Leg:
    """A Call-ID whose call is known, and who is at its other end."""

    call_id: str
    party: str
    standing: Standing
    branches: set[str] = field(default_factory=set)
    """of INVITEs that opened it"""
    count: int = 0
    left_out: int = 0
    next_at: float = 0.0
    """after many messages: when one more is taken; seconds since the epoch"""


@dataclass(slots=True)
class _Waiting:
    since: float
    """monotonic"""
    messages: list[_Seen] = field(default_factory=list)
    branches: set[str] = field(default_factory=set)
    size: int = 0


class WireTap:
    """See the module. `give` None: nobody wants to know, and nothing is looked at."""

    def __init__(self, give: OnWire | None, key: bytes) -> None:
        """`key` verifies our signed word: by it a call from before our restart is known again."""
        self._give = give
        self._key = key
        self._legs: OrderedDict[str, _Leg] = OrderedDict()
        self._refused: OrderedDict[str, _Leg] = OrderedDict()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._waiting_bytes = 0

    @property
    def sent(self) -> Callable[[bytes, Flow], None] | None:
        """For the ports toward callers: hears what goes out."""
        return None if self._give is None else self._went

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────────

    def came(self, message: Request | Response, data: bytes, flow: Flow) -> None:
        """A message that was let in."""
        if self._give is None:
            return
        sip_call_id = message.call_id
        if isinstance(message, Request):
            if message.method == "INVITE" and not to_tag(message):
                self._opens(sip_call_id, branch_of(message))
            elif sip_call_id not in self._legs and to_tag(message):
                token = RouteToken.of(message, self._key)
                if token is not None:
                    self.known(sip_call_id, token.call_id, standing="old")
        self._see(sip_call_id, data, flow, outward=False)

    def came_unreadable(self, sip_call_id: str, data: bytes, flow: Flow) -> None:
        """An INVITE that cannot be read was refused."""
        if self._give is not None:
            self._opens(sip_call_id, "")
            self._see(sip_call_id, data, flow, outward=False)

    def _went(self, data: bytes, flow: Flow) -> None:
        if (self._legs or self._refused or self._waiting) and (found := _CALL_ID.search(data)):
            self._see(found[1].decode(errors="replace"), data, flow, outward=True)

    # ── whose it is ──────────────────────────────────────────────────────────────────────────────────

    def known(
        self, sip_call_id: str, call_id: str, party: str = CALLER, *, standing: Standing = "new"
    ) -> None:
        """From now on messages with that Call-ID are that call's, and so are those that wait."""
        if self._give is None:
            return
        legs, most = (self._refused, MAX_REFUSED) if standing == "refused" else (self._legs, MAX_KNOWN)
        leg = self._legs.get(sip_call_id) or self._refused.get(sip_call_id)
        if leg is None or leg.call_id != call_id:
            leg = legs[sip_call_id] = _Leg(call_id, party, standing)
            while len(legs) > most:
                legs.popitem(last=False)
            (self._legs if standing == "refused" else self._refused).pop(sip_call_id, None)
        waited = self._waiting.pop(sip_call_id, None)
        if waited is not None:
            self._waiting_bytes -= waited.size
            leg.branches |= waited.branches
            for seen in waited.messages:
                self._tell(leg, seen)

    def _opens(self, sip_call_id: str, branch: str) -> None:
        """An INVITE outside a dialog: it opens another call than the last one, unless it is a repeat."""
        waiting = self._waiting.get(sip_call_id)
        leg = self._legs.get(sip_call_id) or self._refused.get(sip_call_id)
        if waiting is None and leg is not None and branch in leg.branches:
            return
        now = time.monotonic()
        while self._waiting and now - next(iter(self._waiting.values())).since >= WAITING_S:
            self._forget_oldest()
        waiting = self._waiting.get(sip_call_id)
        if waiting is None:
            waiting = self._waiting[sip_call_id] = _Waiting(now)
            if len(self._waiting) > MAX_WAITING:
                self._forget_oldest()
        if len(waiting.branches) < MAX_OF_WAITING:
            waiting.branches.add(branch)

    def _forget_oldest(self) -> None:
        self._waiting_bytes -= self._waiting.popitem(last=False)[1].size

    def _see(self, sip_call_id: str, data: bytes, flow: Flow, *, outward: bool) -> None:
        leg = self._legs.get(sip_call_id) or self._refused.get(sip_call_id)
        waiting = self._waiting.get(sip_call_id)
        if leg is None and waiting is None:
            return
        seen = _Seen(time.time(), outward, flow.transport, flow.host, flow.port, data)
        if waiting is not None and len(waiting.messages) < MAX_OF_WAITING:
            waiting.messages.append(seen)
            waiting.size += len(data)
            self._waiting_bytes += len(data)
            while self._waiting_bytes > MAX_WAITING_BYTES:
                self._forget_oldest()
        if leg is not None and (waiting is None or leg.standing != "refused"):
            self._tell(leg, seen)

    def _tell(self, leg: _Leg, seen: _Seen) -> None:
        leg.count += 1
        if leg.count > FREELY:
            if seen.at < leg.next_at:
                leg.left_out += 1
                return
            leg.next_at = seen.at + 1 / PER_S
        try:
            shown = blanked(seen.data)
            ends = (US, leg.party) if seen.outward else (leg.party, US)
            message = WireMessage(
                seen.at, *ends, seen.protocol, shown.first, shown.text, seen.host, seen.port, leg.left_out
            )
            if self._give is not None:
                self._give(leg.call_id, message, leg.standing)
        except Exception:  # whatever is wrong with what is seen: the call goes on
            log.exception("edge.unseen", call_id=leg.call_id)
        leg.left_out = 0
