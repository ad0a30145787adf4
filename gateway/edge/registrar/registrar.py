"""The registrar (RFC 3261 §10.3, RFC 3327, RFC 5626): which of the house's users is where.

A registered telephone is reached over the flow that it registered by, and by no other way: what its Contact
and its Path say goes into requests as text, and nothing is ever sent to a host that they name. A binding over
a connection that ended, or that a front before this one had, is not reachable, and says so until the
telephone registers again. The shelf keeps a change before the telephone hears of it; what it does not keep
did not happen (§10.3: all of a REGISTER, or nothing).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Protocol
from urllib.parse import unquote
from weakref import WeakValueDictionary

import structlog

from gateway.edge.doors.digest import plain_name
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import addresses
from gateway.edge.grammar.responses import Extra, Turned
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.sips import SIPS
from gateway.edge.grammar.uri import SIP, URI
from gateway.edge.registrar.bindings import FLOW_TIMER_S, Bindings, Held
from gateway.edge.registrar.contacts import MOST_CONTACTS, Expiry, Wishes, wishes_of
from gateway.errors import BindingsNotKept
from gateway.ipc.binding import Binding, hash_of
from gateway.ipc.front_messages import TelephoneState

log = structlog.get_logger("edge")

SUPPORTED: Final = "path, outbound"
AGAIN_S: Final = 10
"""When a telephone may try again whose registration was not kept."""
MAX_AGENT: Final = 80
MOST_WAITING: Final = 8
"""REGISTERs of one user that wait for one another: more would fill what all share."""
Knows = Callable[[str], bool]
"""Whether a name is a user's."""


class BindingShelf(Protocol):
    """Who keeps bindings for the front that comes after this one."""

    async def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        """All of it is kept when this returns. Raises `BindingsNotKept`: then nothing is."""

    async def forget_expired(self) -> None:
        """What holds no more need not be kept. Raises `BindingsNotKept`."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A telephone that can be rung: a request with this URI and these Route lines, sent over this flow."""

    flow: Flow
    contact: URI
    path: tuple[str, ...]
    binding: Binding

    @property
    def quality(self) -> float:
        """Its preference, from 0 to 1 (RFC 3261 §10.2.1.2)."""
        return float(self.binding.q or 1)


