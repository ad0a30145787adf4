"""`voicegate calls`: what Redis knows of calls, and beyond its memory the registry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from redis.exceptions import RedisError

from gateway.config.paths import redis_url_for
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings, load
from gateway.errors import VoicegateError
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions

Result = TypeVar("Result")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="Ended calls.")
@click.pass_context
def calls(ctx: click.Context, as_json: bool, count: int) -> None:
    """List the living calls and the latest that ended."""
    if ctx.invoked_subcommand is not None:
        return
    settings = load()
    live, ended = asyncio.run(_lists(settings, count))
    if as_json:
        click.echo(json.dumps({"live": live, "ended": ended}))
        return
    if not live and not ended:
        click.echo("no calls yet")
    for record in (*live, *ended):
        click.echo(_line(record))


@calls.command()
@click.argument("call_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def show(call_id: str, as_json: bool) -> None:
    """Show one call: who, which route and voice, its turns, and how it ended."""
    settings = load()
    record, redis_error = asyncio.run(_one(settings, call_id))
    row = _row(settings, call_id)
    if record is None and row is None:
        if redis_error is not None:
            raise redis_error
        raise VoicegateError(f"no call {call_id}; `voicegate calls` lists the latest")
    if as_json:
        table = record or {"call_id": call_id}
        click.echo(json.dumps({**table, "registry": row.to_json() if row else None}))
        return
    if row is not None:
        click.echo(f"call {call_id}  payload {row.payload:012x}  route {row.route} of {row.dialplan}")
        click.echo(f"  {row.caller or '(nobody)'} called {row.called} from {row.source}")
        click.echo(f"  voice {row.voice or '(none)'}, grant {row.grant_jti or '(none)'}")
        if row.started_at is not None:
            click.echo(
                f"  {datetime.fromtimestamp(row.started_at):%Y-%m-%d %H:%M:%S}, {row.how or 'not ended'}"
            )
    if record is None:
        click.echo("  Redis has forgotten its turns" if redis_error is None else f"  {redis_error}")
        return
    click.echo(_line(record))
    for turn in record["turns"]:
        click.echo(f"  {_clock(turn['at'])}  {_turn(turn)}")
    for event in record["events"]:
        if event["kind"] != "turn":
            click.echo(f"  {_clock(event['at'])}  {_event(event)}")


async def _lists(settings: Settings, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    async def read(sessions: Sessions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return await sessions.live(), await sessions.recent(count)

    return await _reading(settings, read)


async def _one(settings: Settings, call_id: str) -> tuple[dict[str, Any] | None, VoicegateError | None]:
    try:
        return await _reading(settings, lambda sessions: sessions.show(call_id)), None
    except VoicegateError as error:
        return None, error


async def _reading(settings: Settings, read: Callable[[Sessions], Awaitable[Result]]) -> Result:
    url = redis_url_for(settings, runtime_for(settings.data_dir))
    sessions = await Sessions.open(url)
    try:
        return await read(sessions)
    except (RedisError, OSError) as error:
        remedy = "is the gateway running?" if settings.redis_url is None else "see VOICEGATE_REDIS_URL"
        raise VoicegateError(f"Redis does not answer ({error}); {remedy}") from None
    finally:
        await sessions.close()


def _row(settings: Settings, call_id: str) -> CallRow | None:
    if settings.sql_url is None and not Path(settings.data_dir, "voicegate.db").exists():
        return None  # reading shall not make a database
    registry = Registry.open(settings.sql)
    try:
        return registry.get(call_id)
    finally:
        registry.close()


def _line(call: dict[str, Any]) -> str:
    started = call.get("started_at", 0.0)
    lasted = f"{call['ended_at'] - started:.0f} s" if "ended_at" in call else "…"
    who = f"{call.get('caller', '?')} → {call.get('called', '?')}"
    when = f"{datetime.fromtimestamp(started):%Y-%m-%d %H:%M:%S}"
    end = f"{call.get('route', '')}  {call.get('how', '')}"
    return f"{call['call_id']}  {when}  {call.get('state', '?'):<9} {lasted:>6}  {who}  {end}".rstrip()


def _turn(turn: dict[str, Any]) -> str:
    text = turn.get("text") or turn.get("intent") or "(no transcript)"
    length = f" ({turn['duration_s']:g} s)" if "duration_s" in turn else ""
    cut = " [interrupted]" if turn.get("interrupted") else ""
    stages = "  ".join(f"{stage} {ms:.0f} ms" for stage, ms in turn.get("latency_ms", {}).items())
    return f"{turn['who']}: {text}{length}{cut}" + (f"   [{stages}]" if stages else "")


def _event(event: dict[str, Any]) -> str:
    return f"{event['kind']} {' '.join(f'{k}={v}' for k, v in event['data'].items())}".rstrip()


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:-3]
