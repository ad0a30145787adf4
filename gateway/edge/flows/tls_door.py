"""What SIP over TLS shows to peers, and which certificates it asks them for.

Where some trunk is known by its certificate, peers are asked for one that they need not have. Who has shown
one could resume that session later, from another machine even, and would show no chain then: each context
is given up once a peer has shown a certificate by it, so that none is resumed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Set

from gateway.edge.flows.transport import Flow


class TlsDoor:
    """See the module. `authorities` says whose certificates are asked for now (PEM; empty: nobody's), and
    `make` has a context that asks for these too."""

    def __init__(
        self,
        usual: ssl.SSLContext,
        make: Callable[[str], ssl.SSLContext | None] | None = None,
        authorities: Callable[[], str] = str,
        needed: Set[str] = frozenset(),
        is_trunk: Callable[[Flow], bool] = lambda flow: False,
    ) -> None:
        """`needed`: fingerprints of the authorities of which peers must show a certificate that are not
        trunks (`is_trunk`); empty: of none, or of those that `usual` knows."""
        self._usual = usual
        self._make = make
        self._authorities = authorities
        self._needed = needed
        self._is_trunk = is_trunk
        self._asking: ssl.SSLContext | None = None
        self._asked = ""

    def context(self) -> ssl.SSLContext:
        """See `TlsOffer`."""
        authorities = self._authorities()
        if not authorities or self._make is None:
            return self._usual
        if self._asking is None or self._asked != authorities:
            self._asking, self._asked = self._make(authorities), authorities
        return self._asking or self._usual

    def admits(self, flow: Flow) -> bool:
        """See `TlsOffer`: a trunk's authority opens the door for that trunk alone."""
        if flow.certificate is not None:
            self._asking = None
        if not self._needed or not self._asked:
            return True
        shown = flow.certificate is not None and not flow.certificate.chain.isdisjoint(self._needed)
        return shown or self._is_trunk(flow)
