"""Who may knock, how often, and how much one source may hold. All bounded, all counted."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

SCANNERS: Final = (
    "friendly-scanner", "sipvicious", "sipcli", "sip-scan", "sundayddr", "pplsip", "vaxsipuseragent",
    "sipsak", "sip-bomber",
)  # fmt: skip
MAX_SOURCES: Final = 10_000
MAX_WAITING: Final = 256

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """A set of addresses, written as addresses and networks. Raises `ValueError` for what is neither."""

    def __init__(self, written: Sequence[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(one, strict=False) for one in written]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        return any(address in network for network in self._networks)


class Bucket:
    """A token bucket: `rate` a second, `burst` at once."""

    __slots__ = ("at", "left")

    def __init__(self, burst: float) -> None:
        self.left = burst
        self.at = time.monotonic()

    def take(self, rate: float, burst: float, cost: float) -> bool:
        now = time.monotonic()
        self.left = min(burst, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= cost
        return True

    def is_full(self, rate: float, burst: float) -> bool:
        """Whether it has become like a new one."""
        return self.left + (time.monotonic() - self.at) * rate >= burst


class SourceRates:
    """Buckets by whoever empties them, until they are full again; of too many, the oldest goes."""

    def __init__(self, per_s: float) -> None:
        self._rate = per_s
        self._burst = max(2.0, 2 * per_s)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def takes(self, who: str, cost: float = 1.0) -> bool:
        bucket = self._buckets.get(who)
        if bucket is None:
            self._forget_full()
            bucket = self._buckets[who] = Bucket(self._burst)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
        return bucket.take(self._rate, self._burst, cost)

    def _forget_full(self) -> None:
        while self._buckets:
            who, bucket = next(iter(self._buckets.items()))
            if not bucket.is_full(self._rate, self._burst):
                return
            del self._buckets[who]


class Share:
    """How many calls each source has that nobody has acknowledged yet, and who waits for one of its own.

    A caller who never acknowledges holds a line's slot; one source must not hold them all that way. Honest
    ones acknowledge within a round trip, so a burst of theirs is only spread, not refused.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._waiters = 0

    async def take(self, source: str, most: Callable[[], int], within_s: float) -> bool:
        """One more for that source, if need be after waiting; False when none came free in time."""
        if self._held[source] >= most():
            if self._waiters >= MAX_WAITING:
                return False
            self._waiters += 1
            try:
                async with asyncio.timeout(within_s):
                    while self._held[source] >= most():
                        await self._turn(source)
            except TimeoutError:
                return False
            finally:
                self._waiters -= 1
        self._held[source] += 1
        return True

    async def _turn(self, source: str) -> None:
        queue = self._waiting.setdefault(source, deque())
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        finally:
            if turn in queue:
                queue.remove(turn)
            if not queue:
                self._waiting.pop(source, None)

    def give(self, source: str) -> None:
        """One of that source's is acknowledged, or over."""
        self._held[source] -= 1
        if self._held[source] <= 0:
            del self._held[source]
        queue = self._waiting.get(source)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return


def is_scanner(user_agent: str | None) -> bool:
    agent = (user_agent or "").lower()
    return any(name in agent for name in SCANNERS)


def block_of(host: str) -> str:
    """What counts as one source: an IPv4 address, an IPv6 /64."""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
