"""What tests of the page need: the app and a real web line, around a hall and a front of theirs."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
import uvicorn

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import CallRefused, RpcError
from gateway.front.calls.call_list import ListedCalls
from gateway.front.calls.refused_list import ListedRefusals
from gateway.front.events.event_shelf import EventShelf
from gateway.front.http.app import build_app
from gateway.front.http.event_feed import EventFeed
from gateway.ipc.ending import End
from gateway.ipc.front_messages import HouseState
from gateway.ipc.line_messages import IceReply, ShowCaller, Shown, TrickleIce
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall, tone
from tests.needs import HANGS_S


class Desk:
    """The app's house: a front without routing."""

    def __init__(self, front: FakeFront) -> None:
        self.front = front
        self.records: dict[str, dict[str, Any]] = {}
        self.full = False
        self.state = HouseState(ready=True, parts={"hall0": "ready"})
        self.hows: list[End] = []
        """how calls ended that were ended over HTTP"""

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        if self.full:
            raise CallRefused(503, "all web lines are busy", retry_after_s=5)
        call_id = f"c{len(self.records) + 1}"
        try:
            answer = await self.front.offer(call_id, offer_sdp)
        except RpcError as error:
            raise CallRefused(488, str(error)) from None
        self.records[call_id] = {
            "call_id": call_id, "state": "talking", "caller": "web", "called": dialled, "source": source,
        }  # fmt: skip
        return call_id, answer

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        assert self.front.line is not None
        return await self.front.line.ask(TrickleIce(call_id, fragment, etag), HANGS_S)

    async def sip_socket(self, *_: Any) -> None:
        raise AssertionError("the page speaks no SIP")

    async def hang_up(self, call_id: str, how: End) -> None:
        self.hows.append(how)
        try:
            await self.front.hang_up(call_id)
        except RpcError as error:
            raise CallRefused(404, str(error)) from None

    def close(self, call_id: str, how: str) -> None:
        self.records[call_id] |= {"state": "ended", "how": how, "ended_at": 2.0}

    async def list_calls(self, *_: Any) -> ListedCalls:
        while not self.front.ended.empty():
            self.close(*self.front.ended.get_nowait())
        return ListedCalls(calls=list(self.records.values()))

    async def list_refused(self, *_: Any, counted: bool) -> ListedRefusals:
        return ListedRefusals(refused=[])

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        await self.list_calls()
        return self.records.get(call_id)

    async def prometheus(self) -> bytes:
        return b""

    async def ready(self) -> HouseState:
        return self.state


class Stage:
    """A web line in a process of its own, as the supervisor starts it, and the app on a free port."""

    line: Process
    server: uvicorn.Server

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(host="127.0.0.1")
        self.port = 0
        """what `url` names; 0 until it is open"""
        self.runtime = Runtime(folder)
        self.hall = FakeHall(self.runtime, sound=tone(440))
        self.front = FakeFront(self.runtime)
        self.desk = Desk(self.front)
        self.url = ""
        self.tells = False
        """whether the page may listen to events"""
        self.ends_well = True
        """whether its line does, once the test is over"""

    async def open(self) -> None:
        await self.hall.start()
        await self.front.start()
        folder = str(self.runtime.path)
        self.line = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.line.web", "--name", "web0", "--hall", "hall0",
            "--runtime", folder,
            env={**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN, "VOICEGATE_DATA_DIR": folder},
        )  # fmt: skip
        sock = socket.create_server(("127.0.0.1", 0))
        self.shelf = EventShelf(self.runtime.path / "events.db", 3600.0).open()
        self.feed = EventFeed(self.shelf, asyncio.Event)
        if not self.tells:
            self.feed.close()  # a page that is told nothing asks every two seconds
        app = build_app(self.desk, self.settings, TOKEN, [self.feed.route()])
        chain, key = self.settings.tls_certificate, self.settings.tls_key
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ssl_certfile=chain, ssl_keyfile=key)
        self.server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self.server.serve([sock]))
        self.port = int(sock.getsockname()[1])
        self.url = f"http{'s' if chain else ''}://localhost:{self.port}"
        async with asyncio.timeout(HANGS_S):
            await self.front.line_up.wait()
            await self.hall.line_up.wait()

    async def stop_serving(self) -> None:
        """The front goes: nobody answers HTTP any more."""
        self.feed.close()
        self.server.should_exit = self.server.force_exit = True
        await self._serving

    def kill_line(self) -> None:
        """The line dies as a process does that crashed; nobody says goodbye."""
        self.ends_well = False
        self.line.kill()

    async def close(self) -> None:
        await self.stop_serving()
        if self.ends_well:
            self.line.terminate()
        async with asyncio.timeout(HANGS_S):
            assert (await self.line.wait() == 0) == self.ends_well
        await self.front.stop()
        await self.hall.stop()

    async def show(self, call_id: str, event: Shown) -> None:
        """Has a call's page shown something, as the hall does."""
        await self.hall.ask(ShowCaller(call_id, event))


@pytest_asyncio.fixture(loop_scope="module")
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """For modules whose tests share one event loop, with their browser."""
    stage = Stage(tmp_path)
    await stage.open()
    yield stage
    await stage.close()
