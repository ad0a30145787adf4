"""All that SIP lines need: a front, a hall, a runtime directory, and a real zygote that forks them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.ipc.hello import Hello
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted
from gateway.ipc.rpc import Peer, connect_by
from gateway.line.line_plan import LinePlan
from gateway.line.zygote_messages import ForkLine, LineDied
from model import __version__
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall
from tests.gateway.line.rawphone import RawPhone


async def gone(pid: int, within_s: float = 5.0) -> None:
    """Waits for the end of a process, whosever child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, over.set)
    try:
        async with asyncio.timeout(within_s):
            await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


class ZygoteProcess:
    """A zygote, and its supervisor's end of the control socket."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.deaths: asyncio.Queue[LineDied] = asyncio.Queue()
        self._control = control
        self._peer: Peer | None = None
        self._notes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def start(cls) -> ZygoteProcess:
        """One that nobody has said hello to."""
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "gateway.line.zygote", "--fd", str(theirs.fileno())]
        environ = {**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN}
        process = await asyncio.create_subprocess_exec(
            *argv, pass_fds=[theirs.fileno()], env=environ, stderr=asyncio.subprocess.PIPE
        )
        theirs.close()
        return cls(process, ours)

    async def _hear(self) -> None:
        """Reads what it and its lines log, until the last of them has ended."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            os.write(2, line)
            if line.startswith(b"{"):
                self._notes.put_nowait(json.loads(line))

    async def notes(self, event: str, within_s: float = 5.0) -> dict[str, Any]:
        """The next such event in its log or in that of its lines; others on the way are dropped."""
        async with asyncio.timeout(within_s):
            while (note := await self._notes.get())["event"] != event:
                pass
        return note

    async def greet(self, token: str = TOKEN, version: str = __version__) -> ZygoteProcess:
        hello = Hello("supervisor", "supervisor", token, version)
        self._peer = await connect_by(self._control, "zygote", hello, [LineDied.handled_by(self._died)])
        return self

    async def _died(self, _: Peer, died: LineDied) -> None:
        self.deaths.put_nowait(died)

    async def forks(self, plan: LinePlan) -> int:
        """The new line's pid."""
        return await self.peer.ask(ForkLine(plan), 10.0)

    async def tells_death(self, within_s: float = 10.0) -> LineDied:
        async with asyncio.timeout(within_s):
            return await self.deaths.get()

    @property
    def peer(self) -> Peer:
        assert self._peer is not None
        return self._peer

    async def says_raw(self, data: bytes) -> None:
        """To one that nobody has greeted."""
        self._control.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(self._control, data)

    def let_go(self) -> None:
        """Closes the control socket, as the kernel does for a supervisor that died."""
        if self._peer is None:
            self._control.close()
        else:
            self._peer.close()

    async def ends(self, within_s: float = 5.0) -> int:
        """Its status, once it has ended."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()


class Exchange:
    """Front, hall and zygote, the lines that were forked, and the phones that call them."""

    def __init__(self, folder: Path, front: FakeFront, hall: FakeHall, zygote: ZygoteProcess) -> None:
        self.runtime = Runtime(folder)
        self.front, self.hall, self.zygote = front, hall, zygote
        self.pids: dict[str, int] = {}
        self._ids = itertools.count()
        self._phones: list[tuple[RawPhone, str]] = []

    def plan(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> LinePlan:
        return LinePlan(name, kind, "hall0", self.runtime, TOKEN, **more)

    async def line(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> None:
        """Forks a line and waits until front and hall know it."""
        self.pids[name] = await self.zygote.forks(self.plan(name, kind, **more))
        await self.front.hears_hello(name)
        await self.hall.hears_hello(name)

    async def new_hall(self) -> None:
        """Another hall takes the place of the one that was stopped."""
        self.hall = await FakeHall(self.runtime).start()

    async def phone(self, line: str = "n0", codec: str = "PCMU", call_id: str = "") -> RawPhone:
        port = (await self.front.hears_hello(line)).sip_port
        assert port is not None
        phone = RawPhone(("127.0.0.1", port), call_id or f"c{next(self._ids)}", codec)
        self._phones.append((await phone.open(), line))
        return phone

    async def call(self, line: str = "n0", codec: str = "PCMU") -> tuple[RawPhone, CallStarted]:
        """A call that is up."""
        phone = await self.phone(line, codec)
        phone.invite()
        started = await self.hall.hears(CallStarted, phone.call_id)
        await self.hall.ask(AnswerCall(phone.call_id))
        answer = await phone.final()
        assert answer.status == 200, answer.start
        phone.acknowledge()
        await self.hall.hears(CallConfirmed, phone.call_id)
        return phone, started

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
        self.zygote.let_go()
        await self.zygote.ends()
        await self.hall.stop()
        await self.front.stop()


@contextlib.asynccontextmanager
async def an_exchange() -> AsyncIterator[Exchange]:
    with short_folder() as folder:
        runtime = Runtime(folder)
        hall, front = FakeHall(runtime), FakeFront(runtime)
        zygote = await (await ZygoteProcess.start()).greet()
        exchange = Exchange(folder, await front.start(), await hall.start(), zygote)
        yield exchange
        await exchange.close()
