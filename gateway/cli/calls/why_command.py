"""`voicegate calls why`: what was wrong with a call."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli.calls.call_stores import CallStores
from gateway.cli.calls.call_table import tame
from gateway.cli.calls.call_verdict import verdict
from gateway.cli.house.house_client import HouseClient, is_elsewhere
from gateway.config.settings import Settings, load
from gateway.errors import VoicegateError
from gateway.store.call_cause import judged


@click.command()
@click.argument("call_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def why(ctx: click.Context, call_id: str, as_json: bool) -> None:
    """Say why a call was bad: its first cause, the evidence, and what to do; or that nothing was wrong."""
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, load()) as house:
            call = house.call(call_id)
    else:
        call = _known(load(), call_id)
    if as_json:
        click.echo(json.dumps({"call_id": call_id, **judged(call)}))
        return
    for text in verdict(call_id, call):
        click.echo(tame(text))


def _known(settings: Settings, call_id: str) -> dict[str, Any]:
    """What the stores have of a call. Raises `VoicegateError`."""
    with CallStores(settings) as stores:
        call = stores.whole(call_id)
        if call is not None:
            return call
        silence = f"; {stores.silence}" if stores.silence else ""
    raise VoicegateError(tame(f"no call {call_id} is known; `voicegate calls` lists the latest{silence}"))
