"""All that lines for telephones need: a front, a hall, a runtime directory, and the phones that call them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, Final, Literal, TypeVar

from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted
from gateway.rtp.line_plan import LinePlan
from gateway.rtp.rtp_line import RtpLine
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall
from tests.gateway.line.rawphone import RawPhone

Phone = TypeVar("Phone", bound=RawPhone)
CAPACITY: Final = 4
"""Calls that a line takes, where its test says nothing else."""


class RtpExchange:
    """Its lines live in the test's own process."""

    def __init__(self, runtime: Runtime, front: FakeFront, hall: FakeHall) -> None:
        self.runtime = runtime
        self.front, self.hall = front, hall
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.rtp_lines: dict[str, RtpLine] = {}
        self._ids = itertools.count()
        self._phones: list[tuple[RawPhone, str]] = []

    def plan(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> LinePlan:
        return LinePlan(name, kind, "hall0", self.runtime, TOKEN, **{"capacity": CAPACITY, **more})

    async def line(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> None:
        """Starts a line and waits until front and hall know it."""
        line = self.rtp_lines[name] = RtpLine(self.plan(name, kind, **more))
        self.tasks[name] = asyncio.create_task(line.run())
        await self.front.hears_hello(name)
        await self.hall.hears_hello(name)

    async def new_hall(self) -> None:
        """Another hall takes the place of the one that was stopped."""
        self.hall = await FakeHall(self.runtime).start()

    async def phone(self, line: str = "n0", codec: str = "PCMU", call_id: str = "") -> RawPhone:
        return await self.plugged(RawPhone(codec=codec, call_id=call_id), line)

    async def plugged(self, phone: Phone, line: str = "n0") -> Phone:
        """That telephone, open, and with an id where it has none."""
        port = (await self.front.hears_hello(line)).sip_port
        assert port is not None
        phone.line, phone.call_id = ("127.0.0.1", port), phone.call_id or f"c{next(self._ids)}"
        await phone.open()
        self._phones.append((phone, line))
        return phone

    async def call(self, line: str = "n0", codec: str = "PCMU") -> tuple[RawPhone, CallStarted]:
        """A call that is up."""
        phone = await self.phone(line, codec)
        return phone, await self.answers(phone)

    async def answers(self, phone: RawPhone) -> CallStarted:
        """Lets it call, until the call is up."""
        phone.invite()
        started = await self.hall.hears(CallStarted, phone.call_id)
        await self.hall.ask(AnswerCall(phone.call_id))
        answer = await phone.final()
        assert answer.status == 200, answer.start
        phone.acknowledge()
        await self.hall.hears(CallConfirmed, phone.call_id)
        return started

    async def clear(self) -> None:
        """Ends the calls that are left and puts the phones away: the lines are as they were."""
        for phone, line in self._phones:
            if line in self.front.lines:
                with contextlib.suppress(RpcError):
                    await self.front.hang_up(phone.call_id, line)
                    await self.front.hears_end(phone.call_id)
            phone.close()
        self._phones.clear()

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
