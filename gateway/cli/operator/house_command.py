"""`voicegate house`: how a gateway that runs is, here or elsewhere, as the console shows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from gateway.cli.calls.call_table import tame
from gateway.cli.house.house_client import HouseClient
from gateway.config.settings import load


@click.command()
@click.option("--json", "as_json", is_flag=True, help="All of it, for a program.")
@click.pass_context
def house(ctx: click.Context, *, as_json: bool) -> None:
    """Show how the gateway that runs is; status 1 while it takes no calls."""
    with HouseClient.of(ctx, load()) as client:
        told = client.house()
    for line in [json.dumps(told)] if as_json else house_lines(told):
        click.echo(line)
    sys.exit(0 if told["ready"] else 1)


def house_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """What `GET /api/house` told, in lines for a terminal; strangers wrote some of it."""
    yield "takes calls" if told["ready"] else "takes no calls"
    for why in told["why"]:
        yield tame(f"  {why}")
    places = ", ".join(f"{one['free']} of {one['all']} {kind}" for kind, one in told["places"].items())
    yield tame(f"{told['calls']} calls now, free places: {places}")
    build, engine = told["build"], told["engine"]
    speaks = " at ".join((engine["kind"], *engine["at"]))
    yield tame(f"version {build['version']} {build['commit']}, plan {told['plan']}, engine {speaks}")
    if (disk := told["disk"]) is not None:
        yield f"disk: {disk['free'] / 1e9:.1f} GB free of {disk['all'] / 1e9:.1f} GB"
    for one in told["certificates"]:
        ends = "no end" if one["ends_at"] is None else f"{datetime.fromtimestamp(one['ends_at']):%Y-%m-%d}"
        yield tame(f"certificate: {one['what']}, until {ends}")
    for kind, count in told["alarms"].items():
        yield tame(f"alarm: {kind} ({count} times)")
    for one in told["processes"]:
        yield tame(_process(one))
    for one in told["receivers"]:
        waiting, missed = one["waiting"], one["missed"]
        if waiting or missed:
            yield tame(f"{one['name']}: {waiting} events wait for it, {missed} it is never told")
    if told["refused"] is None:
        yield "refused calls: the database does not say"
    for one in told["refused"] or ():
        yield tame(f"refused in the last hour: {one['count']} times {one['status']}, {one['reason']}")


def _process(one: Mapping[str, Any]) -> str:
    since = "" if one["since"] is None else f" since {datetime.fromtimestamp(one['since']):%Y-%m-%d %H:%M:%S}"
    memory = "" if one["memory_bytes"] is None else f", {one['memory_bytes'] / 1e6:.0f} MB"
    restarts = f", restarts: {one['restarts']} ({one['error']})" if one["restarts"] else ""
    how = "dies again and again" if one["state"] == "failing" else one["state"]
    return f"{one['name']}: {how}{since}{memory}{restarts}"
