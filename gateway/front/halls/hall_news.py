"""The front tells its halls, and engines that ask, which voices may not be heard any more.

Redis carries the same news (`consent.grants.revocation_desk`). This way does not pass it, so that nobody who
holds or breaks Redis can delay a revocation. What each hall says of its own feed is what readiness goes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from consent.grants.revocation_desk import RevocationDesk
from gateway.errors import RpcError
from gateway.ipc.front_messages import AskWithdrawn, WithdrawnVoices
from gateway.ipc.hall_messages import FeedState, VoicesWithdrawn
from gateway.ipc.readiness import PartState
from gateway.ipc.rpc import Peer

BEAT_S: Final = 0.5
"""A hall hears from the front at least so often, news or not."""
AGAIN_S: Final = 0.1
"""Before a hall is told again that did not take it, or is looked for that is not there."""
LONGEST_PAUSE_S: Final = 30.0
"""Between two tries to tell what a hall does not believe."""
AT_ONCE: Final = 50
"""Revocations in one message: a hall verifies each, between two ticks."""
ENGINE_AT_ONCE: Final = 500
LOOK_S: Final = 1.0
"""Between two looks for doubts; a start takes less than two."""
SILENT_S: Final = 2.0
"""A hall that took nothing for so long may speak in a voice that was withdrawn."""

log = structlog.get_logger("front")


class HallNews:
    """See the module. `alarm` is told when it begins to be in doubt that voices fall silent in time."""

    def __init__(
        self, desk: RevocationDesk, halls: Mapping[str, Peer], expected: int, alarm: Callable[[str], None]
    ) -> None:
        self._desk = desk
        self._halls = halls
        self._expected = expected
        self._alarm = alarm
        self._took_at: dict[str, float] = {}
        self._feeds: dict[str, FeedState] = {}
        self._alarmed = False

    async def keep(self, name: str) -> None:
        """Tells one hall for as long as the front lives."""
        told_to: Peer | None = None
        told = 0
        refused, pause_s, again_at = False, BEAT_S, 0.0
        loop = asyncio.get_running_loop()
        while True:
            if refused and loop.time() >= again_at:  # told from the start: by now the hall may know the key
                told, refused = 0, False
            peer = self._halls.get(name)
            if peer is None:
                told_to = None
                self._feeds.pop(name, None)
                await asyncio.sleep(AGAIN_S)
                continue
            if peer is not told_to:
                told_to, told = peer, 0
            news = self._desk.since(told, AT_ONCE)
            word = VoicesWithdrawn(tuple(one.token for one in news), self._desk.looked_ago_s())
            try:
                feed = self._feeds[name] = await peer.ask(word, SILENT_S)
            except RpcError as error:
                if news:
                    log.warning("revocations.not_told", hall=name, voices=len(news), error=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            self._took_at[name] = asyncio.get_running_loop().time()
            told += len(news)
            if feed.refused:
                refused, again_at = True, loop.time() + pause_s
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            elif news:
                pause_s = BEAT_S
            if len(news) < AT_ONCE:
                await self._desk.news(BEAT_S)

    async def watch(self) -> None:
        """Raises the alarm, once each time that it begins to be in doubt, and does not end at once."""
        before: dict[str, str] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            doubts = self.doubts()
            if doubts and before and not self._alarmed:
                log.error(
                    "revocations.in_doubt", of=sorted(doubts), remedy="see what each part says of itself"
                )
                self._alarm("revocations in doubt")
                self._alarmed = True
            elif not doubts and self._alarmed:
                log.info("revocations.certain")
                self._alarmed = False
            before = doubts

    def doubts(self) -> dict[str, str]:
        """Why a revocation may be late.

        By part: the ledger, the front (what it tells Redis), or a hall by its name (what it hears of Redis).
        """
        found: dict[str, str] = {}
        if not self._desk.ledger_is_read:
            found["ledger"] = self._desk.ledger_doubt or "no look into it for a while"
        if self._desk.redis_doubt is not None:
            found["front"] = self._desk.redis_doubt
        for name in self._names():
            feed = self._feeds.get(name)
            if not self._hears(name):
                found[name] = "it takes no word of withdrawn voices"
            elif feed is not None and feed.doubt is not None:
                found[name] = feed.doubt
        return found

    def state(self) -> PartState:
        """Down: nobody knows now which voices are withdrawn. Slow: one of the ways to a hall is in doubt."""
        if not self._desk.ledger_is_read:
            return "down"
        return "slow" if self.doubts() else "ready"

    def figures(self) -> dict[str, dict[str, float]]:
        """For the metrics: by process, whether its feed is in doubt, and what strangers wrote into it."""
        figures = {
            "front": {
                "in_doubt": float(not self._desk.ledger_is_read or self._desk.redis_doubt is not None),
                "failed": float(self._desk.failed),
            }
        }
        for name, feed in self._feeds.items():
            doubt = feed.doubt is not None or not self._hears(name)
            figures[name] = {
                "in_doubt": float(doubt), "forged": float(feed.forged), "failed": float(feed.failed)
            }  # fmt: skip
        return figures

    async def asked(self, _: Peer, asked: AskWithdrawn) -> WithdrawnVoices:
        """The engine of this host asks."""
        return self.withdrawn(asked.series, asked.known)

    def withdrawn(self, series: str, known: int) -> WithdrawnVoices:
        """What an engine does not know yet, at most `ENGINE_AT_ONCE`; of another series from the start."""
        begin = known if series == self._desk.series else 0
        news = self._desk.since(begin, ENGINE_AT_ONCE)
        return WithdrawnVoices(self._desk.series, tuple(one.token for one in news), self._desk.looked_ago_s())

    def _names(self) -> list[str]:
        """The halls that are connected; of one that is not, the part "hall" says so."""
        return [name for k in range(self._expected) if (name := f"hall{k}") in self._halls]

    def _hears(self, name: str) -> bool:
        took_at = self._took_at.get(name)
        return took_at is not None and asyncio.get_running_loop().time() - took_at <= SILENT_S
