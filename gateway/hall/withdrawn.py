"""How a hall hears that a voice was withdrawn: from the front, by RPC, and from Redis, by its own feed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from consent.grants.revocation import Revocation
from consent.grants.revocation_feed import RevocationFeed
from gateway.ipc.hall_messages import FeedState, VoicesWithdrawn
from gateway.ipc.rpc import Peer

WORD_S: Final = 3.0
"""The front's word holds for so long; it comes twice a second while the front lives."""
LOOK_S: Final = 0.5

log = structlog.get_logger("hall")


class Withdrawn:
    """Either way is enough; `revoked` is told of each voice once."""

    def __init__(self, feed: RevocationFeed, revoked: Callable[[Revocation], Awaitable[None]]) -> None:
        self._feed = feed
        self._revoked = revoked
        self._word_until = 0.0

    async def told(self, _: Peer, word: VoicesWithdrawn) -> FeedState:
        """The front's word, which does not pass Redis. Returns how the feed is that does."""
        feed = self._feed
        before = feed.revocations.forged
        for token in word.tokens:
            revocation = feed.revocations.take(token)
            if revocation is not None:
                await self._silence(revocation, "front")
        if word.looked_ago_s is not None:
            self._word_until = asyncio.get_running_loop().time() + WORD_S - word.looked_ago_s
        refused = feed.revocations.forged - before
        return FeedState(feed.doubt, feed.revocations.forged, feed.failed, refused)

    async def follow(self) -> None:
        """Follows Redis, until cancelled."""
        await self._feed.run(partial(self._silence, way="redis"))

    async def _silence(self, revocation: Revocation, way: str) -> None:
        log.info("voice.withdrawn", voice=revocation.voice, way=way)
        await self._revoked(revocation)

    @property
    def doubt(self) -> str | None:
        """Why a withdrawn voice may go on speaking here until its grant ends; None: one of the ways holds."""
        if self._feed.doubt is None or asyncio.get_running_loop().time() < self._word_until:
            return None
        return f"the front does not say which voices are withdrawn, and of Redis: {self._feed.doubt}"

    async def watch(self) -> None:
        """Says so in the log, once each time, for as long as the hall lives."""
        said = False
        while True:
            await asyncio.sleep(WORD_S if not said and not self._word_until else LOOK_S)
            doubt = self.doubt
            if doubt is not None and not said:
                log.error("revocations.in_doubt", error=doubt, remedy="grants end by themselves in a minute")
            elif doubt is None and said:
                log.info("revocations.certain")
            said = doubt is not None
