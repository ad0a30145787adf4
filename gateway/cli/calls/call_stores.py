"""What a gateway's two stores know of its calls, opened to read: the registry, and Redis if it answers.

They are read as the front reads them for its API, so that both tell the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, TypeVar

from redis.exceptions import RedisError

from consent.bare_url import bare
from gateway.cli.calls.call_table import tame
from gateway.cli.house.paged_list import Entries, paged
from gateway.config.paths import redis_url_for
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from gateway.errors import StartError, VoicegateError
from gateway.front.calls.call_list import CallList, CallsWanted, ListedCalls
from gateway.front.calls.refused_list import RefusalList
from gateway.run import redis_server
from gateway.store.call_grants import CallGrants
from gateway.store.call_order import Sort
from gateway.store.call_search import CallSearch
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions

Result = TypeVar("Result")
AT_ONCE: Final = 500
"""Calls that are read together."""


@dataclass(frozen=True, slots=True)
class CallTrails:
    """A call's messages and its lines of the log, as `Sessions.ladder` and `Sessions.log` have them."""

    ladder: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)


class CallStores:
    """Both stores, opened to read. Redis may be away: then `silence` says so."""

    def __init__(self, settings: Settings) -> None:
        """Raises `StartError` when the database cannot be read."""
        self._settings = settings
        self._registry = Registry.read(settings.sql)
        self._loop = asyncio.Runner()
        self._sessions: Sessions | None = None
        self.silence = ""
        """Why Redis says nothing; empty when it answered, or was not asked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sessions is not None:
            self._loop.run(self._sessions.close())
        self._loop.close()
        if self._registry is not None:
            self._registry.close()

    @property
    def place(self) -> str:
        """Where the calls are looked for, as an operator knows it."""
        if self._settings.sql_url is not None:
            return f"the database {bare(self._settings.sql_url)} (VOICEGATE_SQL_URL)"
        return f"the data directory {self._settings.data_dir} (VOICEGATE_DATA_DIR)"

    def calls(self, search: CallSearch, sort: Sort, count: int | None) -> Iterator[dict[str, Any]]:
        """The calls found as JSON, in that order, `count` at most; None: all."""
        registry = self._registry
        if registry is None:
            return

        def page(most: int, cursor: str | None) -> tuple[Entries, str | None]:
            wanted = CallsWanted(search=search, sort=sort, count=most, cursor=cursor)
            read = self._asked(partial(_page, registry, wanted))
            if read.silence is not None:
                self._away()
            return read.calls, read.following

        yield from paged(page, count, AT_ONCE)

    def refused(self, search: CallSearch, count: int | None) -> Iterator[dict[str, Any]]:
        """The calls that were not taken as JSON, the newest first, `count` at most; None: all."""
        if self._registry is None:
            return
        refusals = RefusalList(self._registry)

        def page(most: int, cursor: str | None) -> tuple[Entries, str | None]:
            read = refusals.page(search, most, cursor)
            return [call.to_json() for call in read.refused], read.following

        yield from paged(page, count, AT_ONCE)

    def call(self, call_id: str) -> dict[str, Any]:
        """One call as JSON, by its id or its caller's SIP Call-ID. Raises `VoicegateError` for none."""
        told = self._one(call_id)
        if told is None:
            why = f"; {self.silence}" if self.silence else ""
            latest = "`voicegate calls` lists the latest"
            raise VoicegateError(tame(f"no call {call_id} in {self.place}; {latest}{why}"))
        return told

    def table(self, call_id: str) -> dict[str, Any] | None:
        """The registry's row and the call's grants, as `consent.proof.evidence` reads them."""
        return None if self._registry is None else registry_table(self._registry, self._registry.get(call_id))

    def trails(self, call_id: str) -> CallTrails:
        """What went over the wire and into the log, as long as Redis has it."""

        async def both(sessions: Sessions | None) -> CallTrails | None:
            if sessions is None:
                return None
            return CallTrails(await sessions.ladder(call_id), await sessions.log(call_id))

        found: CallTrails | None = None
        with contextlib.suppress(RedisError, OSError):
            found = self._asked(both)
        if found is None:
            self._away()
            found = self._copied(both)
        return found or CallTrails()

    def _one(self, call_id: str) -> dict[str, Any] | None:
        registry = self._registry
        if registry is None:
            return None

        def one(sessions: Sessions | None) -> Awaitable[dict[str, Any] | None]:
            return CallList(registry, sessions).one(call_id)

        try:
            told = self._asked(one)
            if told is None or told.get("silence") is None:
                return told
        except (RedisError, OSError):
            told = None
        self._away()
        return self._copied(one) or told

    def _copied(self, read: Callable[[Sessions], Awaitable[Result | None]]) -> Result | None:
        """What `read` finds in a copy of what the embedded Redis keeps, which does not run."""
        if self._settings.redis_url is None:
            with (
                contextlib.suppress(StartError, RedisError, OSError),
                redis_server.of_a_copy(self._settings.data_dir / "redis") as url,
            ):
                return self._loop.run(_reading(url, read))
        return None

    def _asked(self, read: Callable[[Sessions | None], Awaitable[Result]]) -> Result:
        """What `read` finds; it gets None once Redis was found silent."""

        async def asked() -> Result:
            if self._sessions is None and not self.silence:
                try:
                    url = redis_url_for(self._settings, runtime_for(self._settings.data_dir))
                    self._sessions = await Sessions.open(url)
                except StartError as error:
                    self._away(f" ({error})")
            return await read(None if self.silence else self._sessions)

        return self._loop.run(asked())

    def _away(self, why: str = "") -> None:
        own = self._settings.redis_url is None
        remedy = "is the gateway running?" if own else "see VOICEGATE_REDIS_URL"
        self.silence = self.silence or f"Redis does not answer{bare(why)}; {remedy}"


def _page(
    registry: Registry, wanted: CallsWanted, sessions: Sessions | None
) -> Coroutine[Any, Any, ListedCalls]:
    return CallList(registry, sessions).page(wanted)


def registry_table(registry: Registry, row: CallRow | None) -> dict[str, Any] | None:
    """A row as JSON with its grants, in the order in which they were given."""
    if row is None:
        return None
    grants = CallGrants(registry).of_call(row.call_id)
    return {**row.to_json(), "grants": [grant.to_json() for grant in grants]}


async def _reading(url: str, read: Callable[[Sessions], Awaitable[Result]]) -> Result:
    sessions = await Sessions.open(url)
    try:
        return await read(sessions)
    finally:
        await sessions.close()
