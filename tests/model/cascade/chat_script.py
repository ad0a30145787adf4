"""A chat server that does what a test tells it, on a socket of 127.0.0.1: well, slowly, badly or without end.

Each request takes the next `Script`, the last one again and again. A script writes bytes; what is helpful for
that stands below it. The server keeps what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Write = Callable[[bytes], Awaitable[None]]
Script = Callable[[Write], Awaitable[None]]


@dataclass
class AskedOf:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])


@dataclass
class ChatScript:
    """The server; `scripts` may be changed between requests."""

    scripts: list[Script]
    server: asyncio.Server = field(init=False)
    port: int = 0
    asked: list[AskedOf] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """a client went before its answer was over"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        self.server.close()
        serving = [*self._serving]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.asked.append(AskedOf(head[0].split()[1], headers, json.loads(body or b"{}")))
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            running = asyncio.ensure_future(script(write))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
            if not running.done() or isinstance(running.exception(), ConnectionError):
                self.left.set()
            for task in (running, gone):
                task.cancel()
            await asyncio.gather(running, gone, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def chat_script(*scripts: Script) -> AsyncIterator[ChatScript]:
    """A server that runs these scripts."""
    script = ChatScript(list(scripts))
    script.server = await asyncio.start_server(script.take, "127.0.0.1", 0)
    script.port = script.server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        await script.close()


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"


def event(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    """One chunk of a completion."""
    chunk = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def says(text: str, *, pause_s: float = 0.0, tools: list[tuple[str, str]] | None = None) -> Script:
    """A whole answer, a word a piece, and calls of tools (name, arguments) in two pieces each."""

    async def script(write: Write) -> None:
        await write(STREAM + event({"role": "assistant", "content": None}))
        for k, word in enumerate(text.split(" ") if text else []):
            await write(event({"content": word if k == 0 else " " + word}))
            await asyncio.sleep(pause_s)
        for k, (name, arguments) in enumerate(tools or []):
            half = len(arguments) // 2
            first = {"name": name, "arguments": arguments[:half]}
            await write(
                event({"tool_calls": [{"index": k, "id": f"t{k}", "type": "function", "function": first}]})
            )
            await write(event({"tool_calls": [{"index": k, "function": {"arguments": arguments[half:]}}]}))
        await write(event({}, "tool_calls" if tools else "stop") + b"data: [DONE]\n\n")

    return script


def answers(status: str, body: bytes = b"", **headers: str) -> Script:
    """No stream: a status, headers, a body."""

    async def script(write: Write) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return script


def sends(*parts: bytes | float) -> Script:
    """A stream of exactly these bytes, with pauses in seconds between them; then it closes."""

    async def script(write: Write) -> None:
        await write(STREAM)
        for part in parts:
            if isinstance(part, bytes):
                await write(part)
            else:
                await asyncio.sleep(part)

    return script
