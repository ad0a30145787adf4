"""`voicegate trunk`: the trunks by which calls leave."""

from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import click

from gateway.cli.caller.trunk_call import named_trunk, said_of, trunk_trust
from gateway.cli.calls.call_table import tame
from gateway.cli.house.house_client import HouseClient, is_elsewhere
from gateway.cli.house.house_state import trunk_states
from gateway.config.certificate import asking
from gateway.config.paths import trunks_path
from gateway.config.settings import load
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_trial import TrunkTrial
from gateway.ipc.front_messages import TrunkOut, TrunkState

ELSEWHERE: Final = ("list", "out", "back")


@click.group()
@click.pass_context
def trunk(ctx: click.Context) -> None:
    """Trunks: carriers and telephone exchanges by which calls leave; the data directory's trunks.toml."""
    if is_elsewhere(ctx) and ctx.invoked_subcommand not in ELSEWHERE:
        raise click.UsageError(
            f"trunk {ctx.invoked_subcommand} reads this machine's trunks.toml, not --url's"
        )


@trunk.command("list")
@click.pass_context
def list_trunks(ctx: click.Context) -> None:
    """List the trunks, and how the gateway that runs finds them."""
    settings = load()
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, settings) as house:
            for told in house.trunks():
                click.echo(tame(_line(_state(told), ", ".join(told["addresses"]) or "no address")))
        return
    found = read_trunks(trunks_path(settings))
    states = {state.name: state for state in trunk_states(settings)}
    if not found:
        click.echo(f"no trunks; {trunks_path(settings)} has [[trunk]] tables")
    for one in found:
        where = f"{', '.join(map(str, one.hosts))} ({one.transport})"
        state = states.get(one.name)
        click.echo(
            f"{one.name}  {where}  not known: no gateway runs" if state is None else tame(_line(state, where))
        )


def _state(told: Mapping[str, Any]) -> TrunkState:
    """As the API tells it."""
    out = told["out"]
    return TrunkState(
        str(told["name"]),
        told["why"],
        told["registered"],
        calls=int(told["calls"]),
        calls_at_most=int(told["calls_at_most"]),
        out=None if out is None else TrunkOut(float(out["since"]), str(out["by"]), str(out["why"])),
    )


def _line(state: TrunkState, where: str) -> str:
    how = "up" if state.why is None else f"down: {state.why}"
    calls = f"{state.calls} of {state.calls_at_most} calls"
    return f"{state.name}  {where}  {how}, {calls}{_service(state)}"


def _service(state: TrunkState) -> str:
    if state.out is None:
        return ""
    since = datetime.datetime.fromtimestamp(state.out.since, datetime.UTC)
    why = f": {state.out.why}" if state.out.why else ""
    return f", out of service since {since:%Y-%m-%d %H:%M} UTC by {state.out.by}{why}"


@trunk.command("out")
@click.argument("name")
@click.option("--why", default="", help="What others should know of it.")
@click.pass_context
def take_out(ctx: click.Context, name: str, why: str) -> None:
    """Take the trunk NAME out of service: no new call comes or goes by it; those that are up go on.

    It stays out when the gateway is started anew, until `voicegate trunk back NAME`.
    """
    with HouseClient.of(ctx, load()) as house:
        house.put_trunk(name, in_service=False, why=why)
    click.echo(f"{name} is out of service")


@trunk.command("back")
@click.argument("name")
@click.pass_context
def put_back(ctx: click.Context, name: str) -> None:
    """Put the trunk NAME back into service."""
    with HouseClient.of(ctx, load()) as house:
        house.put_trunk(name, in_service=True)
    click.echo(f"{name} is in service")


@trunk.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the trunk NAME: what may leave by it, and how it is. No password is shown."""
    settings = load()
    one = named_trunk(settings, name)
    registers = f"registers for {one.expires_s} s" if one.register else "does not register"
    rows = [
        ("hosts", ", ".join(map(str, one.hosts))),
        ("transport", f"{one.transport}, sound encrypted: {one.sound_rule}"),
        ("user", f"{one.user or 'none: known by address'}; {registers}"),
        ("password", "set" if one.password else "none"),
        ("comes from", ", ".join(one.numbers) or "the user's name"),
        ("may call", ", ".join(one.prefixes) or "nobody: prefixes is empty"),
        ("at most", f"{one.calls} calls at once, {one.per_minute} a minute"),
        ("known by", _known_by(one)),
        *_certificates(one),
    ]
    for state in trunk_states(settings):
        if state.name == name:
            now = "up" if state.why is None else f"down: {state.why}"
            rows.append(("now", tame(now + _service(state))))
            rows += [("address", f"{way}  {why or 'answers'}") for way, why in state.ways.items()]
            rows += [("answered", f"{status}: {count} calls") for status, count in state.answers.items()]
            rows += [("did not leave", f"for the {why}: {n} calls") for why, n in state.not_let_out.items()]
    for what, text in rows:
        click.echo(f"{what:14}{text}")


@trunk.command("test")
@click.argument("name")
@click.option("--call", "number", help="A number to call too; it is cancelled as soon as it rings.")
def try_trunk(name: str, number: str | None) -> None:
    """Try the trunk NAME step by step: addresses, connection, OPTIONS, password, and with --call an INVITE.

    The messages are shown below, without what a password was part of. Exits with 1 at a step that fails.
    """
    settings = load()
    trial = TrunkTrial(named_trunk(settings, name), partial(trunk_trust, settings))
    sys.exit(asyncio.run(_tried(trial, number)))


async def _tried(trial: TrunkTrial, number: str | None) -> int:
    """1 when a step failed."""
    well = True
    async for step in trial.steps(number):
        click.echo(said_of(step))
        well = step.well
    click.echo("\n".join(["", *trial.ladder.lines]))
    return 0 if well else 1


def _known_by(one: Trunk) -> str:
    address = ", ".join([*(host.name for host in one.hosts), *one.networks])
    shown = f"a certificate of {one.authority} for {' or '.join(one.shows)}"
    said = {"address": address, "certificate": shown}
    return said.get(one.known_by) or f"{address} {'and' if one.known_by == 'both' else 'or'} {shown}"


def _certificates(one: Trunk) -> Iterator[tuple[str, str]]:
    """Which it has, and when each ends."""
    files = {"certificate": one.certificate, "authority": one.authority}
    now = datetime.datetime.now(datetime.UTC)
    for what, at in TrunkTls(one, asking).ends().items():
        yield what, f"{files[what]}, {'ended' if at <= now else 'ends'} on {at:%Y-%m-%d %H:%M} UTC"
