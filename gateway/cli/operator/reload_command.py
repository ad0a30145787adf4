"""`voicegate reload`: dialplans, users, trunks, certificates and webhooks, read anew while calls go on."""

from __future__ import annotations

import sys

import click

from gateway.cli.calls.call_table import tame
from gateway.cli.house.house_client import HouseClient
from gateway.config.settings import load


@click.command()
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Have the gateway read dialplans, users, trunks, certificates and webhooks anew.

    Calls keep the plan that they began with. What does not load stays as it was, and is named here.
    """
    with HouseClient.of(ctx, load()) as house:
        done = house.reload()
    for part, why in done.failed.items():
        click.echo(tame(f"{part}: as they were: {why}"), err=True)
    for note in done.notes:
        click.echo(tame(note), err=True)
    changed = "as before" if done.plan == done.was else f"before: {done.was}"
    click.echo(tame(f"dialplans: {done.plan} ({changed})"))
    sys.exit(1 if done.failed else 0)