class SipRegistrar:
    """See the module. `knows` is asked each time: a user who is removed is not reached any more."""

    def __init__(
        self,
        shelf: BindingShelf,
        knows: Knows,
        udp: Callable[[str, int], Flow],
        expiry: Expiry | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._shelf = shelf
        self._knows = knows
        self._expiry = expiry or Expiry()
        self._bindings = Bindings(udp)
        self._stale: list[Binding] = []
        """gone here, and not yet on the shelf"""
        self._waiting: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # ── who asks for telephones ──────────────────────────────────────────────────────────────────────

    def reach(self, user: str) -> list[Reached]:
        """The user's telephones that can be rung now, the preferred first, then the newest; often none."""
        name = plain_name(user)
        if not self._knows(name):
            return []
        found = []
        for held in reversed(self._bindings.of(name)):
            flow = self._bindings.flow_to(held)
            if flow is not None:
                binding = held.binding
                found.append(Reached(flow, URI.read(binding.contact), binding.path, binding))
        return sorted(found, key=lambda one: -one.quality)

    def known(self) -> list[Binding]:
        """All that hold now, also those that cannot be reached."""
        users = dict.fromkeys(held.binding.user for held in self._bindings)
        return [held.binding for user in users if self._knows(user) for held in self._bindings.of(user)]

    def reached(self) -> Iterator[tuple[Held, Flow]]:
        """See `ReachedTelephones`."""
        for held in self._bindings:
            if held.left_s > 1 and (flow := self._bindings.flow_to(held)) is not None:
                yield held, flow

    def telephones(self) -> tuple[TelephoneState, ...]:
        """What is known of each that holds, and is in no database."""
        return tuple(
            TelephoneState(
                held.binding.user,
                held.binding.key,
                held.there,
                None if held.round_trip_s is None else round(1000 * held.round_trip_s, 1),
            )
            for held in self._bindings
        )

    def stats(self) -> dict[str, Any]:
        """For the metrics: `count`, and what has happened since the start."""
        known = self.known()
        return {
            "bindings": len(known),
            "bindings_lost": sum(one.lost_at is not None for one in known),
            "bindings_silent": sum(held.there is False for held in self._bindings),
            "registrations": dict(self.counts),
        }

    def count(self) -> tuple[int, int]:
        """Bindings, and how many of them nobody reaches."""
        silent = {(one.user, one.key) for one in self.telephones() if one.there is False}
        known = self.known()
        return len(known), sum(one.lost_at is not None or (one.user, one.key) in silent for one in known)

    # ── what happens to flows and time ───────────────────────────────────────────────────────────────

    def load(self, bindings: Iterable[Binding]) -> None:
        """What an edge before this one knew."""
        self._bindings.load(bindings)

    def reaches_by(self, flow: Flow) -> bool:
        """Whether some telephone is reached by that connection."""
        return any(held.flow is flow for held in self._bindings)

    async def lost(self, flow: Flow) -> None:
        """A connection ended."""
        if lost := self._bindings.lose(flow):
            self.counts["connections_lost"] += len(lost)
            for one in lost:
                log.info("registrar.connection_lost", user=one.user, source=one.source)
                async with self._turn(one.user):  # its telephone may have registered anew meanwhile
                    if self._bindings.holds(one):
                        await self._note(self._shelf.keep([one], []))

    async def tidy(self) -> None:
        """Lets go of what has expired, and of flows that are dead."""
        expired = self._bindings.expired()
        for binding in expired:
            self._bindings.drop(binding)
            self.counts["expired"] += 1
            log.info("registrar.expired", user=binding.user, source=binding.source)
        if expired:
            await self._note(self._shelf.forget_expired())
        for one in self._bindings.judge():
            event = "flows_died" if one.lost_at is not None else "flows_revived"
            self.counts[event] += 1
            log.info(f"registrar.{event}", user=one.user, source=one.source, transport=one.transport)
            async with self._turn(one.user):
                if self._bindings.holds(one):
                    await self._note(self._shelf.keep([one], []))
        while self._stale:
            one = self._stale.pop()
            async with self._turn(one.user):
                if not self._bindings.any_with(one):
                    await self._note(self._shelf.keep([], [one]))

    def heard(self, flow: Flow) -> None:
        """A datagram came, be it a keep-alive."""
        self._bindings.heard(flow)

    def failed(self, one: Reached, status: int) -> None:
        """A call to that telephone led nowhere: 408, it did not answer; 430, a proxy has lost its flow.

        RFC 5626 §5.3, §7: a flow of the telephone's own is not used until it is heard again. One behind a
        proxy is gone when that says so. What is not by RFC 5626 stays as it is.
        """
        held = self._bindings.find(one.binding)
        if held is None or not one.binding.reg_id:
            return
        self.counts["flows_failed"] += 1
        log.info("registrar.flow_failed", user=one.binding.user, source=one.binding.source, status=status)
        if held.by_flow:
            held.failed_at = time.monotonic()
        elif status == 430:
            self._bindings.drop(one.binding)
            self._stale.append(one.binding)

    async def _note(self, kept: Awaitable[None]) -> None:
        """What is true whether it is kept or not."""
        try:
            await kept
        except BindingsNotKept as error:
            log.warning("registrar.not_kept", error=str(error))

    # ── REGISTER ─────────────────────────────────────────────────────────────────────────────────────

    async def register(self, request: Request, flow: Flow, source: str, user: str) -> Extra | Turned:
        """What becomes of a REGISTER: the headers of its 200, or another answer.

        `user` is who logged in; "" where a trusted proxy has seen to that, and To is believed.
        """
        uri = request.to_address.uri
        named = plain_name(unquote(uri.user or "", errors="replace")) if uri.scheme in SIP else ""
        if user and named != user:
            return Turned(403, "nobody registers for somebody else")
        if not named or not self._knows(named):
            return Turned(404, "there is no such user")
        wishes = wishes_of(request, self._expiry)
        if isinstance(wishes, Turned):
            return wishes
        if any(one.expires_s and one.uri.scheme == SIPS for one in wishes.contacts) and not _all_sips(
            request
        ):
            return Turned(400, "a sips: Contact needs a sips: Request-URI and Path")  # RFC 5630 §5.2
        if wishes.outbound and len(request.via) > 1 and not _begins_outbound(wishes.path):
            return Turned(439)  # RFC 5626 §6
        if self._waiting[named] >= MOST_WAITING:
            return Turned(503, "too many registrations of this user wait", retry_after_s=AGAIN_S)
        self._waiting[named] += 1
        try:
            return await self._one(request, flow, source, named, wishes)
        finally:
            self._waiting[named] -= 1
            if not self._waiting[named]:
                del self._waiting[named]

    async def _one(
        self, request: Request, flow: Flow, source: str, named: str, wishes: Wishes
    ) -> Extra | Turned:
        """Once those before it are done."""
        async with self._turn(named):
            try:
                turned = await self._change(request, flow, source, named, wishes)
            except BindingsNotKept as error:
                log.warning("registrar.not_kept", user=named, error=str(error))
                return Turned(503, "registrations are not kept now", retry_after_s=AGAIN_S)
            return turned or self._answer(named, wishes, flow, direct=len(request.via) == 1)

    def _turn(self, user: str) -> asyncio.Lock:
        """Two REGISTERs of a user follow one another."""
        return self._turns.setdefault(user, asyncio.Lock())

    async def _change(
        self, request: Request, flow: Flow, source: str, user: str, wishes: Wishes
    ) -> Turned | None:
        held = self._bindings.of(user)
        by_key = {one.binding.key: one for one in held}
        call_id, cseq = hash_of(request.call_id), request.cseq.sequence
        touched = held if wishes.clear else [by_key[w.key] for w in wishes.contacts if w.key in by_key]
        if any(one.binding.call_id_hash == call_id and cseq <= one.binding.cseq for one in touched):
            return Turned(500, "its CSeq is not higher than the last one's")
        gone = [one.binding for one in touched] if wishes.clear else []
        gone += [by_key[w.key].binding for w in wishes.contacts if w.key in by_key and not w.expires_s]
        now = time.time()
        put = [
            Binding(
                user=user,
                key=wish.key,
                contact=wish.uri.text,
                instance=wish.instance,
                reg_id=wish.reg_id,
                q=wish.q,
                path=wishes.path,
                call_id_hash=call_id,
                cseq=cseq,
                transport=flow.transport,
                host=flow.host,
                port=flow.port,
                source=source,
                user_agent=_shown(request.user_agent),
                registered_at=now,
                expires_at=now + wish.expires_s,
            )
            for wish in wishes.contacts
            if wish.expires_s
        ]
        gone += self._in_excess(held, put, gone)
        if put or gone:
            await self._shelf.keep(put, gone)
        for binding in gone:
            self._bindings.drop(binding)
            self.counts["removed"] += 1
        for binding in put:
            self._bindings.put(binding, flow)
            if not flow.open:  # it ended meanwhile, and nobody tells of that any more
                self._bindings.lose(flow)
            self.counts["refreshed" if binding.key in by_key else "registered"] += 1
        fresh = [binding for binding in put if binding.key not in by_key]
        if fresh or gone:
            log.info(
                "registrar.changed", user=user, source=source, transport=flow.transport,
                added=len(fresh), removed=len(gone),
            )  # fmt: skip
        return None

    def _in_excess(self, held: list[Held], put: list[Binding], gone: list[Binding]) -> list[Binding]:
        """Those that make room, since a user has `MOST_CONTACTS` at most: the lost ones, then the oldest."""
        changed = {one.key for one in (*put, *gone)}
        others = [one for one in held if one.binding.key not in changed]
        others.sort(
            key=lambda one: (
                self._bindings.flow_to(one) is not None,
                one.there is not False,
                one.binding.registered_at,
            )
        )
        leaving = others[: max(0, len(others) + len(put) - MOST_CONTACTS)]
        self.counts["replaced"] += len(leaving)
        return [one.binding for one in leaving]

    def _answer(self, user: str, wishes: Wishes, flow: Flow, *, direct: bool) -> Extra:
        """The headers of the 200: all contacts of the user, each with what is left of its time."""
        extra: dict[str, str | Sequence[str]] = {
            "Contact": [_written(held) for held in self._bindings.of(user)],
            "Date": formatdate(usegmt=True),
            "Supported": SUPPORTED,
        }
        if wishes.path:
            extra["Path"] = list(wishes.path)
        if wishes.outbound:
            extra["Require"] = "outbound"
            if direct and not wishes.path and flow.transport in FLOW_TIMER_S:
                extra["Flow-Timer"] = str(FLOW_TIMER_S[flow.transport])
        return extra


def _all_sips(request: Request) -> bool:
    """Whether each way to a telephone that registers so is encrypted; the doors saw to the one it came by."""
    paths = addresses(request.headers.getlist("Path"))
    return request.uri.scheme == SIPS and all(one.uri.scheme == SIPS for one in paths)


def _begins_outbound(path: tuple[str, ...]) -> bool:
    """Whether the first proxy on the way keeps flows."""
    first = path[0].partition(">")[0].lower() if path else ""
    return "ob" in first.split(";")[1:]


def _written(held: Held) -> str:
    binding = held.binding
    parts = [f"<{binding.contact}>"]
    if binding.q:
        parts.append(f"q={binding.q}")
    if binding.instance:
        escaped = binding.instance.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'+sip.instance="{escaped}"')
    if binding.reg_id:
        parts.append(f"reg-id={binding.reg_id}")
    return ";".join([*parts, f"expires={held.left_s}"])


def _shown(user_agent: str | None) -> str:
    return "".join(c for c in user_agent or "" if c.isprintable())[:MAX_AGENT]
