"""An edge on loopback with a line of four slots, and telephones for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk import Trunk
from tests.gateway.edge.peers import ANSWER, BOOT, KEY, OFFER, Caller, Desk, Line, Said, TcpCaller


class Exchange:
    """Everything of one test; what it opened, it closes."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.shelf: Any = None
        """keeps where telephones are, where an edge has some"""
        self.edges: list[Edge] = []
        self.peers: list[Caller | Line] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.trunks: tuple[Trunk, ...] = ()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def edge(self, **rules: Any) -> Edge:
        config = {"host": "127.0.0.1", "port": 0, "boot_token": BOOT, "route_key": KEY, **rules}
        for at in reversed(range(20)):
            edge = Edge(EdgeConfig(**config), self.desk, self._spawn, self.shelf, self.trunks)
            try:
                await edge.start()
            except OSError:  # the number that UDP got is somebody's in TCP
                await edge.stop()
                if not at:
                    raise
            else:
                break
        self.edges.append(edge)
        return edge

    async def line(
        self, name: str = "n0", kind: str = "narrow", capacity: int = 4, hall: str = "hall0"
    ) -> Line:
        """A line that says hello to the newest edge."""
        line = await Line(name).open()
        self.peers.append(line)
        self.edges[-1].line_up(LineInfo(name, kind, line.port, capacity, hall=hall))
        return line

    async def caller(self, transport: str = "udp", **options: Any) -> Caller:
        made = (TcpCaller if transport == "tcp" else Caller)(self.edges[-1].port, **options)
        self.peers.append(await made.open())
        return made

    async def call(self, caller: Caller, line: Line, *extra: str, ack: bool = True) -> Said:
        """An answered call; the 200 as the caller saw it."""
        caller.send("INVITE", OFFER, *extra)
        line.reply(await line.invited(), 200, body=ANSWER)
        answer = await caller.next(200)
        await caller.next(100)
        caller.learn(answer)
        if ack:
            caller.send("ACK")
            await line.next(method="ACK")
        return answer

    async def close(self) -> None:
        for peer in self.peers:
            peer.close()
        for edge in self.edges:
            await edge.stop()
        for task in self.tasks:
            task.cancel()


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    made = Exchange()
    await made.edge()
    yield made
    await made.close()


@pytest.fixture
async def bare() -> AsyncIterator[Exchange]:
    """Without an edge: the test makes one to its own rules."""
    made = Exchange()
    yield made
    await made.close()
