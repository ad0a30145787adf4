"""`voicegate trunk`: the trunks by which calls leave."""

from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Iterator
from functools import partial

import click

from gateway.cli.caller.trunk_call import named_trunk, said_of, trunk_trust
from gateway.cli.house.house_state import trunk_states
from gateway.config.certificate import asking
from gateway.config.paths import trunks_path
from gateway.config.settings import load
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_trial import TrunkTrial


@click.group()
def trunk() -> None:
    """Trunks: carriers and telephone exchanges by which calls leave; the data directory's trunks.toml."""


@trunk.command("list")
def list_trunks() -> None:
    """List the trunks, and how the gateway that runs finds them."""
    settings = load()
    found = read_trunks(trunks_path(settings))
    states = {state.name: state for state in trunk_states(settings)}
    if not found:
        click.echo(f"no trunks; {trunks_path(settings)} has [[trunk]] tables")
    for one in found:
        state = states.get(one.name)
        how = "not known: no gateway runs" if state is None else "up" if state.why is None else "down"
        why = f": {state.why}" if state is not None and state.why is not None else ""
        calls = "" if state is None else f", {state.calls} of {state.calls_at_most} calls"
        click.echo(f"{one.name}  {', '.join(map(str, one.hosts))} ({one.transport})  {how}{why}{calls}")


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
            rows.append(("now", "up" if state.why is None else f"down: {state.why}"))
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
