"""`/sip`: where a browser speaks SIP (RFC 7118). The edge has the messages, this module the WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.edge.flows.web_socket import SUBPROTOCOL
from gateway.front.http.boundary import source_of

Receive = Callable[[], Awaitable[bytes | None]]
Send = Callable[[bytes], Awaitable[None]]


class SipHouse(Protocol):
    """Who takes the messages; the front."""

    async def sip_socket(self, transport: str, host: str, port: int, receive: Receive, send: Send) -> None:
        """Lasts as long as the connection."""


class SipSocket:
    """The handler of one path."""

    def __init__(self, house: SipHouse) -> None:
        self._house = house

    async def serve(self, socket: WebSocket) -> None:
        """Serves one connection: only who offers the subprotocol `sip` is taken."""
        if SUBPROTOCOL not in socket.scope.get("subprotocols", []) or socket.client is None:
            await socket.close(1002)
            return
        await socket.accept(SUBPROTOCOL)

        async def receive() -> bytes | None:
            try:
                came = await socket.receive()
            except (WebSocketDisconnect, RuntimeError):
                return None
            if came["type"] == "websocket.disconnect":
                return None
            text: str | None = came.get("text")
            return (came.get("bytes") or b"") if text is None else text.encode()

        async def send(message: bytes) -> None:
            try:
                text = message.decode()
            except UnicodeDecodeError:
                await socket.send_bytes(message)
            else:
                await socket.send_text(text)

        transport = "wss" if socket.url.scheme in ("wss", "https") else "ws"
        await self._house.sip_socket(transport, source_of(socket.scope), socket.client.port, receive, send)
        if socket.client_state is WebSocketState.CONNECTED is socket.application_state:
            await socket.close()
