"""The lines that are connected to the front: how they are, and how many calls they carry."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.settings import Settings
from gateway.front.calls.web_calls import ConnectedWebLine
from gateway.ipc.hall_messages import HallHealth
from gateway.ipc.readiness import PartState
from gateway.ipc.rpc import Peer


class ConnectedLines:
    """SIP's, by name, in `sip`; browsers' in `web`, which `WebCalls` keeps."""

    def __init__(self, settings: Settings, web: Mapping[str, ConnectedWebLine]) -> None:
        self.sip: dict[str, Peer] = {}
        self.web = web
        kinds = (settings.narrow_calls, settings.wide_calls)  # a process has a line of each
        self._wanted_sip = settings.sip_processes * sum(1 for calls in kinds if calls)
        self._wanted_web = settings.web_lines

    def states(self, halls: Mapping[str, HallHealth]) -> dict[str, PartState]:
        """How the lines of each kind are: down when one is away, or is not at its hall."""
        lost = self._lost(halls)
        sip = len(self.sip) == self._wanted_sip
        web = len(self.web) == self._wanted_web
        return {
            "SIP lines": "ready" if sip and lost.isdisjoint(self.sip) else "down",
            "web lines": "ready" if web and lost.isdisjoint(self.web) else "down",
        }

    def capacity(self) -> dict[str, int]:
        """How many calls the lines of each kind carry at once."""
        lines = [peer.hello.line for peer in self.sip.values()]
        return {
            "SIP": sum(line.capacity for line in lines if line is not None),
            "browser": sum(line.capacity for line in self.web.values()),
        }

    def _lost(self, halls: Mapping[str, HallHealth]) -> set[str]:
        """Names of lines whose hall does not have them.

        Of the lines of a hall that says nothing, nobody knows better than that they are here.
        """
        at_halls = {line for health in halls.values() for line in health.lines}
        return {
            peer.name
            for peer in (*self.sip.values(), *(line.peer for line in self.web.values()))
            if peer.hello.line is not None and peer.hello.line.hall in halls and peer.name not in at_halls
        }
