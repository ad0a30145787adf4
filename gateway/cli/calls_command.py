"""`voicegate calls`: what the registry has, also while the gateway is down; Redis adds what it knows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Self, TypeVar

import click
from redis.exceptions import RedisError

from consent.bare_url import bare
from gateway.cli.call_course import course, head
from gateway.cli.call_table import STATES, KnownCall, line, tame, write_csv
from gateway.cli.moment import Moment
from gateway.config.paths import redis_url_for
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings, load
from gateway.errors import StartError, VoicegateError
from gateway.store.call_search import SEPARATORS, CallSearch
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions

Result = TypeVar("Result")

LISTED: Final = 20


class PartOfNumber(click.ParamType[str]):
    """A part of a number or of a SIP URI."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is. Fails for one that would find every call, or that no call can have."""
        text = str(value).strip()
        if not text.strip(SEPARATORS):
            self.fail(
                f"{value!r} holds nothing to look for; write a part of a number or of a URI", param, ctx
            )
        if not text.isprintable():
            self.fail(f"{value!r} is no part of a number or of a URI", param, ctx)
        return text


@click.group(invoke_without_command=True)
@click.option("--caller", type=PartOfNumber(), help="Part of who called: 30 123, or bob@")
@click.option("--called", type=PartOfNumber(), help="Part of who was called.")
@click.option("--since", type=Moment(), help='Began since: 2h, 3d, 2026-03-02, "2026-03-02 18:30"')
@click.option("--until", type=Moment(ends=True), help="Began until; a date is meant with its whole day.")
@click.option("--failed", is_flag=True, help="Only calls that ended by a failure.")
@click.option("--count", type=click.IntRange(min=1), help=f"The newest so many. [{LISTED}; with --csv all]")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header (RFC 4180); times in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def calls(
    ctx: click.Context,
    caller: str | None,
    called: str | None,
    since: float | None,
    until: float | None,
    failed: bool,
    count: int | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List calls from the registry, the newest first, also while the gateway is down.

    A call is shown as living when Redis says so, and as unknown when it has no end and nobody says that it
    lives.
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: no call began between them")
    settings = load()
    search = CallSearch(caller=caller or "", called=called or "", since=since, until=until, failed=failed)
    if as_csv:
        with _Stores(settings) as stores:
            write_csv(stores.known(search, count), sys.stdout)
            stores.warn()
        return
    with _Stores(settings) as stores:
        listed = list(stores.known(search, (count or LISTED) + 1))
        stores.warn()
    more = len(listed) > (count or LISTED)
    listed = listed[: count or LISTED]
    if as_json:
        states = {state: [call.to_json() for call in listed if call.state == state] for state in STATES}
        click.echo(json.dumps({**states, "more": more}))
        return
    for call in listed:
        click.echo(line(call))
    if not listed:
        which = "no calls yet" if search == CallSearch() else "no such call"
        click.echo(f"{which} in {place(settings)}")
    if more:
        click.echo(f"these are the newest {len(listed)}; --count shows more", err=True)


@calls.command()
@click.argument("call_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def show(call_id: str, as_json: bool) -> None:
    """Show one call: who, which route and voice, how it ended, and what happened, in order of time."""
    settings = load()
    with _Stores(settings) as stores:
        row = stores.row(call_id)
        record = stores.record(call_id)
        lives = row is not None and row.ended_at is None and call_id in stores.heads([call_id])[0]
    if record is None and row is None:
        why = f"; {stores.silence}" if stores.silence else ""
        latest = "`voicegate calls` lists the latest"
        raise VoicegateError(tame(f"no call {call_id} in {place(settings)}; {latest}{why}"))
    if as_json:
        table = record or {"call_id": call_id}
        click.echo(json.dumps({**table, "registry": row.to_json() if row else None}))
        return
    known = None if row is None else KnownCall.of(row, record or {}, lives=lives)
    for text in (*head(call_id, known, record or {}), *course(record or {})):
        click.echo(tame(text))
    if record is None:
        click.echo(f"  {tame(stores.silence or 'Redis has forgotten what happened in it')}")


class _Stores:
    """Both stores, opened to read. Redis may be away: then `silence` says so."""

    def __init__(self, settings: Settings) -> None:
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

    def row(self, call_id: str) -> CallRow | None:
        """The registry's row."""
        return None if self._registry is None else self._registry.get(call_id)

    def heads(self, call_ids: list[str]) -> tuple[set[str], Mapping[str, dict[str, Any]]]:
        """The calls that live by what Redis says now, and what it says of those asked for."""

        async def read(sessions: Sessions) -> tuple[set[str], Mapping[str, dict[str, Any]]]:
            return await sessions.living(), await sessions.heads(call_ids)

        return (self._asked(read) if call_ids else None) or (set(), {})

    def record(self, call_id: str) -> dict[str, Any] | None:
        """What Redis knows of a call, with its turns and events."""
        return self._asked(lambda sessions: sessions.show(call_id))

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


async def _reading(url: str, read: Callable[[Sessions], Awaitable[Result]]) -> Result:
    sessions = await Sessions.open(url)
    try:
        return await read(sessions)
    finally:
        await sessions.close()


def place(settings: Settings) -> str:
    """Where the calls are looked for, as an operator knows it."""
    if settings.sql_url is not None:
        return f"the database {bare(settings.sql_url)} (VOICEGATE_SQL_URL)"
    return f"the data directory {settings.data_dir} (VOICEGATE_DATA_DIR)"
