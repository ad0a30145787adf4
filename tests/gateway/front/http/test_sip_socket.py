"""`/sip`: who may open it, and that each message is a frame of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gateway.config.settings import Settings, load
from gateway.errors import SettingsError
from gateway.front.http.app import build_app
from gateway.front.http.sip_socket import Receive, Send
from tests.gateway.front.http.test_app import FakeHouse

WS = "ws://localhost:8080"


class SipHouse(FakeHouse):
    """Says back what it hears, until it hears nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[str, str]] = []

    async def sip_socket(self, transport: str, host: str, port: int, receive: Receive, send: Send) -> None:
        self.came.append((transport, host))
        while (frame := await receive()) and frame != b"enough":
            await send(frame)


@pytest.fixture
def house() -> SipHouse:
    return SipHouse()


@pytest.fixture
def client(house: SipHouse) -> Iterator[TestClient]:
    app = build_app(house, Settings(host="127.0.0.1", web_origins=("https://shop.example",)))
    with TestClient(app, base_url="http://localhost:8080") as client:
        yield client


def test_messages_are_frames(client: TestClient, house: SipHouse) -> None:
    with client.websocket_connect(f"{WS}/sip", subprotocols=["other", "sip"]) as socket:
        assert socket.accepted_subprotocol == "sip"
        socket.send_text("OPTIONS sip:ü")
        assert socket.receive_text() == "OPTIONS sip:ü"
        socket.send_bytes(b"\xff")
        assert socket.receive_bytes() == b"\xff"
        socket.send_text("enough")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    assert house.came == [("ws", "testclient")]


def test_over_https_it_is_wss(client: TestClient, house: SipHouse) -> None:
    with client.websocket_connect("wss://localhost:8443/sip", subprotocols=["sip"]) as socket:
        socket.send_text("enough")
    assert house.came[0][0] == "wss"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/sip", {}),
        ("/sip", {"subprotocols": ["xmpp"]}),
        ("/other", {"subprotocols": ["sip"]}),
        ("/sip", {"subprotocols": ["sip"], "headers": {"Origin": "https://evil.example"}}),
        ("/sip", {"subprotocols": ["sip"], "headers": {"Origin": "null"}}),
        ("/sip", {"subprotocols": ["sip"], "headers": {"Host": "evil.example"}}),
    ],
)
def test_who_may_not_is_turned_away(
    client: TestClient, house: SipHouse, path: str, more: dict[str, Any]
) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{WS}{path}", **more):
        pass
    assert not house.came


@pytest.mark.parametrize("origin", ["http://localhost:8080", "https://shop.example"])
def test_our_own_page_may_and_one_that_the_operator_named(
    client: TestClient, house: SipHouse, origin: str
) -> None:
    with client.websocket_connect(f"{WS}/sip", subprotocols=["sip"], headers={"Origin": origin}) as socket:
        socket.send_text("enough")
    assert house.came


def test_that_page_may_nothing_else(client: TestClient, house: SipHouse) -> None:
    response = client.post("/api/call", content="v=0", headers={"Origin": "https://shop.example"})
    assert response.status_code == 403
    assert not house.placed


@pytest.mark.parametrize("written", ["*", "shop.example", "https://shop.example/", "https://*.example"])
def test_what_is_no_origin_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="VOICEGATE_WEB_ORIGINS"):
        load({"VOICEGATE_WEB_ORIGINS": written, "VOICEGATE_DATA_DIR": "/nowhere"})
