"""SIP over WebSocket (RFC 7118): a message is a frame, and a browser is reached by its connection alone.

The HTTP server has the socket; `serve` takes what it received and gives what it is to send.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway.edge.flows.connections import FIRST_WORD_S, IDLE_S, Connections
from gateway.edge.flows.transport import Flow
from model.tasks import race

SUBPROTOCOL: Final = "sip"
MAX_FRAME: Final = 65_536
PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"

log = structlog.get_logger("edge")


class Frames:
    """What a `Flow` over WebSocket writes to: frames that wait until they are sent."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._more = asyncio.Event()
        self._closing = False

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Bytes that wait."""
        return self._size

    def write(self, frame: bytes) -> None:
        """Never waits."""
        self._waiting.append(frame)
        self._size += len(frame)
        self._more.set()

    def close(self) -> None:
        """What waits is not sent any more."""
        self._closing = True
        self._more.set()

    abort = close

    async def next(self) -> bytes | None:
        """The next one to send; None at the end."""
        while not self._closing:
            if self._waiting:
                frame = self._waiting.popleft()
                self._size -= len(frame)
                return frame
            self._more.clear()
            await self._more.wait()
        return None


async def serve(
    connections: Connections,
    transport: str,
    host: str,
    port: int,
    receive: Callable[[], Awaitable[bytes | None]],
    send: Callable[[bytes], Awaitable[None]],
) -> None:
    """Lasts as long as the connection; "ws" or "wss". `receive` gives a frame, None at the end."""
    if not connections.take(host):
        return
    frames = Frames()
    flow = Flow(transport, host, port, frames, sent=connections.sent)
    connections.add(flow)

    async def read() -> None:
        patience_s = FIRST_WORD_S
        while True:
            async with asyncio.timeout(patience_s):
                frame = await receive()
            if frame is None or len(frame) > MAX_FRAME:
                return
            flow.heard_at = time.monotonic()
            if not frame.strip(b"\r\n"):
                if frame == PING:
                    flow.send(PONG)  # RFC 5626 §4.4.1
            elif not connections.receive(frame, flow):
                return
            patience_s = IDLE_S

    async def write() -> None:
        while (frame := await frames.next()) is not None:
            await send(frame)

    try:
        for over in await race(read(), write()):
            if over is not None:
                over.result()
    except (OSError, ValueError, RuntimeError):  # gone, too slow, or closed while something was sent
        pass
    except Exception:
        log.exception("edge.connection_failed", source=host)
    finally:
        frames.close()
        connections.remove(flow)
        connections.give(host)
