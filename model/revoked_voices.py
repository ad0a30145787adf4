"""How an engine hears that a voice was withdrawn: from the front, once a second, and from Redis.

Either way is enough. An engine that hears by neither says so in its log and its metrics; what it speaks by
ends within a minute all the same, since grants do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.revocation import Revocation, RevocationList
from consent.grants.revocation_feed import RevocationFeed
from model.errors import EngineError
from model.reference import ReferenceDesk
from model.tasks import Tasks

ASK_S: Final = 1.0
"""Between two questions to the front."""
STALE_S: Final = 3.0
"""The front's answer holds for so long."""

log = structlog.get_logger("engine")


class RevokedVoices:
    """See the module. `forget` drops what the engine keeps of a voice, by its hash."""

    def __init__(
        self,
        forget: Callable[[str], None],
        verifier: GrantVerifier,
        redis: str | None = None,
        front: ReferenceDesk | None = None,
    ) -> None:
        """`front` is asked if it knows a front; without one, and without a Redis, nobody tells of any."""
        self._forget = forget
        self._feed = None if redis is None else RevocationFeed(redis, verifier)
        self._revocations = RevocationList(verifier) if self._feed is None else self._feed.revocations
        self._front = front if front is not None and front.has_front else None
        self._certain_until = 0.0
        self._series, self._known = "", 0
        self._tasks = Tasks()

    def start(self) -> None:
        """Begins to follow; `stop` ends it."""
        if (feed := self._feed) is not None:
            self._tasks.lasting(lambda: feed.run(self._told), "engine.revocations")
        if (front := self._front) is not None:
            self._tasks.lasting(lambda: self._ask_on(front), "engine.withdrawn")
        if self._feed is not None or self._front is not None:
            self._tasks.lasting(self._watch, "engine.revocations.watch")

    async def stop(self) -> None:
        """Follows no longer."""
        await self._tasks.stop()

    def is_revoked(self, grant: VoiceGrant) -> bool:
        """Whether the voice of this grant is known to be withdrawn."""
        return self._revocations.is_revoked(grant)

    @property
    def doubt(self) -> str | None:
        """Why a withdrawn voice may go on here until its grant ends; None: one of the ways holds."""
        if self._feed is None and self._front is None:
            return None  # an engine that has stock voices only
        if self._feed is not None and self._feed.doubt is None:
            return None
        if asyncio.get_running_loop().time() < self._certain_until:
            return None
        of_redis = f"; of Redis: {self._feed.doubt}" if self._feed is not None else ""
        return f"the front does not say which voices are withdrawn{of_redis}"

    async def _told(self, revocation: Revocation) -> None:
        log.warning("voice.revoked", voice=revocation.voice, reason=revocation.reason)
        self._forget(revocation.voice_hash)

    async def _ask_on(self, front: ReferenceDesk) -> None:
        while True:
            more = False
            try:
                series, tokens, looked_ago_s = await front.withdrawn(self._series, self._known)
            except EngineError:
                pass  # `doubt` says so, once for all tries
            else:
                if series != self._series:
                    self._series, self._known = series, 0
                self._known += len(tokens)
                before = self._revocations.forged
                for token in tokens:
                    revocation = self._revocations.take(token)
                    if revocation is not None:
                        await self._told(revocation)
                more = bool(tokens)
                if self._revocations.forged != before and more:
                    self._known, more = 0, False  # asked for again: by then a new key may be known here
                if looked_ago_s is not None:
                    self._certain_until = asyncio.get_running_loop().time() + STALE_S - looked_ago_s
            await asyncio.sleep(0.0 if more else ASK_S)

    async def _watch(self) -> None:
        said = False
        await asyncio.sleep(STALE_S)  # the front begins beside this process
        while True:
            doubt = self.doubt
            if doubt is not None and not said:
                log.error("revocations.in_doubt", error=doubt, remedy="grants end by themselves in a minute")
            elif doubt is None and said:
                log.info("revocations.certain")
            said = doubt is not None
            await asyncio.sleep(ASK_S)
