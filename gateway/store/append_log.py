"""The embedded Valkey's append-only file, kept free of what is over.

The file holds every write: words that callers said, digits that they pressed, sound of theirs. Valkey deletes
a key at its time, but what was written of it stays in the file until the file is written anew, which Valkey
does by itself only when the file has grown large. So it is told to do it each minute in which something was
written, and when the gateway stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

EVERY_S: Final = 60.0
"""How long what is over may stay in the file; longer when the file is large."""
PAUSE_S_PER_MB: Final = 2.0
LONGEST_PAUSE_S: Final = 3600.0
LOOK_S: Final = 0.05
AT_STOP_S: Final = 5.0
"""How long a stop waits for the file to be written anew."""

log = structlog.get_logger("sessions")


class AppendLog:
    """Has the file of the Valkey at `url` written anew."""

    def __init__(self, url: str) -> None:
        # its types do not know what `info` returns
        self._redis: Any = Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=1.0)
        self.rewritten = 0

    async def keep_short(self) -> None:
        """Writes the file anew each minute in which it grew, until cancelled. Valkey may be away."""
        pause_s = EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                pause_s = await self._round()
            except (RedisError, OSError):
                pause_s = EVERY_S  # whoever writes sessions has told the log that it is away

    async def _round(self) -> float:
        """Returns how long to wait for the next one, in seconds."""
        state = await self._state()
        if _grown(state):
            await self._begin()
        base_mb = int(state.get("aof_base_size", 0)) / 1e6
        return min(max(EVERY_S, PAUSE_S_PER_MB * base_mb), LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Writes the file anew a last time, then lets go of Valkey."""
        await self.write_anew()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def write_anew(self) -> bool:
        """Writes the file anew and waits until that is done; False when it is not within `AT_STOP_S`."""
        with contextlib.suppress(TimeoutError, RedisError, OSError):
            async with asyncio.timeout(AT_STOP_S):
                await self._idle()  # one that runs began before the last writes
                await self._begin()
                return (await self._idle()).get("aof_last_bgrewrite_status") == "ok"
        log.warning("append_log.not_rewritten", remedy="the next start does it")
        return False

    async def _idle(self) -> Mapping[str, Any]:
        """Waits until the file is not being written anew."""
        while _busy(state := await self._state()):  # noqa: ASYNC110  # Valkey tells nobody when it is done
            await asyncio.sleep(LOOK_S)
        return state

    async def _begin(self) -> None:
        with contextlib.suppress(RedisError):  # one is under way
            await self._redis.bgrewriteaof()
            self.rewritten += 1

    async def _state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = await self._redis.info("persistence")
        return state


def _busy(state: Mapping[str, Any]) -> bool:
    return bool(int(state.get("aof_rewrite_in_progress", 0)) or int(state.get("aof_rewrite_scheduled", 0)))


def _grown(state: Mapping[str, Any]) -> bool:
    """Whether something was written since the file was written anew."""
    return int(state.get("aof_current_size", 0)) > int(state.get("aof_base_size", 0)) and not _busy(state)
