"""Where a call that leaves may go: a number by a trunk, or the telephones of a user who is registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.sips import SIPS
from gateway.edge.grammar.uri import URI
from gateway.edge.registrar.contacts import MOST_CONTACTS
from gateway.edge.registrar.registrar import Reached
from gateway.edge.trunks.digest_answer import Credentials
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow

OF_A_SERVER: Final = frozenset({500, 502, 503, 504})
"""Answers of a server, and not of who is called: the next address may know better (RFC 3261 §21.5)."""
OF_A_FLOW: Final = frozenset({408, 430})
"""Answers that say that a telephone is not there by this flow (RFC 5626 §7)."""
HOUSE: Final = "voicegate.invalid"
"""Our domain for telephones of ours: they are reached by their flow, and by no name."""


@dataclass(frozen=True, slots=True)
class OutWay:
    """One place to try, and what stands in the request there."""

    to: TrunkWay | Reached
    uri: URI
    routes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if isinstance(self.to, TrunkWay):
            return str(self.to)
        return f"{self.to.flow.transport}:{self.to.flow.host}:{self.to.flow.port}"


class TrunkPeer(Protocol):
    """A trunk as a call leaves by it (`gateway.edge.trunks.known_trunk`)."""

    ways: TrunkWays

    async def connect(self, way: TrunkWay) -> Flow:
        """The way out. Raises `NoFlow`."""

    def is_peer(self, flow: Flow) -> bool:
        """Whether somebody is it."""


class Outlet(Protocol):
    """One call's."""

    name: str
    """the trunk's, or the user's"""
    credentials: Credentials
    shown: str
    """the URI of whom the call comes from"""
    called: str
    """… and of who is called"""
    contact_user: str
    srtp: SrtpRule
    tried_again: frozenset[int]
    """answers after which the next way of a branch is tried"""

    def groups(self) -> list[list[list[OutWay]]]:
        """The preferred group first; of each its branches, which are tried at once, and of each branch its
        ways, which are tried one after the other."""

    async def connect(self, way: OutWay) -> Flow:
        """Opens it if need be. Raises `NoFlow`."""

    def note(self, way: OutWay, why: str | None, status: int = 0) -> None:
        """What became of it; None: it answered. `status`: with what it failed, 408 where nobody answered."""

    def redirected(self, uri: URI) -> OutWay | None:
        """Where a 3xx may lead; None: nowhere."""

    def owns(self, flow: Flow) -> bool:
        """Whether requests that come that way may be of its calls."""

    def hop(self, flow: Flow, first: URI) -> tuple[str, int]:
        """Host and port where requests within a dialog go that has this first route or Contact."""


class TrunkOutlet:
    """A number by a trunk."""

    def __init__(self, peer: TrunkPeer, number: str, shown: str) -> None:
        trunk = peer.ways.trunk
        self.name = trunk.name
        self.credentials = Credentials(trunk)
        self.shown = f"{trunk.scheme}:{shown}@{trunk.realm_host}"
        self.called = f"{trunk.scheme}:{number}@{trunk.realm_host}"
        self.contact_user = trunk.user or shown
        self.srtp: SrtpRule = trunk.sound_rule
        self.tried_again = OF_A_SERVER
        self._trunk = trunk
        self._ways = peer.ways
        self.peer = peer

    def groups(self) -> list[list[list[OutWay]]]:
        """See `Outlet`: one address after the other."""
        uri = URI.read(self.called)
        return [[[OutWay(way, uri) for way in self._ways.in_order]]]

    async def connect(self, way: OutWay) -> Flow:
        """See `Outlet`."""
        assert isinstance(way.to, TrunkWay)  # noqa: S101  # made here
        return await self.peer.connect(way.to)

    def note(self, way: OutWay, why: str | None, status: int = 0) -> None:
        """See `Outlet`."""
        if isinstance(way.to, TrunkWay):
            self._ways.note(way.to, why)

    def redirected(self, uri: URI) -> OutWay | None:
        """See `Outlet`: to one of the trunk's own addresses, and to a number that may be called.

        From `sip:` to `sips:` nowhere, nor back (RFC 5630 §5.3).
        """
        if uri.scheme != self._trunk.scheme:
            return None
        way = self._ways.way_to(uri.host, uri.port)
        number = (uri.user or "").partition(";")[0]
        if way is None or not number or self._trunk.why_not(number) is not None:
            return None
        return OutWay(way, URI.read(f"{uri.scheme}:{number}@{self._trunk.realm_host}"))

    def owns(self, flow: Flow) -> bool:
        """See `Outlet`."""
        return self.peer.is_peer(flow)

    def hop(self, flow: Flow, first: URI) -> tuple[str, int]:
        """See `Outlet`: an address of the trunk's, else where the INVITE went."""
        way = self._ways.way_to(first.host, first.port)
        return (flow.host, flow.port) if way is None else (way.host, way.port)


class PhoneOutlet:
    """A user's telephones: those of the highest `q` ring at once, then the next ones along.

    Contacts of one instance are one telephone, which is tried by one flow after the other (RFC 5626 §7).
    """

    def __init__(
        self,
        user: str,
        reached: Sequence[Reached],
        shown: str,
        srtp: SrtpRule,
        failed: Callable[[Reached, int], None] = lambda one, status: None,
    ) -> None:
        """`reached`: the preferred first. `failed` hears of a flow that led nowhere, with 408 or 430."""
        self.name = f"user {user}"
        self.credentials = Credentials(Trunk(name="phone", hosts=()))
        self.shown = f"sip:{shown}@{HOUSE}"
        self.called = f"sip:{user}@{HOUSE}"
        self.contact_user = "voicegate"
        self.srtp = srtp
        self.tried_again = OF_A_FLOW
        self._reached = reached[:MOST_CONTACTS]
        self._failed = failed

    def groups(self) -> list[list[list[OutWay]]]:
        """See `Outlet`; a telephone that wants TLS is not asked in the clear."""
        branches: dict[str, list[Reached]] = {}
        for one in self._reached:
            if one.contact.scheme == SIPS and not one.flow.secure:
                continue
            branches.setdefault(one.binding.instance or f"key {one.binding.key}", []).append(one)
        groups: dict[float, list[list[OutWay]]] = {}
        for flows in branches.values():
            ways = [OutWay(one, one.contact, one.path) for one in flows]
            groups.setdefault(flows[0].quality, []).append(ways)
        return [groups[quality] for quality in sorted(groups, reverse=True)]

    async def connect(self, way: OutWay) -> Flow:
        """See `Outlet`."""
        assert not isinstance(way.to, TrunkWay)  # noqa: S101  # made here
        if not way.to.flow.open:
            raise NoFlow(f"{way} has closed its connection")
        return way.to.flow

    def note(self, way: OutWay, why: str | None, status: int = 0) -> None:
        """See `Outlet`: the registrar hears of a flow that fails (RFC 5626 §5.3)."""
        if why is not None and status in OF_A_FLOW and not isinstance(way.to, TrunkWay):
            self._failed(way.to, status)

    def redirected(self, uri: URI) -> OutWay | None:
        """See `Outlet`: a telephone leads nowhere else."""

    def owns(self, flow: Flow) -> bool:
        """See `Outlet`."""
        return any(one.flow.host == flow.host for one in self._reached)

    def hop(self, flow: Flow, first: URI) -> tuple[str, int]:
        """See `Outlet`: by the flow that it registered by, never by its Contact's host."""
        return flow.host, flow.port
