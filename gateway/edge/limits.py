"""Who may knock, and how often: networks, buckets per source, scanners. All bounded, all counted."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

SCANNERS: Final = (
    "friendly-scanner", "sipvicious", "sipcli", "sip-scan", "sundayddr", "pplsip", "vaxsipuseragent",
    "sipsak", "sip-bomber",
)  # fmt: skip
MAX_SOURCES: Final = 10_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Bucket:
    """A token bucket: `rate` a second, `burst` at once."""

    __slots__ = ("at", "left")

    def __init__(self, burst: float) -> None:
        self.left = burst
        self.at = time.monotonic()

    def take(self, rate: float, burst: float) -> bool:
        now = time.monotonic()
        self.left = min(burst, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Limits:
    """The edge's doorkeeper. `allow` empty: everybody but `deny`."""

    def __init__(self, allow: Sequence[str], deny: Sequence[str], invites_per_s: float) -> None:
        self._allow = [ipaddress.ip_network(n, strict=False) for n in allow]
        self._deny = [ipaddress.ip_network(n, strict=False) for n in deny]
        self._rate = invites_per_s
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self.dropped: Counter[str] = Counter()

    def admits(self, host: str) -> bool:
        """Whether the networks let this address in."""
        address = ipaddress.ip_address(host)
        return not any(address in n for n in self._deny) and (
            not self._allow or any(address in n for n in self._allow)
        )

    def in_time(self, host: str) -> bool:
        """One more request that opens something, from this source."""
        burst = max(2.0, 2 * self._rate)
        bucket = self._buckets.get(host)
        if bucket is None:
            bucket = self._buckets[host] = Bucket(burst)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(host)
        return bucket.take(self._rate, burst)


def is_scanner(user_agent: str | None) -> bool:
    agent = (user_agent or "").lower()
    return any(name in agent for name in SCANNERS)
