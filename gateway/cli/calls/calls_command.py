"""`voicegate calls`: what the registry has, also while the gateway is down; Redis adds what it knows."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click

from consent.bare_url import bare
from gateway.cli.calls import why_command
from gateway.cli.calls.call_course import course, head
from gateway.cli.calls.call_stores import CallStores
from gateway.cli.calls.call_table import line, refused_line, tame, write_csv, write_refused_csv
from gateway.cli.calls.call_verdict import in_short
from gateway.cli.calls.moment import Moment
from gateway.cli.house.house_client import HouseClient, is_elsewhere
from gateway.config.settings import Settings, load
from gateway.errors import VoicegateError
from gateway.store.call_cause import judged
from gateway.store.call_search import SEPARATORS, CallSearch
from gateway.store.known_call import STATES, KnownCall, whole_call
from gateway.store.refused_calls import RefusedCall

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
            self.fail(f"{value!r} is not part of a number or of a URI", param, ctx)
        return text


@click.group(invoke_without_command=True)
@click.option("--caller", type=PartOfNumber(), help="Part of who called: 30 123, or bob@")
@click.option("--called", type=PartOfNumber(), help="Part of who was called.")
@click.option("--since", type=Moment(), help='Began since: 2h, 3d, 2026-03-02, "2026-03-02 18:30"')
@click.option("--until", type=Moment(ends=True), help="Began until; a date is meant with its whole day.")
@click.option("--failed", is_flag=True, help="Only calls that ended by a failure.")
@click.option("--refused", is_flag=True, help="Calls that were not taken, and why; those alike in one line.")
@click.option("--count", type=click.IntRange(min=1), help=f"The newest so many. [{LISTED}; with --csv all]")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header (RFC 4180); times in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--follow", is_flag=True, help="What happens in calls, as it happens; with --json a line each.")
@click.pass_context
def calls(
    ctx: click.Context,
    caller: str | None,
    called: str | None,
    since: float | None,
    until: float | None,
    failed: bool,
    refused: bool,
    count: int | None,
    as_csv: bool,
    as_json: bool,
    follow: bool,
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
    if failed and refused:
        raise click.UsageError("give --failed or --refused: a call that was refused never began")
    settings = load()
    if follow:
        if as_csv or failed or refused or count or caller or called or since or until:
            raise click.UsageError("--follow goes with --json alone")
        _follow(settings, as_json=as_json)
        return
    search = CallSearch(caller=caller or "", called=called or "", since=since, until=until, failed=failed)
    if is_elsewhere(ctx):
        if refused or as_csv:
            raise click.UsageError(
                "--refused and --csv are for calls of this machine's gateway, not for --url"
            )
        _list_elsewhere(ctx, search, count or LISTED, as_json=as_json)
    elif refused:
        _list_refused(settings, search, count, as_csv=as_csv, as_json=as_json)
    elif as_csv:
        with CallStores(settings) as stores:
            write_csv(stores.known(search, count), sys.stdout)
            stores.warn()
    else:
        _list(settings, search, count or LISTED, as_json=as_json)


def _follow(settings: Settings, *, as_json: bool) -> None:
    from gateway.cli.calls.call_follow import followed, told_line

    for event in followed(settings):
        click.echo(json.dumps(event) if as_json else told_line(event))


def _list(settings: Settings, search: CallSearch, count: int, *, as_json: bool) -> None:
    with CallStores(settings) as stores:
        listed = list(stores.known(search, count + 1))
        stores.warn()
    more, listed = len(listed) > count, listed[:count]
    if as_json:
        states = {state: [call.to_json() for call in listed if call.state == state] for state in STATES}
        click.echo(json.dumps({**states, "more": more}))
        return
    for call in listed:
        click.echo(line(call))
    _say_of_the_list(settings, search, len(listed), more=more)


def _list_elsewhere(ctx: click.Context, search: CallSearch, count: int, *, as_json: bool) -> None:
    asked = {name: getattr(search, name) for name in ("caller", "called", "since", "until", "failed")}
    with HouseClient.of(ctx, load()) as house:
        found = list(house.calls(count + 1, **asked))
    listed, more = found[:count], len(found) > count
    if as_json:
        click.echo(json.dumps({"calls": listed, "more": more}))
        return
    for told in listed:
        click.echo(line(KnownCall.told(told)))
    if not listed:
        click.echo("no calls yet" if search == CallSearch() else "no such call")
    if more:
        click.echo(f"these are the newest {count}; --count shows more", err=True)


def _list_refused(
    settings: Settings, search: CallSearch, count: int | None, *, as_csv: bool, as_json: bool
) -> None:
    shown = count if as_csv else (count or LISTED)
    with CallStores(settings) as stores:
        listed = stores.refused(search, None if shown is None else shown + 1)
    more, listed = shown is not None and len(listed) > shown, listed[:shown]
    if as_csv:
        write_refused_csv(listed, sys.stdout)
    elif as_json:
        click.echo(json.dumps({"refused": [call.to_json() for call in listed], "more": more}))
    else:
        for call in listed:
            click.echo(refused_line(call))
        _say_of_the_list(settings, search, len(listed), more=more)


def _say_of_the_list(settings: Settings, search: CallSearch, shown: int, *, more: bool) -> None:
    if not shown:
        which = "no calls yet" if search == CallSearch() else "no such call"
        click.echo(f"{which} in {place(settings)}")
    if more:
        click.echo(f"these are the newest {shown}; --count shows more", err=True)


@calls.command()
@click.argument("call_id")
@click.pass_context
def end(ctx: click.Context, call_id: str) -> None:
    """Hang a running call up."""
    with HouseClient.of(ctx, load()) as house:
        house.end_call(call_id)


@calls.command()
@click.argument("call_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def show(ctx: click.Context, call_id: str, as_json: bool) -> None:
    """Show one call: who, which route and voice, how it ended, and what happened, in order of time."""
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, load()) as house:
            told = house.call(call_id)
        if as_json:
            click.echo(json.dumps(told))
            return
        if "refused" in told:
            click.echo(refused_line(RefusedCall(**told["refused"])))
            return
        for text in (*head(call_id, KnownCall.told(told), told), *course(told), f"  {in_short(told)}"):
            click.echo(tame(text))
        return
    settings = load()
    with CallStores(settings) as stores:
        row, registered = stores.row(call_id), stores.table(call_id)
        record, headers = stores.record(call_id), stores.headers(call_id)
        lives = row is not None and row.ended_at is None and call_id in stores.heads([call_id])[0]
        refused = stores.refused(CallSearch(), call_id=call_id) if row is None and record is None else []
    if refused:
        for call in refused:
            said = {"refused": call.to_json()}
            click.echo(json.dumps({**said, **judged(said)}) if as_json else refused_line(call))
        return
    if record is None and row is None:
        why = f"; {stores.silence}" if stores.silence else ""
        latest = "`voicegate calls` lists the latest"
        raise VoicegateError(tame(f"no call {call_id} in {place(settings)}; {latest}{why}"))
    if as_json:
        table = record or {"call_id": call_id}
        more = {"headers": headers} if headers else {}
        whole = whole_call(row, record) or {}
        click.echo(json.dumps({**more, **table, **judged(whole), "registry": registered}))
        return
    known = None if row is None else KnownCall.of(row, record or {}, lives=lives)
    for text in (*head(call_id, known, {"headers": headers, **(record or {})}), *course(record or {})):
        click.echo(tame(text))
    if record is not None:
        click.echo(f"  {tame(in_short(record))}")
    else:
        click.echo(f"  {tame(stores.silence or 'Redis has forgotten what happened in it')}")


calls.add_command(why_command.why)


def place(settings: Settings) -> str:
    """Where the calls are looked for, as an operator knows it."""
    if settings.sql_url is not None:
        return f"the database {bare(settings.sql_url)} (VOICEGATE_SQL_URL)"
    return f"the data directory {settings.data_dir} (VOICEGATE_DATA_DIR)"
