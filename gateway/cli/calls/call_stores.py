"""What a gateway's two stores know of its calls, opened to read: the registry, and Redis if it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar

import click
from redis.exceptions import RedisError

from consent.bare_url import bare
from gateway.cli.calls.call_table import tame
from gateway.config.paths import redis_url_for
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.run import redis_server
from gateway.store.call_grants import CallGrants
from gateway.store.call_headers import CallHeaders
from gateway.store.call_search import CallSearch
from gateway.store.known_call import KnownCall, whole_call
from gateway.store.refused_calls import REFUSED, RefusedCall, RefusedCalls, named
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions

Result = TypeVar("Result")


class CallStores:
    """Both stores, opened to read. Redis may be away: then `silence` says so."""

    def __init__(self, settings: Settings) -> None:
        """Raises `StartError` when the database cannot be read."""
        self._settings = settings
        self._registry = Registry.read(settings.sql)
        self._unsure = False
        self.silence = ""
        """Why Redis says nothing; empty when it answered, or was not asked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._registry is not None:
            self._registry.close()

    def known(self, search: CallSearch, count: int | None) -> Iterator[KnownCall]:
        """The calls found, `count` at most: first those that the registry knows no end of.

        Without a count there may be very many: then Redis is asked about the first only.
        """
        if self._registry is None:
            return
        begun = list(self._registry.find(replace(search, ended=False), count))
        ended: Iterable[CallRow] = self._registry.find(
            replace(search, ended=True), None if count is None else count - len(begun)
        )
        if count is not None:
            ended = list(ended)
        living, facts = self.heads([row.call_id for row in (*begun, *(ended if count is not None else ()))])
        for row in begun:
            call = KnownCall.of(row, facts.get(row.call_id, {}), lives=row.call_id in living)
            self._unsure |= call.state == "unknown"
            yield call
        for row in ended:
            yield KnownCall.of(row, facts.get(row.call_id, {}), lives=False)

    def refused(
        self, search: CallSearch, count: int | None = None, call_id: str | None = None
    ) -> list[RefusedCall]:
        """The calls that were not taken, the newest first; `call_id` is ours, or the caller's SIP Call-ID."""
        if self._registry is None:
            return []
        conditions = search.conditions(REFUSED, self._registry.backend)
        if call_id is not None:
            conditions += (named(call_id),)
        return RefusedCalls(self._registry).listed(*conditions, count=count)

    def row(self, call_id: str) -> CallRow | None:
        """The registry's row."""
        return None if self._registry is None else self._registry.get(call_id)

    def table(self, call_id: str) -> dict[str, Any] | None:
        """The registry's row and the call's grants, as `consent.proof.evidence` reads them."""
        return None if self._registry is None else registry_table(self._registry, self._registry.get(call_id))

    def headers(self, call_id: str) -> dict[str, str]:
        """What a trusted peer said of the call, as the registry has it."""
        return {} if self._registry is None else CallHeaders(self._registry).of(call_id)

    def heads(self, call_ids: list[str]) -> tuple[set[str], Mapping[str, dict[str, Any]]]:
        """The calls that live by what Redis says now, and what it says of those asked for."""

        async def read(sessions: Sessions) -> tuple[set[str], Mapping[str, dict[str, Any]]]:
            return await sessions.living(), await sessions.heads(call_ids)

        return (self._asked(read) if call_ids else None) or (set(), {})

    def record(self, call_id: str) -> dict[str, Any] | None:
        """What Redis knows of a call, with its turns and events.

        While the embedded one does not run, a copy of what it keeps is asked.
        """
        record = self._asked(lambda sessions: sessions.show(call_id))
        if record is not None or not self.silence or self._settings.redis_url is not None:
            return record
        with (
            contextlib.suppress(StartError, RedisError, OSError),
            redis_server.of_a_copy(self._settings.data_dir / "redis") as url,
        ):
            return asyncio.run(_reading(url, lambda sessions: sessions.show(call_id)))
        return None

    def whole(self, call_id: str) -> dict[str, Any] | None:
        """One call as all stores have it (`whole_call`); None when none of them knows it."""
        row, record = self.row(call_id), self.record(call_id)
        unknown = row is None and record is None
        refused = self.refused(CallSearch(), count=1, call_id=call_id) if unknown else []
        return whole_call(row, record, refused[0] if refused else None, self.headers(call_id))

    def warn(self) -> None:
        """Says on stderr why calls are shown as unknown, if Redis could have told."""
        if self._unsure and self.silence:
            click.echo(
                tame(f"which of the calls without an end still live is unknown: {self.silence}"), err=True
            )

    def _asked(self, read: Callable[[Sessions], Awaitable[Result]]) -> Result | None:
        try:
            return asyncio.run(
                _reading(redis_url_for(self._settings, runtime_for(self._settings.data_dir)), read)
            )
        except (RedisError, OSError, StartError) as error:
            remedy = (
                "is the gateway running?" if self._settings.redis_url is None else "see VOICEGATE_REDIS_URL"
            )
            self.silence = f"Redis does not answer ({bare(str(error))}); {remedy}"
            return None


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
