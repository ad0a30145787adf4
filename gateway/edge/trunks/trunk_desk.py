"""All trunks of a house: whether each is up and why not, its registration, its use, and what leaves by it.

    look_after ──→ names looked up each minute, OPTIONS to each address, REGISTER when it is due

A trunk is up when one of its addresses answers anything, and it is registered where it wants that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.proxy.switchboard import Switchboard
from gateway.edge.trunks.known_trunk import KnownTrunk
from gateway.edge.trunks.out_calls import FlowFailed, OutCalls, Phones
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_registration import Registration
from gateway.edge.trunks.trunk_requests import TrunkRequests
from gateway.edge.trunks.trunk_use import TrunkUse
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow, SettingsError
from gateway.ipc.front_messages import TrunkState

LOOK_UP_EVERY_S: Final = 60.0
TURN_S: Final = 1.0

log = structlog.get_logger("edge")


class TrunkDesk:
    """See the module. All methods belong to the edge's event loop."""

    def __init__(
        self,
        trunks: Sequence[Trunk],
        board: Switchboard,
        phones: Phones,
        flow_failed: FlowFailed,
    ) -> None:
        """`phones` finds the telephones that are registered for a user; `flow_failed` hears which of them
        were not there. Raises `SettingsError`."""
        self._board = board
        self.known = {trunk.name: self._know(trunk) for trunk in trunks}
        self._former: list[KnownTrunk] = []
        """those that a reload changed or took away, as long as something of theirs is open"""
        self.use = {trunk.name: TrunkUse(trunk) for trunk in trunks}
        self.calls = OutCalls(board, self.known, self.use, phones, flow_failed)
        self._requests = TrunkRequests(board.transactions, board.toward_callers, self.connect)
        self.registrations = {
            name: self._registration(one) for name, one in self.known.items() if one.trunk.register
        }
        self._ending: set[KnownTrunk] = set()
        """those of the former that are told that we are not there any more"""
        self._pinged: dict[str, float] = {}
        self._looked_up = -LOOK_UP_EVERY_S
        self._was_up: dict[str, bool] = {}
        self._taken = asyncio.Event()

    def _know(self, trunk: Trunk) -> KnownTrunk:
        return KnownTrunk(trunk, self._board.config.trust, self._board.ports)

    def _registration(self, known: KnownTrunk) -> Registration:
        board = self._board
        requests = TrunkRequests(board.transactions, board.toward_callers, known.connect)
        return Registration(known.ways, requests)

    def of(self, flow: Flow, host: str = "") -> str | None:
        """The name of the trunk that somebody is. `host`: see `KnownTrunk.is_peer`."""
        return next((name for name, one in self.known.items() if one.is_peer(flow, host)), None)

    def sound_rule(self, name: str) -> SrtpRule | None:
        """Whether a trunk's sound is encrypted; None: there is no such trunk."""
        known = self.known.get(name)
        return None if known is None else known.trunk.sound_rule

    def trusts(self, flow: Flow) -> bool:
        """Whether somebody is a trunk whose word on who calls is believed."""
        name = self.of(flow)
        return name is not None and self.known[name].trunk.trusted

    def authorities(self) -> str:
        """Whose certificates (PEM) peers are asked for; empty: no trunk is known by one."""
        return "".join(one.tls.asked for one in self.known.values())

    async def connect(self, way: TrunkWay) -> Flow:
        """The way to a trunk. Raises `NoFlow`."""
        known = self.known.get(way.trunk)
        if known is None:
            raise NoFlow(f"there is no trunk {way.trunk} any more")
        return await known.connect(way)

    def look(self) -> None:
        """Looks at their certificates' files. Raises `SettingsError` once for what does not hold."""
        for one in list(self.known.values()):
            one.tls.look()

    def ends(self) -> list[tuple[str, str, datetime]]:
        """Of each trunk that has them: its name, "certificate" or "authority", and when that ends.

        It reads their files; one that cannot be read is left out: `look` has said why.
        """
        found = []
        for name, one in list(self.known.items()):
            with contextlib.suppress(SettingsError):
                found += [(name, what, at) for what, at in one.tls.ends().items()]
        return found

    def take(self, trunks: Sequence[Trunk]) -> None:
        """These from now on. Who is as before goes on as before; calls that have left keep their way.

        Raises `SettingsError`, and then nothing has changed.
        """
        new = {trunk.name: trunk for trunk in trunks}
        changed = [one for one in trunks if one.name not in self.known or self.known[one.name].trunk != one]
        known = {trunk.name: self._know(trunk) for trunk in changed}
        gone = self.known.keys() - new.keys()
        self._former += [one for name, one in self.known.items() if name in gone or name in known]
        for name in gone:
            del self.known[name], self.use[name]
            self._was_up.pop(name, None)
        for name, one in known.items():
            self.known[name] = one
            if name in self.use:
                self.use[name].trunk = one.trunk  # the calls that it has still count
            else:
                self.use[name] = TrunkUse(one.trunk)
        for name in (*gone, *known):
            self._end_registration(name, new.get(name))
            self._pinged.pop(name, None)
            if name in known and known[name].trunk.register:
                self.registrations[name] = self._registration(known[name])
        self._looked_up = -LOOK_UP_EVERY_S
        self._taken.set()
        self._close_unused()

    def _end_registration(self, name: str, new: Trunk | None) -> None:
        """Unless the new one takes its place."""
        registration = self.registrations.pop(name, None)
        if registration is None or not registration.registered or (new and registration.is_like(new)):
            return
        (former,) = (one for one in self._former if one.ways is registration.ways)

        async def end() -> None:
            try:
                await registration.end()
            finally:
                self._ending.discard(former)

        self._ending.add(former)
        self._board.spawn(end())

    def _close_unused(self) -> None:
        """Connections to what trunks were before a reload, and of peers that would not be taken any more.

        Each goes as soon as no call needs it.
        """
        if not self._former:
            return
        talking = {dialog.flow for dialog in self._board.dialogs}
        in_use = talking.union(*(one.opened for one in self.known.values()))
        open_still = []
        for one in self._former:
            needed = one in self._ending or self.calls.leave_by(one)
            for flow in () if needed else one.opened - in_use:
                flow.close()
            if needed or one.opened & talking:
                open_still.append(one)
        peers = self._board.ports.unwelcome()
        for flow in peers:
            if flow not in talking:
                flow.close()
        if not any(flow in talking for flow in peers):
            self._former = open_still

    # ── up or down ───────────────────────────────────────────────────────────────────────────────────

    def why_down(self, name: str) -> str | None:
        """Why no call can leave by a trunk; None: it is up."""
        ways, registration = self.known[name].ways, self.registrations.get(name)
        if not ways.all:
            unknown = "; ".join(f"{host}: {why}" for host, why in ways.unknown.items())
            return unknown or "its names have not been looked up yet"
        if all(way in ways.down for way in ways.all):
            return "; ".join(ways.down[way] for way in ways.all)
        if registration is not None and not registration.registered:
            return registration.why or "its registration ran out"
        return None

    def state(self) -> tuple[TrunkState, ...]:
        """Each trunk for the panel, the metrics and the command line; no user, no password."""
        return tuple(self._state(name) for name in self.known)

    def _state(self, name: str) -> TrunkState:
        ways, use, registration = self.known[name].ways, self.use[name], self.registrations.get(name)
        return TrunkState(
            name,
            self.why_down(name),
            None if registration is None else registration.registered,
            ways={str(way): ways.down.get(way, "") for way in ways.all},
            calls=use.calls,
            calls_at_most=use.trunk.calls,
            answers={str(status): count for status, count in sorted(use.outcomes.items())},
            not_let_out=dict(use.refused),
        )

    # ── what goes on by itself ───────────────────────────────────────────────────────────────────────

    async def look_after(self) -> None:
        """Until cancelled. One trunk that hangs delays no other."""
        while True:
            while not self.known and not self._former:
                self._taken.clear()
                await self._taken.wait()
            now = time.monotonic()
            if now - self._looked_up >= LOOK_UP_EVERY_S:
                self._looked_up = now
                await asyncio.gather(*(one.ways.look_up() for one in self.known.values()))
            await asyncio.gather(*(self._turn(name, now) for name in self.known))
            self._note_changes()
            self._close_unused()
            await asyncio.sleep(TURN_S)

    async def _turn(self, name: str, now: float) -> None:
        known, registration = self.known.get(name), self.registrations.get(name)
        if known is None:  # taken away meanwhile
            return
        trunk, ways = known.trunk, known.ways
        if trunk.ping_s and now - self._pinged.get(name, -trunk.ping_s) >= trunk.ping_s and ways.all:
            self._pinged[name] = now
            await asyncio.gather(*(self._ping(ways, way) for way in ways.all))
        if registration is not None and registration.due and ways.all:
            await registration.renew()

    async def _ping(self, ways: TrunkWays, way: TrunkWay) -> None:
        """Any answer says that somebody is there (RFC 3261 §11)."""
        with contextlib.suppress(PermissionError):  # a challenge is an answer
            try:
                answer, _ = await self._requests.ask(
                    ways.trunk, way, "OPTIONS", {"Accept": "application/sdp"}
                )
            except NoFlow as error:
                ways.note(way, str(error))
                return
            ways.note(way, None if answer is not None else f"{way} does not answer")
            return
        ways.note(way, None)

    def _note_changes(self) -> None:
        for name in self.known:
            why = self.why_down(name)
            if self._was_up.get(name) == (why is None):
                continue
            self._was_up[name] = why is None
            if why is None:
                log.info("trunk.up", trunk=name)
            else:
                log.warning("trunk.down", trunk=name, why=why)
