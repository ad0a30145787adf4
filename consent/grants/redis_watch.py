"""Whether a process reaches its Redis, said once when it goes and once when it is back.

Several parts of a process talk to the same Redis, and each tries again by itself. They tell one `RedisWatch`,
so that an operator reads one line of each kind from each process, however long Redis is away.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import structlog

BEGINS_WITHIN_S: Final = 3.0
"""A Redis that begins beside this process may not be there at once; it is missed after this."""
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 2.0

log = structlog.get_logger("redis")


class RedisWatch:
    """One process's view of the Redis at `url`."""

    def __init__(self, url: str) -> None:
        self.place = redis_place(url)
        self._began = time.monotonic()
        self._seen = False
        self._away: set[str] = set()
        """The parts that do not reach it."""
        self._since: float | None = None
        """When the line was written that it is away."""

    def failed(self, part: str, error: BaseException) -> None:
        """`part` of this process did not reach it, now or still. Call it at every try."""
        self._away.add(part)
        if self._since is not None or (not self._seen and time.monotonic() - self._began < BEGINS_WITHIN_S):
            return
        self._since = time.monotonic()
        log.warning("redis.away", redis=self.place, error=f"{type(error).__name__}: {error}")

    def reached(self, part: str) -> None:
        """`part` of this process reaches it. It is back when all parts reach it that did not."""
        self._seen = True
        self._away.discard(part)
        if self._since is not None and not self._away:
            away_s = round(time.monotonic() - self._since, 1)
            self._since = None
            log.info("redis.back", redis=self.place, away_s=away_s)


class Backoff:
    """Pauses between tries: from `FIRST_WAIT_S`, each twice the one before, to `LONGEST_WAIT_S`."""

    def __init__(self) -> None:
        self._next_s = FIRST_WAIT_S

    def pause_s(self) -> float:
        """Seconds to wait before the next try."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_WAIT_S)
        return pause_s

    def reset(self) -> None:
        """It worked: the next pause is the first again."""
        self._next_s = FIRST_WAIT_S


def redis_place(url: str) -> str:
    """The address of a Redis without login and options: `redis://host:port/db` or `unix:///path`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "VOICEGATE_REDIS_URL"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"
