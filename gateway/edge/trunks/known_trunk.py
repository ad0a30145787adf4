"""A trunk as one reading of its file has it: where it is, how we get there, and how somebody is known as it.

A call that has left keeps the one that it left by. A reload makes another one of a trunk that changed, and
connections that were opened by the one before are no more than a stranger's to it.
"""

from __future__ import annotations

from gateway.config.certificate import Trust
from gateway.edge.flows.peer_ports import PeerPorts
from gateway.edge.flows.transport import Flow
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow, SettingsError


class KnownTrunk:
    """See the module. Raises `SettingsError` for files that do not hold."""

    def __init__(self, trunk: Trunk, trust: Trust, ports: PeerPorts) -> None:
        self.trunk = trunk
        self.tls = TrunkTls(trunk, trust)
        self.ways = TrunkWays(trunk)
        self._ports = ports
        self._opened: set[Flow] = set()

    async def connect(self, way: TrunkWay) -> Flow:
        """One of its ways. Raises `NoFlow`."""
        try:
            context = self.tls.context() if way.transport == "tls" else None
        except SettingsError as error:
            raise NoFlow(str(error)) from None
        flow = await self._ports.connect(way.transport, way.host, way.port, way.name, context)
        if flow.reliable:
            self._opened = {one for one in self._opened if one.open} | {flow}
        return flow

    @property
    def opened(self) -> frozenset[Flow]:
        """Connections that we opened to it."""
        return frozenset(one for one in self._opened if one.open)

    def is_peer(self, flow: Flow, host: str = "") -> bool:
        """Whether somebody is that trunk, by address, by certificate, or by both, as its file says. `host`:
        the address that counts, where that is not the flow's own.

        A connection that we opened to it alone is as good as its certificate.
        """
        known_by = self.trunk.known_by
        by_address = known_by != "certificate" and self.ways.owns(host or flow.host)
        if known_by in ("address", "either") and by_address:
            return True
        if known_by == "address" or (known_by == "both" and not by_address):
            return False
        return self.tls.has_checked(flow) or self.tls.shown_by(flow.certificate)
