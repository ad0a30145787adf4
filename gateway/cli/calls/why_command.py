"""`voicegate calls why`: what was wrong with a call."""

from __future__ import annotations

import json

import click

from gateway.cli.calls.call_source import call_source
from gateway.cli.calls.call_table import tame
from gateway.cli.calls.call_verdict import verdict
from gateway.store.call_cause import judged


@click.command()
@click.argument("call_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def why(ctx: click.Context, call_id: str, as_json: bool) -> None:
    """Say why a call was bad: its first cause, the evidence, and what to do; or that nothing was wrong."""
    with call_source(ctx) as source:
        call = source.call(call_id)
    if as_json:
        click.echo(json.dumps({"call_id": call_id, **judged(call)}))
        return
    for text in verdict(call_id, call):
        click.echo(tame(text))
