"""All trunks of a house: whether each is up and why not, its registration, its use, and what leaves by it.

    look_after ──→ names looked up each minute, OPTIONS to each address, REGISTER when it is due

A trunk is up when one of its addresses answers anything, and it is registered where it wants that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

import structlog

from gateway.edge.flows.transport import Flow
from gateway.edge.proxy.switchboard import Switchboard
from gateway.edge.trunks.out_calls import FlowFailed, OutCalls, Phones
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_registration import Registration
from gateway.edge.trunks.trunk_requests import TrunkRequests
from gateway.edge.trunks.trunk_tls import TrunkTls
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
        self.tls = {trunk.name: TrunkTls(trunk, board.config.trust) for trunk in trunks}
        self.ways = {trunk.name: TrunkWays(trunk) for trunk in trunks}
        self.use = {trunk.name: TrunkUse(trunk) for trunk in trunks}
        self.calls = OutCalls(board, self.ways, self.use, self, phones, flow_failed)
        self._requests = TrunkRequests(board.transactions, board.toward_callers, self.connect)
        self.registrations = {
            name: Registration(ways, self._requests)
            for name, ways in self.ways.items()
            if ways.trunk.register
        }
        self._pinged: dict[str, float] = {}
        self._looked_up = -LOOK_UP_EVERY_S
        self._was_up: dict[str, bool] = {}
        self._taken = asyncio.Event()

    def of(self, flow: Flow, host: str = "") -> str | None:
        """The name of the trunk that somebody is, by address, by certificate, or by both, as its file says.

        `host`: the address that counts, where that is not the flow's own.
        """
        return next((name for name in self.ways if self.is_peer(name, flow, host)), None)

    def is_peer(self, name: str, flow: Flow, host: str = "") -> bool:
        """Whether somebody is that trunk. A connection that we opened to it alone is as good as its
        certificate."""
        known_by = self.ways[name].trunk.known_by
        by_address = known_by != "certificate" and self.ways[name].owns(host or flow.host)
        if known_by in ("address", "either") and by_address:
            return True
        if known_by == "address" or (known_by == "both" and not by_address):
            return False
        return flow.opened_to == name or self.tls[name].shown_by(flow.certificate)

    def trusts(self, flow: Flow) -> bool:
        """Whether somebody is a trunk whose word on who calls is believed."""
        name = self.of(flow)
        return name is not None and self.ways[name].trunk.trusted

    def authorities(self) -> str:
        """Whose certificates (PEM) peers are asked for; empty: no trunk is known by one."""
        return "".join(tls.asked for tls in self.tls.values())

    async def connect(self, way: TrunkWay) -> Flow:
        """The way to a trunk. Raises `NoFlow`."""
        tls = self.tls.get(way.trunk)
        if tls is None:
            raise NoFlow(f"there is no trunk {way.trunk} any more")
        try:
            context = tls.context() if way.transport == "tls" else None
        except SettingsError as error:
            raise NoFlow(str(error)) from None
        flow = await self._board.ports.connect(way.transport, way.host, way.port, way.name, context)
        if context is not None:
            flow.opened_to = way.trunk
        return flow

    def look(self) -> None:
        """Looks at their certificates' files. Raises `SettingsError` once for what does not hold."""
        for tls in list(self.tls.values()):
            tls.look()

    def take(self, trunks: Sequence[Trunk]) -> None:
        """These from now on. Who is as before goes on as before; calls that have left keep their way.

        Raises `SettingsError`, and then nothing has changed.
        """
        new = {trunk.name: trunk for trunk in trunks}
        changed = [one for one in trunks if one.name not in self.ways or self.ways[one.name].trunk != one]
        tls = {trunk.name: TrunkTls(trunk, self._board.config.trust) for trunk in changed}
        for name in self.ways.keys() - new.keys():
            del self.ways[name], self.use[name], self.tls[name]
            self.registrations.pop(name, None)
            self._was_up.pop(name, None)
        self.tls.update(tls)
        for trunk in changed:
            name = trunk.name
            self.ways[name] = ways = TrunkWays(trunk)
            if name in self.use:
                self.use[name].trunk = trunk  # the calls that it has still count
            else:
                self.use[name] = TrunkUse(trunk)
            self.registrations.pop(name, None)
            self._pinged.pop(name, None)
            if trunk.register:
                self.registrations[name] = Registration(ways, self._requests)
        self._looked_up = -LOOK_UP_EVERY_S
        self._taken.set()

    # ── up or down ───────────────────────────────────────────────────────────────────────────────────

    def why_down(self, name: str) -> str | None:
        """Why no call can leave by a trunk; None: it is up."""
        ways, registration = self.ways[name], self.registrations.get(name)
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
        return tuple(self._state(name) for name in self.ways)

    def _state(self, name: str) -> TrunkState:
        ways, use, registration = self.ways[name], self.use[name], self.registrations.get(name)
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
            while not self.ways:
                self._taken.clear()
                await self._taken.wait()
            now = time.monotonic()
            if now - self._looked_up >= LOOK_UP_EVERY_S:
                self._looked_up = now
                await asyncio.gather(*(ways.look_up() for ways in self.ways.values()))
            await asyncio.gather(*(self._turn(name, now) for name in self.ways))
            self._note_changes()
            await asyncio.sleep(TURN_S)

    async def _turn(self, name: str, now: float) -> None:
        ways, registration = self.ways.get(name), self.registrations.get(name)
        if ways is None:  # taken away meanwhile
            return
        trunk = ways.trunk
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
        for name in self.ways:
            why = self.why_down(name)
            if self._was_up.get(name) == (why is None):
                continue
            self._was_up[name] = why is None
            if why is None:
                log.info("trunk.up", trunk=name)
            else:
                log.warning("trunk.down", trunk=name, why=why)
