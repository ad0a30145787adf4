"""A webhook's receiver: a real HTTP server that takes, refuses, stalls, goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STALLS = 0
"""Instead of a status: it takes the request and says nothing."""
DROPS = -1
"""It takes the request and closes the connection."""


@dataclass
class Got:
    """One request."""

    headers: dict[str, str]
    body: bytes
    path: str = ""

    @property
    def event(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


@dataclass
class HookReceiver:
    """`answers` says the status of each request; 200 unless it is changed."""

    answers: Callable[[Got], int] = lambda _: 200
    got: list[Got] = field(default_factory=list)
    more: str = ""
    """header lines of its answers"""
    says: bytes = b""
    """what its answers have in them"""
    port: int = 0
    tls: ssl.SSLContext | None = None
    """by which it speaks https, as `localhost`"""
    failed_handshakes: int = 0
    _knock: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _some: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            self._server = await asyncio.start_server(self._open_door, sock=listener.dup())

    async def stop(self) -> None:
        """As by kill -9: connections are reset, nothing is said."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        where = "http://127.0.0.1" if self.tls is None else "https://localhost"
        return f"{where}:{self.port}/hook?of=voicegate"

    async def has(self, count: int) -> list[Got]:
        """All requests, once there are so many."""
        while len(self.got) < count:
            self._some.clear()
            await self._some.wait()
        return self.got

    async def knocks(self) -> None:
        """Somebody came, and did not like the certificate."""
        self._knock.clear()
        await self._knock.wait()

    async def _open_door(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.tls is not None:
            try:
                await writer.start_tls(self.tls)
                await reader.read(0)
            except (OSError, EOFError):
                self.failed_handshakes += 1
                self._knock.set()
                writer.close()
                return
        await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(OSError, EOFError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                lines = (line.split(": ", 1) for line in head[1:-2])
                headers = {name.lower(): value for name, value in lines}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                got = Got(headers, body, head[0].split()[1])
                status = self.answers(got)
                self.got.append(got)
                self._some.set()
                if status == STALLS:
                    await asyncio.Event().wait()
                if status == DROPS:
                    break
                length = f"Content-Length: {len(self.says)}\r\n\r\n"
                writer.write(f"HTTP/1.1 {status} X\r\n{self.more}{length}".encode() + self.says)
                await writer.drain()
        self._open.discard(writer)
        writer.close()
