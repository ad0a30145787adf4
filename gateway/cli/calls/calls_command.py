"""`voicegate calls`: what the registry has, also while the gateway is down; Redis adds what it knows."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from gateway.cli.calls import why_command
from gateway.cli.calls.call_course import course, head
from gateway.cli.calls.call_source import CallSource, call_source
from gateway.cli.calls.call_stores import CallStores
from gateway.cli.calls.call_table import line, refused_line, tame, write_csv, write_refused_csv
from gateway.cli.calls.call_verdict import in_short
from gateway.cli.calls.moment import Moment
from gateway.cli.calls.sip_ladder import ladder, log_lines
from gateway.cli.house.house_client import HouseClient
from gateway.config.settings import load
from gateway.errors import VoicegateError
from gateway.store.call_order import SORTS, Sort
from gateway.store.call_search import SEPARATORS, CallSearch
from gateway.store.known_call import KnownCall

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
@click.option("--id", "call_id", type=PartOfNumber(), help="How its id begins, or its caller's SIP Call-ID.")
@click.option("--caller", type=PartOfNumber(), help="Part of who called: 30 123, or bob@")
@click.option("--called", type=PartOfNumber(), help="Part of who was called.")
@click.option("--since", type=Moment(), help='Began since: 2h, 3d, 2026-03-02, "2026-03-02 18:30"')
@click.option("--until", type=Moment(ends=True), help="Began until; a date is meant with its whole day.")
@click.option(
    "--state", type=click.Choice(["live", "ended"]), help="Only calls that have not ended, or have."
)
@click.option("--route", help="The route that took it.")
@click.option("--voice", help="The voice that it was given.")
@click.option("--how", help='How the text begins that says how it ended: "hung up", "failed: its line died"')
@click.option("--failed", is_flag=True, help="Only calls that ended by a failure.")
@click.option("--poor", is_flag=True, help="Only calls that sounded poor, one way or the other.")
@click.option("--at-least", "least_s", type=click.FloatRange(0), help="It lasted so many seconds or more.")
@click.option("--at-most", "most_s", type=click.FloatRange(0), help="It lasted so many seconds or less.")
@click.option(
    "--sort", type=click.Choice([one for one in SORTS if one]), default=None,
    help="By what; -began: the newest first. [what runs, then the others, the newest first]",
)  # fmt: skip
@click.option("--refused", is_flag=True, help="Calls that were not taken, and why; those alike in one line.")
@click.option("--count", type=click.IntRange(min=1), help=f"The first so many. [{LISTED}; with --csv all]")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header (RFC 4180); times in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--follow", is_flag=True, help="What happens in calls, as it happens; with --json a line each.")
@click.pass_context
def calls(
    ctx: click.Context,
    /,
    *,
    sort: Sort | None,
    refused: bool,
    count: int | None,
    as_csv: bool,
    as_json: bool,
    follow: bool,
    **asked: Any,
) -> None:
    """List calls: what runs, then the others, the newest first; also while the gateway is down.

    A call is shown as living when Redis says so, and as unknown when it has no end and nobody says that it
    lives.
    """
    if ctx.invoked_subcommand is not None:
        return
    search = _search(**asked)
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    if follow:
        if as_csv or refused or count or sort or search != CallSearch():
            raise click.UsageError("--follow goes with --json alone")
        _follow(ctx, as_json=as_json)
        return
    if refused and (sort or search != search.of_refused()):
        given = "--id, --caller, --called, --since, --until and --count"
        raise click.UsageError(f"--refused goes with {given}: a call that was refused never began")
    with call_source(ctx) as source:
        shown = count if as_csv else (count or LISTED)
        asked_for = None if shown is None else shown + 1
        found = source.refused(search, asked_for) if refused else source.calls(search, sort or "", asked_for)
        unsure: list[str] = []
        found = _noting(found, unsure)
        if as_csv:
            (write_refused_csv if refused else write_csv)(itertools.islice(found, shown), sys.stdout)
            _warn(source, unsure)
            return
        listed = list(found)
        more, listed = shown is not None and len(listed) > shown, listed[:shown]
        if as_json:
            click.echo(json.dumps({"refused" if refused else "calls": listed, "more": more}))
        else:
            for call in listed:
                click.echo(refused_line(call) if refused else line(KnownCall.told(call)))
            if not listed:
                which = "no calls yet" if search == CallSearch() else "no such call"
                click.echo(tame(f"{which} in {source.place}"))
            if more:
                click.echo(f"these are the first {len(listed)}; --count shows more", err=True)
        _warn(source, unsure)


def _search(
    *, call_id: str | None, caller: str | None, called: str | None, since: float | None, until: float | None,
    state: str | None, route: str | None, voice: str | None, how: str | None, failed: bool, poor: bool,
    least_s: float | None, most_s: float | None,
) -> CallSearch:  # fmt: skip
    """The options. Raises `click.UsageError` for two that no call meets."""
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: no call began between them")
    if least_s is not None and most_s is not None and least_s > most_s:
        raise click.UsageError("--at-least is more than --at-most: no call lasts so long")
    return CallSearch(
        id=call_id or "", caller=caller or "", called=called or "", since=since, until=until,
        route=route or "", voice=voice or "", how=how or "", failed=failed, poor=poor, least_s=least_s,
        most_s=most_s, ended=None if state is None else state == "ended",
    )  # fmt: skip


def _follow(ctx: click.Context, *, as_json: bool) -> None:
    from gateway.cli.calls.call_follow import followed, told_line

    with HouseClient.of(ctx, load()) as house:
        for event in followed(house):
            click.echo(json.dumps(event) if as_json else told_line(event))


def _noting(found: Iterable[dict[str, Any]], unsure: list[str]) -> Iterator[dict[str, Any]]:
    """`found`; the ids of calls of which nobody knows whether they live are put in `unsure`."""
    for call in found:
        if call.get("state") == "unknown":
            unsure.append(call["call_id"])
        yield call


def _warn(source: CallSource, unsure: list[str]) -> None:
    """Says on stderr why calls are shown as unknown, if Redis could have told."""
    if unsure and source.silence:
        click.echo(
            tame(f"which of the calls without an end still live is unknown: {source.silence}"), err=True
        )


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
@click.option("--sip", is_flag=True, help="Its SIP messages instead (of a browser, its HTTP), in order.")
@click.option("--whole", is_flag=True, help="With --sip: all that they say, without keys and passwords.")
@click.option("--log", is_flag=True, help="Its lines of the log instead, of all processes.")
@click.pass_context
def show(ctx: click.Context, call_id: str, as_json: bool, sip: bool, whole: bool, log: bool) -> None:
    """Show one call: who, which route and voice, how it ended, and what happened, in order of time.

    ID may be the caller's SIP Call-ID, too.
    """
    if whole and not sip:
        raise click.UsageError("--whole goes with --sip")
    with call_source(ctx) as source:
        told = source.call(call_id)
        if sip or log:
            _show_trails(source, told["call_id"], sip=sip, whole=whole, log=log, as_json=as_json)
            return
        if as_json:
            kept = {"registry": source.table(told["call_id"])} if isinstance(source, CallStores) else {}
            click.echo(json.dumps({**told, **kept}))
            return
    if "refused" in told:
        click.echo(refused_line(told["refused"]))
        return
    known = KnownCall.told(told) if "payload" in told else None
    for text in (*head(told["call_id"], known, told), *course(told)):
        click.echo(tame(text))
    forgotten = source.silence or told.get("silence") or "Redis has forgotten what happened in it"
    click.echo(f"  {tame(in_short(told) if 'events' in told else forgotten)}")


def _show_trails(
    source: CallSource, call_id: str, *, sip: bool, whole: bool, log: bool, as_json: bool
) -> None:
    """A call's messages, its lines of the log, or both."""
    trails = source.trails(call_id)
    wanted = {
        name: kept for name, asked, kept in (("sip", sip, trails.ladder), ("log", log, trails.log)) if asked
    }
    if not any(wanted.values()):
        what = " or ".join({"sip": "messages", "log": "lines of the log"}[name] for name in wanted)
        why = source.silence or "Redis has forgotten them, or never had any"
        raise VoicegateError(tame(f"no {what} of the call {call_id} in {source.place}; {why}"))
    if as_json:
        click.echo(json.dumps({"call_id": call_id, **wanted}))
        return
    for text in (*ladder(wanted.get("sip", ()), whole=whole), *log_lines(wanted.get("log", ()))):
        click.echo(tame(text))


calls.add_command(why_command.why)
