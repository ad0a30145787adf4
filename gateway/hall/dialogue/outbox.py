"""What an engine is to be told, in order, while it is away too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.hall.media.audio import Floats
from model.client import EngineSession

OUTBOX: Final = 1024
"""Commands that may wait for the engine (a minute of speech is 750)."""

Command = Callable[[EngineSession], Awaitable[None]]


class Outbox:
    """One call's commands. `log` is a bound logger."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._commands: asyncio.Queue[Command] = asyncio.Queue(OUTBOX)
        self._full = False

    def send(self, command: Command) -> None:
        """Puts a command behind the others; a full outbox drops it."""
        try:
            self._commands.put_nowait(command)
        except asyncio.QueueFull:
            if not self._full:  # once: this may come from the hot path
                self._full = True
                self._log.error("engine.outbox_full")

    async def next(self) -> Command:
        return await self._commands.get()

    async def flush(self, session: EngineSession) -> None:
        """Tells `session` what waits, and nothing that comes later."""
        while not self._commands.empty():
            await self._commands.get_nowait()(session)

    def clear(self) -> None:
        """Nobody is there to be told."""
        while not self._commands.empty():
            self._commands.get_nowait()
        self._full = False


async def append_sound(sound: Floats, session: EngineSession) -> None:
    """The command that sends the caller's sound, float32 24 kHz."""
    await session.append(sound)


async def interrupt(response_id: str | None, item_id: str, heard_ms: int, session: EngineSession) -> None:
    """The command that stops an item where the caller stopped hearing it; `response_id` is None when its
    response is done already."""
    if response_id is not None:
        await session.cancel(response_id)
    await session.truncate(item_id, heard_ms)
