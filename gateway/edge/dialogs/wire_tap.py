"""What is seen of each call on the wire: its messages between caller, trunk or telephone and us, blanked.

A message belongs to a call by its Call-ID and the tag of whoever opened the dialog, or of the other side: a
Call-ID alone others may write, too. Whose they are, is known once the call is taken or refused (`known`);
until then an INVITE and what follows it wait, few and not for long, and what never becomes a call is
forgotten: scanners leave nothing. A message is blanked when it is given on, and of a call with very many
in a row some are left out.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
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
"""Messages of one dialog that are all looked at; from then on at most `PER_S` are in a second."""
PER_S: Final = 5.0
_CALL_ID: Final = re.compile(rb"\r\n[Cc][Aa][Ll][Ll]-[Ii][Dd][ \t]*+:[ \t]*+([^\r\n]*)")

_ENDS: Final = tuple(
    re.compile(rb"\r\n(?:%b)[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+)" % name, re.IGNORECASE)
    for name in (b"From|f", b"To|t")
)
_TAG: Final = re.compile(r";[ \t]*+tag[ \t]*+=[ \t]*+([^\s;,<>\"]*+)", re.IGNORECASE)

log = structlog.get_logger("edge")

Side = tuple[str, str]
"""A Call-ID, and the tag of one side."""

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
        self._legs: OrderedDict[Side, _Leg] = OrderedDict()
        self._refused: OrderedDict[Side, _Leg] = OrderedDict()
        self._waiting: OrderedDict[Side, _Waiting] = OrderedDict()
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
        tags = (message.from_address.parameters.get("tag") or "", to_tag(message))
        if isinstance(message, Request):
            if message.method == "INVITE" and not tags[1]:
                self._opens((sip_call_id, tags[0]), branch_of(message))
            elif tags[1] and not any((sip_call_id, tag) in self._legs for tag in tags):
                token = RouteToken.of(message, self._key)
                if token is not None:
                    self.known(sip_call_id, tags[0], token.call_id, standing="old")
        self._see(sip_call_id, tags, data, flow, outward=False)

    def came_unreadable(self, sip_call_id: str, tag: str, data: bytes, flow: Flow) -> None:
        """An INVITE that cannot be read was refused."""
        if self._give is not None:
            self._opens((sip_call_id, tag), "")
            self._see(sip_call_id, (tag,), data, flow, outward=False)

    def _went(self, data: bytes, flow: Flow) -> None:
        if (self._legs or self._refused or self._waiting) and (found := _CALL_ID.search(data)):
            ends = [end[1].decode(errors="replace") if (end := one.search(data)) else "" for one in _ENDS]
            self._see(found[1].decode(errors="replace"), list(map(tag_in, ends)), data, flow, outward=True)

    # ── whose it is ──────────────────────────────────────────────────────────────────────────────────

    def known(
        self, sip_call_id: str, tag: str, call_id: str, party: str = CALLER, *, standing: Standing = "new"
    ) -> None:
        """From now on messages with that Call-ID and tag are that call's, and so are those that wait."""
        if self._give is None:
            return
        side = (sip_call_id, tag)
        legs, most = (self._refused, MAX_REFUSED) if standing == "refused" else (self._legs, MAX_KNOWN)
        leg = self._legs.get(side) or self._refused.get(side)
        if leg is None or leg.call_id != call_id:
            leg = legs[side] = _Leg(call_id, party, standing)
            while len(legs) > most:
                legs.popitem(last=False)
            (self._legs if standing == "refused" else self._refused).pop(side, None)
        waited = self._waiting.pop(side, None)
        if waited is not None:
            self._waiting_bytes -= waited.size
            leg.branches |= waited.branches
            for seen in waited.messages:
                self._tell(leg, seen)

    def _opens(self, side: Side, branch: str) -> None:
        """An INVITE outside a dialog: it opens another call than the last one, unless it is a repeat."""
        waiting = self._waiting.get(side)
        leg = self._legs.get(side) or self._refused.get(side)
        if waiting is None and leg is not None and branch in leg.branches:
            return
        now = time.monotonic()
        while self._waiting and now - next(iter(self._waiting.values())).since >= WAITING_S:
            self._forget_oldest()
        waiting = self._waiting.get(side)
        if waiting is None:
            waiting = self._waiting[side] = _Waiting(now)
            if len(self._waiting) > MAX_WAITING:
                self._forget_oldest()
        if len(waiting.branches) < MAX_OF_WAITING:
            waiting.branches.add(branch)

    def _forget_oldest(self) -> None:
        self._waiting_bytes -= self._waiting.popitem(last=False)[1].size

    def _see(self, sip_call_id: str, tags: Sequence[str], data: bytes, flow: Flow, *, outward: bool) -> None:
        first, *others = tags
        sides = [(sip_call_id, first), *((sip_call_id, tag) for tag in others if tag)]
        legs = (self._legs.get(side) or self._refused.get(side) for side in sides)
        leg = next((one for one in legs if one is not None), None)
        waiting = next((self._waiting[side] for side in sides if side in self._waiting), None)
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


def tag_in(end: str) -> str:
    """The tag of what a From or a To says; empty: it has none."""
    found = _TAG.findall(end)
    return found[-1] if found else ""
