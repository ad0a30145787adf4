"""A front's events, on a real Redis and real files; and the same in a process that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.front.events import event_intake
from gateway.front.events.event_intake import EventIntake
from gateway.front.events.event_shelf import EventShelf, KeptEvent
from gateway.store.registry import Registry
from gateway.store.sessions import Sessions

LINK = "https://voice.example/api/recordings"


class EventHouse:
    """What the front makes of its events; `run` is under way from `begin` on."""

    def __init__(self, folder: Path, sessions: Sessions) -> None:
        self.folder = folder
        self.sessions = sessions
        self.recordings = folder / "recordings"
        self.registry = Registry.open(f"sqlite:///{folder / 'calls.db'}")
        self.shelf = EventShelf(folder / "events.db", 3600.0).open()
        self.alarms: list[str] = []
        self.intake = EventIntake(
            self.shelf, sessions, self.registry, self.recordings, LINK, self.alarms.append
        )
        self._running: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, folder: Path, redis_url: str) -> EventHouse:
        return cls(folder, await Sessions.open(redis_url))

    def begin(self) -> None:
        self._running = [
            asyncio.create_task(work) for work in (self.intake.run(), self.intake.keep_own())
        ]  # fmt: skip

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.sessions.close()
        self.shelf.close()
        self.registry.close()

    async def has(self, count: int) -> tuple[KeptEvent, ...]:
        """All events, once there are so many."""
        await self.sessions.writer.flush()
        while True:
            bell = self.intake.bell()
            events = self.shelf.after(0, count=10_000).events
            if len(events) >= count:
                return events
            await bell.wait()


def told_in(folder: Path) -> list[dict[str, Any]]:
    """What a file holds, read by itself."""
    shelf = EventShelf(folder / "events.db", 3600.0).open()
    events = [event.to_json() for event in shelf.after(0, count=10_000).events]
    shelf.close()
    return events


async def dies_at(folder: Path, redis_url: str, step: str, nth: int) -> None:
    """Takes events until the nth time that it comes to a step; there it is killed, as by `kill -9`."""
    house = await EventHouse.open(folder, redis_url)
    count = 0

    def passes(name: str) -> None:
        nonlocal count
        if name == step:
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    keep, xread, xdel = house.shelf.keep, house.sessions.redis.xread, house.sessions.redis.xdel

    def keeps(*given: Any) -> Any:
        passes("before the commit")
        kept = keep(*given)
        passes("after the commit")
        return kept

    async def reads(*given: Any, **named: Any) -> Any:
        answer = await xread(*given, **named)
        if answer:
            passes("after the reading")
        else:
            print(json.dumps({"idle": True}), flush=True)
        return answer

    async def deletes(*given: Any) -> Any:
        answer = await xdel(*given)
        passes("after the deletion")
        return answer

    event_intake.AT_ONCE, event_intake.WAIT_MS = 3, 50  # type: ignore[misc]
    house.shelf.keep = keeps  # type: ignore[method-assign]
    house.sessions.redis.xread, house.sessions.redis.xdel = reads, deletes  # type: ignore[method-assign, assignment]
    await house.intake.run()


if __name__ == "__main__":
    asyncio.run(dies_at(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
