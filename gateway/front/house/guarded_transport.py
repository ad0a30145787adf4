"""HTTP to hosts that others name: a connection goes to the address that was judged, and to no other."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Final

import httpx

MayAsk = Callable[[str, str], bool]
"""Whether a host may be asked at one of its addresses."""
CONNECT_S: Final = 5.0
MOST_ADDRESSES: Final = 4
"""Of one host, that are tried one after the other until one takes the connection."""
_WAYS_INSIDE: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "2002::/16", "2001::/32")))
"""NAT64, 6to4 and Teredo: an IPv4 address within them may be a private one."""


class NotAsked(httpx.ConnectError):
    """There is no address that may be asked; the text is ours."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to an address that was looked at, whatever the name says a moment later."""

    def __init__(self, inner: httpx.AsyncHTTPTransport, may_ask: MayAsk) -> None:
        self._inner = inner
        self._may_ask = may_ask

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        *others, last = await self._addresses(host, request.url.port)
        request.extensions = {**request.extensions, "sni_hostname": host}
        for address in others:
            request.url = request.url.copy_with(host=address)
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._inner.handle_async_request(request)
        request.url = request.url.copy_with(host=last)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, host: str, port: int | None) -> list[str]:
        """At least one. Raises `NotAsked`."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotAsked("its name has no address") from None
        addresses = dict.fromkeys(str(one[4][0]) for one in found)
        allowed = [text for text in addresses if self._may_ask(host, text)]
        if not allowed:
            raise NotAsked("its name leads to an address that is not told")
        return allowed[:MOST_ADDRESSES]


def public(host: str, text: str) -> bool:
    """Whether an address is everybody's; whatever it is named, none of this house and its network."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _WAYS_INSIDE):
            return False
        address = address.ipv4_mapped or address
    return address.is_global and not address.is_multicast


def guarded_client(trust: ssl.SSLContext, answer_s: float) -> httpx.AsyncClient:
    """One for hosts that the operator named: it follows no redirect, uses no proxy, and connects to `allowed`
    addresses only. `answer_s`: how long it waits for what comes next."""
    return httpx.AsyncClient(
        transport=GuardedTransport(httpx.AsyncHTTPTransport(verify=trust), allowed),
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
    )


def allowed(host: str, text: str) -> bool:
    """Whether an address may be told: this machine's only where the URL names this machine, private ones
    (a receiver in the house), and none by which clouds tell their machines secrets (link-local)."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return is_here(host)
    return not (
        address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    )


def is_here(host: str) -> bool:
    """Whether a URL's host names this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
