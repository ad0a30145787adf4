"""HTTP to hosts that others name: a connection goes to the address that was judged, and to no other."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

import httpx

Chooses = Callable[[str, Sequence[str]], str | None]
"""Of a host's addresses the one that may be asked; None: none of them."""
_WAYS_INSIDE: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "2002::/16", "2001::/32")))
"""NAT64, 6to4 and Teredo: an IPv4 address within them may be a private one."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to the address that was looked at, whatever the name says a moment later."""

    def __init__(self, inner: httpx.AsyncHTTPTransport, chooses: Chooses) -> None:
        self._inner = inner
        self._chooses = chooses

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        request.url = request.url.copy_with(host=await self._address(host, request.url.port))
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _address(self, host: str, port: int | None) -> str:
        """Raises `httpx.ConnectError`."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpx.ConnectError("its name has no address") from None
        address = self._chooses(host, [str(one[4][0]) for one in found])
        if address is None:
            raise httpx.ConnectError("its name leads to an address that is not told")
        return address


def public(host: str, addresses: Sequence[str]) -> str | None:
    """The first address that is everybody's; whatever it is named, none of this house and its network."""
    for text in addresses:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text)
            if isinstance(address, ipaddress.IPv6Address):
                if any(address in network for network in _WAYS_INSIDE):
                    continue
                address = address.ipv4_mapped or address
            if address.is_global and not address.is_multicast:
                return text
    return None
