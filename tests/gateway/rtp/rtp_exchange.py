"""The exchange that SIP lines are tested in, with RTP lines in their place: what one kind promises, the other
keeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

from gateway.config.runtime import Runtime
from gateway.line.line_plan import CAPACITY
from gateway.rtp.rtp_line import RtpLine
from tests.gateway.conftest import short_folder
from tests.gateway.line.exchange import Exchange
from tests.gateway.line.line_harness import FakeFront, FakeHall


class RtpExchange(Exchange):
    """Its lines live in the test's own process."""

    def __init__(self, runtime: Runtime, front: FakeFront, hall: FakeHall) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.rtp_lines: dict[str, RtpLine] = {}
        super().__init__(runtime.path, front, hall, zygote=None)  # type: ignore[arg-type]  # it forks nothing

    async def line(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> None:
        line = self.rtp_lines[name] = RtpLine(self.plan(name, kind, **{"capacity": CAPACITY, **more}))
        self.tasks[name] = asyncio.create_task(line.run())
        await self.front.hears_hello(name)
        await self.hall.hears_hello(name)

    async def close(self) -> None:
        await self.clear()
        for line in self.rtp_lines.values():
            line.stop()
        await asyncio.gather(*self.tasks.values())
        await self.hall.stop()
        await self.front.stop()


@contextlib.asynccontextmanager
async def an_rtp_exchange() -> AsyncIterator[RtpExchange]:
    with short_folder() as folder:
        runtime = Runtime(folder)
        hall, front = FakeHall(runtime), FakeFront(runtime)
        exchange = RtpExchange(runtime, await front.start(), await hall.start())
        try:
            yield exchange
        finally:
            await exchange.close()
