"""WHIP's ICE: servers that a browser is told of, later candidates, a restart (RFC 9725 §4.3, §4.6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gateway.config.ice_servers import IceServers
from gateway.config.settings import Settings, load
from gateway.errors import CallRefused, SettingsError
from gateway.front.http.app import build_app
from gateway.ipc.line_messages import IceReply
from tests.gateway.front.http.test_app import OFFER, SDP, FakeHouse

FRAGMENT = "application/trickle-ice-sdpfrag"
SECRET = "a secret of two servers"


class IceHouse(FakeHouse):
    """Says what a line would."""

    def __init__(self) -> None:
        super().__init__()
        self.reply = IceReply(204)
        self.asked_with: list[tuple[str, str, str]] = []

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        return "c1", "v=0\r\na=ice-ufrag:abcd\r\n"

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        self.asked_with.append((call_id, fragment, etag))
        if call_id != "c1":
            raise CallRefused(404, f"no running call {call_id}")
        return self.reply


@pytest.fixture
def house() -> IceHouse:
    return IceHouse()


def _settings(folder: Path) -> Settings:
    secret = folder / "secret"
    secret.touch(0o600)
    secret.write_text(f"{SECRET}\n")
    servers = ("stun:stun.example", "turn:turn.example:3478?transport=tcp")
    return Settings(host="127.0.0.1", ice_servers=servers, turn_secret_file=secret, max_call_s=300)


@pytest.fixture
def client(house: IceHouse, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build_app(house, _settings(tmp_path)), base_url="http://localhost:8080") as client:
        client.get("/")
        yield client


def placed(client: TestClient) -> str:
    """The Location of a call that was placed."""
    return str(client.post("/api/call", content=SDP, headers=OFFER).headers["location"])


def test_an_answer_names_its_ice_session_and_the_servers(client: TestClient) -> None:
    answer = client.post("/api/call", content=SDP, headers=OFFER)
    assert answer.headers["etag"] == '"abcd"'
    stun, turn = answer.headers.get_list("link")
    assert stun == '<stun:stun.example>; rel="ice-server"'
    assert turn.startswith('<turn:turn.example:3478?transport=tcp>; rel="ice-server"; username="')
    assert turn.endswith('credential-type="password"')


def test_a_page_is_told_the_same(client: TestClient) -> None:
    stun, turn = client.get("/api/ice").json()["iceServers"]
    assert stun == {"urls": "stun:stun.example"}
    until = int(turn["username"].partition(":")[0])
    assert 890 <= until - time.time() <= 900  # the longest call, and ten minutes
    mac = hmac.new(SECRET.encode(), turn["username"].encode(), hashlib.sha1).digest()
    assert turn["credential"] == base64.b64encode(mac).decode()


def test_a_fragment_goes_to_its_call(client: TestClient, house: IceHouse) -> None:
    headers, own = {"Content-Type": FRAGMENT, "If-Match": '"abcd"'}, placed(client)
    assert client.patch(own, content="a=candidate:…", headers=headers).status_code == 204
    assert house.asked_with == [("c1", "a=candidate:…", '"abcd"')]
    house.reply = IceReply(200, "a=ice-ufrag:new\r\n", '"new"')
    anew = client.patch(own, content="x", headers=headers | {"If-Match": "*"})
    assert (anew.status_code, anew.text, anew.headers["etag"]) == (200, "a=ice-ufrag:new\r\n", '"new"')
    assert anew.headers["content-type"].startswith(FRAGMENT)
    house.reply = IceReply(412, wrong="that is another ICE session")
    assert client.patch(own, content="x", headers=headers).status_code == 412
    assert client.patch("/api/call/c1", content="x", headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/sdp", "If-Match": "*"}, b"x", 415),
        ({"Content-Type": FRAGMENT}, b"x", 428),
        ({"Content-Type": FRAGMENT, "If-Match": "*"}, b"\xff", 400),
        ({"Content-Type": FRAGMENT, "If-Match": "*", "Origin": "https://evil.example"}, b"x", 403),
    ],
)
def test_what_cannot_be_is_refused(
    client: TestClient, house: IceHouse, headers: dict[str, str], content: bytes, status: int
) -> None:
    assert client.patch(placed(client), content=content, headers=headers).status_code == status
    assert not house.asked_with


def test_without_servers_nothing_is_said(house: IceHouse) -> None:
    with TestClient(build_app(house, Settings(host="127.0.0.1")), base_url="http://localhost:8080") as client:
        client.get("/")
        assert client.get("/api/ice").json() == {"iceServers": []}
        assert "link" not in client.post("/api/call", content=SDP, headers=OFFER).headers


def test_a_secret_is_one(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    assert settings.turn_secret_file is not None
    assert SECRET not in repr(IceServers(settings).now())
    settings.turn_secret_file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"every user of this machine may read .*chmod 600"):
        IceServers(settings)
    settings.turn_secret_file.chmod(0o600)
    settings.turn_secret_file.write_text("short")
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        IceServers(settings)
    with pytest.raises(SettingsError, match="set VOICEGATE_TURN_SECRET_FILE too"):
        IceServers(Settings(ice_servers=("turn:turn.example",)))


@pytest.mark.parametrize(
    "written", ["turn.example", "turn:a b", 'turn:x">', "http://x", "turn:x?transport=sctp"]
)
def test_what_is_no_server_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="VOICEGATE_ICE_SERVERS"):
        load({"VOICEGATE_ICE_SERVERS": written, "VOICEGATE_DATA_DIR": "/nowhere"})
