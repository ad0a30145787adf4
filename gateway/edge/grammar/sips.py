"""`sips:` (RFC 3261 §26.2, RFC 5630): who writes it wants TLS on each hop, and is refused elsewhere."""

from __future__ import annotations

from typing import Final

from gateway.edge.grammar.header import Address, split
from gateway.edge.grammar.responses import Turned
from gateway.edge.grammar.sip_message import Request

SIPS: Final = "sips"
NOT_ALLOWED: Final = '380 voicegate "SIPS Not Allowed"'


def wants_sips(request: Request) -> bool:
    """Whether all hops of a request, and of the dialog that it opens, are to be encrypted.

    By its Request-URI, its topmost Record-Route, or its Contact where it has none (RFC 3261 §12.1.1).
    """
    if request.uri.scheme == SIPS:
        return True
    try:
        if routes := request.headers.getlist("Record-Route"):
            return Address.read(split(routes[0], ",")[0]).uri.scheme == SIPS
        if request.method == "REGISTER":  # its Contact is where calls go to (§10.2)
            return False
        return any(one.uri.scheme == SIPS for one in request.contact)
    except (ValueError, IndexError):
        return False


def in_the_clear(*, spoken: bool) -> Turned:
    """What is said to `sips:` over UDP and TCP (RFC 5630 §4.1, §5.1.2).

    `spoken`: we take SIP over TLS elsewhere; else the scheme is one that we do not know.
    """
    if not spoken:
        return Turned(416, "there is no TLS here")
    return Turned(480, "sips: goes over TLS", extra={"Warning": NOT_ALLOWED})
