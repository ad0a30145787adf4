"""`voicegate engine`: `top` for any engine, and the Chroma engine's own commands, which need its packages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from gateway.cli.operator.engine_top import Reading, rows, table
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings, load
from gateway.errors import VoicegateError
from model.address import is_safe
from model.client import EngineClient
from model.errors import EngineLost

REFRESH_S: Final = 1.0
WINDOW: Final = 10
"""Readings that rates and quantiles are taken over."""


class EngineCommands(click.Group):
    """Our own commands, and those that `model.chroma.tools.cli` brings where it can be loaded."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands that can be loaded here."""
        with contextlib.suppress(ModuleNotFoundError):
            return [*super().list_commands(ctx), *_chroma().list_commands(ctx)]
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Our own command of that name, else Chroma's."""
        return super().get_command(ctx, cmd_name) or _chroma().get_command(ctx, cmd_name)


def _chroma() -> click.Group:
    from model.chroma.tools.cli import engine as chroma

    return chroma


@click.group(cls=EngineCommands)
def engine() -> None:
    """Watch an engine; run, measure or compare Chroma."""


@engine.command()
@click.argument("url", required=False)
@click.option("--uds", type=click.Path(path_type=Path), help="the engine at this unix socket")
@click.option("--once", is_flag=True, help="print it once, with all since the engine's start")
def top(url: str | None, uds: Path | None, once: bool) -> None:
    """Show what an engine is doing, refreshed each second: slots, step times, deadlines, memory.

    URL is an engine's ws:// or a cluster's http:// address, as in VOICEGATE_ENGINE_URL. Without one: the
    engines of that setting, else this gateway's own.
    """
    if url and uds:
        raise click.UsageError("give either a URL or --uds")
    settings = load()
    places = [url] if url else [str(uds)] if uds else _own(settings)
    for place in places:
        if "://" in place and not is_safe(place) and not settings.engine_plain:
            raise VoicegateError(
                f"{place} would be asked in the clear; use wss:// or https://, "
                "or VOICEGATE_ENGINE_PLAIN=1 on a private network"
            )
    token = settings.engine_token.get_secret_value() if settings.engine_token else None
    watch = Watch(EngineClient(places, token), places)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch.once() if once else watch.run())


def _own(settings: Settings) -> Sequence[str]:
    return settings.engine_url or [str(runtime_for(settings.data_dir).engine)]


class Watch:
    """Reads the engines, again and again."""

    def __init__(self, client: EngineClient, places: Sequence[str]) -> None:
        self._client = client
        self._places = places
        self._past: dict[str, deque[Reading]] = {}

    async def look(self) -> dict[str, dict[str, str]]:
        """Each engine's rows. Raises `VoicegateError` when there is none."""
        engines = sorted(await self._client.engines())
        found: dict[str, dict[str, str]] = {}
        errors = []
        for place in engines:
            try:
                now = Reading.parse(await self._client.metrics(place), time.monotonic())
            except EngineLost as error:
                errors.append(str(error))
                continue
            except ValueError as error:
                errors.append(f"{place} is not an engine: {error}")
                continue
            past = self._past.setdefault(place, deque(maxlen=WINDOW))
            found[place] = rows(now, past[0] if past else None)
            past.append(now)
        if not found:
            why = "; ".join(errors) or f"no engine is known at {', '.join(self._places)}"
            raise VoicegateError(f"{why}; does `voicegate run` run?")
        return found

    async def once(self) -> None:
        """Prints one reading."""
        _console().print(table(await self.look()))

    async def run(self) -> None:
        """Shows readings until Ctrl-C; waits for an engine that is away meanwhile."""
        with Live(table(await self.look()), console=_console(), auto_refresh=False) as live:
            while True:
                await asyncio.sleep(REFRESH_S)
                try:
                    live.update(table(await self.look()), refresh=True)
                except VoicegateError as error:
                    live.update(str(error), refresh=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=160)
