"""What the edge calls itself toward each peer: the address in its Via, Contact, Record-Route and SDP."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from gateway.config.own_address import seen_from
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import Via
from gateway.edge.grammar.token import PARAM


class Bound(Protocol):
    """A port that is open when somebody asks."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""


class Identity:
    """Peers reach us at `bound`; `public_address` is how those outside do, when NAT hides it. `port_of` says
    at which port over another transport than `bound`'s."""

    def __init__(
        self, bound: Bound, public_address: str | None, port_of: Callable[[str], int] | None = None
    ) -> None:
        self._bound = bound
        self._public = public_address
        self._port_of = port_of

    @property
    def port(self) -> int:
        return self._bound.address[1]

    def _port(self, flow: Flow) -> int:
        return self.port if self._port_of is None else self._port_of(flow.transport)

    def address(self, peer: str) -> str:
        """Our address as `peer` reaches it, without brackets."""
        if self._public is not None and _reaches(self._public, peer):
            return self._public
        host = self._bound.address[0]
        return seen_from(peer) if ipaddress.ip_address(host).is_unspecified else host

    def via(self, flow: Flow, branch: str) -> Via:
        return Via(
            transport=flow.transport.upper(),
            host=_bracketed(self.address(flow.host)),
            port=self._port(flow),
            parameters={"branch": branch},
        )

    def contact(self, flow: Flow, word: str, *, sips: bool = False) -> str:
        """`word` is the dialog's signed one; `sips`: it is one that wants TLS on each hop."""
        return f"<{self.uri(flow, sips=sips)};{PARAM}={word}>"

    def record_route(self, flow: Flow, word: str, *, sips: bool = False) -> str:
        """See `contact`."""
        return f"<{self.uri(flow, sips=sips)};lr;{PARAM}={word}>"

    def uri(self, flow: Flow, user: str = "", *, sips: bool = False) -> str:
        """Ours, as the peer reaches us. `sips:` says by itself that it is TLS (RFC 5630 §5.1.1)."""
        place = f"{f'{user}@' if user else ''}{_bracketed(self.address(flow.host))}:{self._port(flow)}"
        if sips:
            return f"sips:{place}{';transport=ws' if flow.transport == 'wss' else ''}"
        return f"sip:{place}{f';transport={flow.transport}' if flow.reliable else ''}"


def _reaches(public: str, peer: str) -> bool:
    """Whether a peer is outside, and can dial our public address."""
    theirs = ipaddress.ip_address(peer)
    try:
        return not theirs.is_private and ipaddress.ip_address(public).version == theirs.version
    except ValueError:  # a name
        return not theirs.is_private


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
