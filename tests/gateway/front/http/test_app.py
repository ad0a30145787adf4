"""The HTTP side's boundaries, against a house of this test's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.errors import CallRefused, StartError
from gateway.front.admission.trunks_out import TrunksOut
from gateway.front.calls.call_list import CallsWanted, ListedCalls
from gateway.front.calls.house_report import (
    CertificateShown,
    EngineShown,
    HouseShown,
    Places,
    ProcessShown,
    ReceiverShown,
)
from gateway.front.calls.refused_list import ListedRefusals
from gateway.front.halls.headroom import HallRoom
from gateway.front.http import app as app_module
from gateway.front.http.app import build_app
from gateway.front.http.boundary import MAX_BODY
from gateway.front.http.credentials import COOKIE, WRONG_TOKENS
from gateway.front.http.engine_door import engine_door
from gateway.ipc.binding import Binding
from gateway.ipc.ending import End
from gateway.ipc.front_messages import HouseState, Reloaded, TelephoneState
from gateway.ipc.line_messages import IceReply
from gateway.ipc.readiness import PartState
from gateway.ipc.wire_message import WireMessage
from gateway.store.refused_calls import RefusedFor

TOKEN = "a-token-of-the-console"
SDP = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"
OFFER = {"Content-Type": "application/sdp"}


HOUSE = HouseShown(
    at=1000.0, ready=True, why=(), parts={"hall": "ready", "engine": "ready"}, draining=False, calls=1,
    plan="0123456789ab",
    places={"telephones": Places(24, 23), "browsers": Places(8, 8)},
    halls=(HallRoom("hall0", 1, None, False, {"pass_s": 0.25}, 0.4),), registered=1, unreachable=0,
    processes=(ProcessShown("front", "up", 900.0, 0, 50_000_000),),
    build={"version": "0.2.0", "commit": "", "python": "3.11.2"},
    engine=EngineShown("embedded", "ready", "", ()), watermark="on, key k1", ledger="", ledger_doubt="",
    office="runs as root", certificates=(CertificateShown("the house's, signed by itself", "AB:CD", 2000.0),),
    receivers=(ReceiverShown("crm", 3, 0),), collector=None, alarms={},
    refused=(RefusedFor(503, "busy", 2, 990.0),), disk=Places(10**11, 10**10),
)  # fmt: skip


class FakeHouse:
    def __init__(self) -> None:
        self.trunks = TrunksOut(Path("/nowhere"), list)
        self.placed: list[tuple[str, str, str, str]] = []
        self.hung_up: list[str] = []
        self.hows: list[End] = []
        self.refuses: Exception | None = None
        self.is_ready = True
        self.hall: PartState = "ready"
        self.busy = ""
        self.asked = 0
        self.searched: list[Any] = []
        self.steered: list[tuple[str, str]] = []
        self.courses: dict[str, dict[str, Any]] = {
            "c1": {
                "call": {"call_id": "c1"}, "wrong": False, "causes": [], "not_known": [],
                "sound": {"step_s": 0.1, "flag_names": {}, "parts": [], "ended_early": False},
                "ladder": [], "log": [],
            }
        }  # fmt: skip

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        if self.refuses is not None:
            raise self.refuses
        self.placed.append((offer_sdp, dialled, source, user_agent))
        return "c1", "v=0\r\nanswer"

    async def hang_up(self, call_id: str, how: End) -> None:
        if call_id != "c1":
            raise CallRefused(404, f"no running call {call_id}")
        self.hung_up.append(call_id)
        self.hows.append(how)

    async def steer(self, call_id: str, act: str, what: str, by: str) -> None:
        if call_id != "c1":
            raise CallRefused(404, f"no running call {call_id}")
        self.steered.append((act, what))

    async def list_calls(self, wanted: CallsWanted) -> ListedCalls:
        self.searched.append(wanted)
        return ListedCalls(calls=[{"call_id": "c1", "state": "listening"}])

    async def list_refused(self, *asked: Any, counted: bool) -> ListedRefusals:
        self.searched.append((*asked, counted))
        return ListedRefusals(refused=[])

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        return {"call_id": call_id} if call_id == "c1" else None

    async def call_course(self, call_id: str) -> dict[str, Any] | None:
        return self.courses.get(call_id)

    async def statement(self, call_id: str) -> dict[str, Any] | None:
        return {"statement": "a.b.c", "claims": {"synthetic": True}, "keys": {}} if call_id == "c1" else None

    async def trickle(self, *_: str) -> IceReply:
        raise AssertionError("nobody trickles here")

    async def sip_socket(self, *_: Any) -> None:
        raise AssertionError("nobody speaks SIP here")

    def plan(self) -> Dialplan:
        return Dialplan((), {}, Path("/plans"), version="0123456789ab")

    async def tried_plan(self) -> str:
        return "0123456789ab"

    async def reloaded(self) -> Reloaded:
        return Reloaded("0123456789ab", "0123456789ab")

    def voices_named(self) -> list[str]:
        return ["heart"]

    async def house(self) -> HouseShown:
        self.asked += 1
        return HOUSE

    def telephones(self) -> list[tuple[Binding, TelephoneState | None]]:
        return []

    async def prometheus(self) -> bytes:
        return b"voicegate_calls 1\n"

    async def ready(self) -> HouseState:
        self.asked += 1
        return HouseState(
            self.is_ready, {"hall0": self.hall}, busy=self.busy, watermark="hidden", voices=("hidden",)
        )


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def local(house: FakeHouse) -> Iterator[TestClient]:
    """A gateway bound to loopback, asked by the page that was opened there."""
    app = build_app(house, Settings(host="127.0.0.1"), TOKEN)
    with TestClient(app, base_url="http://localhost:8080", raise_server_exceptions=False) as client:
        client.get("/")
        yield client


@pytest.fixture
def lan(house: FakeHouse) -> Iterator[TestClient]:
    """A gateway bound to every address: with a token."""
    app = build_app(house, Settings(host="0.0.0.0", http_names=("voice.example.com",)), TOKEN)
    with TestClient(app, base_url="http://192.0.2.7:8080", raise_server_exceptions=False) as client:
        yield client


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_an_offer_is_answered(local: TestClient, house: FakeHouse) -> None:
    response = local.post("/api/call", content=SDP, headers={**OFFER, "User-Agent": "a browser"})
    assert response.status_code == 201
    assert response.headers["location"].startswith("/api/call/c1.")
    assert response.headers["content-type"].startswith("application/sdp")
    assert response.text == "v=0\r\nanswer"
    assert house.placed == [(SDP, "demo", "testclient", "a browser")]


def test_the_number_dialled_comes_by_query_or_json(local: TestClient, house: FakeHouse) -> None:
    assert local.post("/api/call?dialled=sales", content=SDP, headers=OFFER).status_code == 201
    answered = local.post("/api/call", json={"sdp": SDP, "dialled": "+49 30"})
    assert answered.status_code == 400
    answered = local.post("/api/call", json={"sdp": SDP, "dialled": "+4930"})
    told = answered.json()
    assert told.pop("location").startswith("/api/call/c1.")
    assert told == {"call_id": "c1", "sdp": "v=0\r\nanswer"}
    assert [placed[1] for placed in house.placed] == ["sales", "+4930"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("hello", "application/sdp", 400),
        ("", "application/sdp", 400),
        (SDP, "text/plain", 415),
        ("{", "application/json", 400),
        ("[" * 5000, "application/json", 400),
        ("[]", "application/json", 400),
        ('{"sdp": 3}', "application/json", 400),
        ('{"sdp": "v=0", "dialled": ["demo"]}', "application/json", 400),
        (b"\xff\xfe", "application/sdp", 400),
        ("v=0" + "x" * MAX_BODY, "application/sdp", 413),
    ],
)
def test_what_is_no_offer_is_refused(
    local: TestClient, house: FakeHouse, content: Any, kind: str, status: int
) -> None:
    response = local.post("/api/call", content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert response.json()["status"] == status
    assert not house.placed


def test_a_body_without_a_length_is_bounded_too(local: TestClient, house: FakeHouse) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"v=0"
        for _ in range(MAX_BODY // 1000 + 1):
            yield b"x" * 1000

    response = local.post("/api/call", content=chunks(), headers=OFFER)
    assert response.status_code == 413
    assert not house.placed


def test_a_full_house_says_when_to_come_again(local: TestClient, house: FakeHouse) -> None:
    house.refuses = CallRefused(503, "all web lines are busy", retry_after_s=7)
    response = local.post("/api/call", content=SDP, headers=OFFER)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank", "title": "Service Unavailable", "status": 503,
        "detail": "all web lines are busy", "retry_after_s": 7,
    }  # fmt: skip


@pytest.mark.parametrize(("sip", "http"), [(404, 404), (403, 403), (488, 400), (486, 503), (999, 502)])
def test_sip_refusals_become_http(local: TestClient, house: FakeHouse, sip: int, http: int) -> None:
    house.refuses = CallRefused(sip, "no")
    assert local.post("/api/call", content=SDP, headers=OFFER).status_code == http


def test_a_failure_is_json_without_a_traceback(local: TestClient, house: FakeHouse) -> None:
    house.refuses = RuntimeError("secret detail")
    response = local.post("/api/call", content=SDP, headers=OFFER)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert response.json()["status"] == 500


def test_hanging_up(local: TestClient, house: FakeHouse) -> None:
    assert local.delete("/api/calls/c1", headers=BEARER).status_code == 204
    assert local.delete("/api/calls/c2", headers=BEARER).status_code == 404
    assert local.delete("/api/calls/..%2Fx", headers=BEARER).status_code == 404
    assert house.hung_up == ["c1"]
    assert house.hows == [End.CONSOLE]


def test_the_caller_hangs_up_where_the_answer_said(local: TestClient, house: FakeHouse) -> None:
    location = local.post("/api/call", content=SDP, headers=OFFER).headers["location"]
    assert local.delete(location).status_code == 204
    assert local.delete(f"{location}?why=no-sound").status_code == 204
    assert local.delete(f"{location}?why=anything").status_code == 204
    assert house.hows == [End.CALLER, End.NO_MEDIA, End.CALLER]
    assert local.delete("/api/call/c1").status_code == 404, "the id alone does not say that it is theirs"
    assert local.delete(location.replace("/c1.", "/c2.")).status_code == 404
    assert local.delete("/api/call/..%2Fx").status_code == 404


def test_what_a_browser_says_of_its_call_is_seen_without_its_password(house: FakeHouse) -> None:
    seen: list[tuple[str, WireMessage, str]] = []
    app = build_app(house, Settings(), TOKEN, on_wire=lambda *one: seen.append(one))
    offer = SDP.rstrip() + "\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
    with TestClient(app, base_url="http://localhost:8080") as client:
        client.get("/")
        location = client.post("/api/call", content=offer, headers=OFFER).headers["location"]
        client.delete(location)
        house.refuses = CallRefused(404, "no route")
        client.post("/api/call", content=offer, headers=OFFER)
    told = [(one, f"{message.sender}>{message.receiver} {message.first}") for one, message, _ in seen]
    assert told[:4] == [
        ("c1", "caller>us POST /api/call"), ("c1", "us>caller 201 Created"),
        ("c1", "caller>us DELETE /api/call"), ("c1", "us>caller 204 No Content"),
    ]  # fmt: skip
    assert [text for _, text in told[4:]] == ["caller>us POST /api/call", "us>caller 404 Not Found"]
    assert {standing for one, _, standing in seen if one != "c1"} == {"refused"}
    assert {message.protocol for _, message, _ in seen} == {"http"}
    assert "a=ice-pwd:(24 characters)" in seen[0][1].text.splitlines()
    assert "abcdefghijklmnopqrstuvwx" not in "".join(message.text for _, message, _ in seen)


def test_a_whip_client_asks_what_it_may_post(local: TestClient) -> None:
    response = local.options("/api/call")
    assert response.status_code == 204
    assert response.headers["accept-post"] == "application/sdp"
    assert set(response.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        ("/", {"GET", "HEAD"}),
        ("/login", {"GET", "HEAD", "POST"}),
        ("/logout", {"POST"}),
        ("/api/call", {"POST", "OPTIONS"}),
        ("/api/call/c1", {"DELETE", "PATCH"}),
        ("/api/calls", {"GET", "HEAD"}),
        ("/api/calls/c1", {"GET", "HEAD", "DELETE"}),
        ("/metrics", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
        ("/console/call.js", {"GET", "HEAD"}),
        ("/engine/voice", {"POST"}),
    ],
)
def test_a_method_that_is_not_taken_is_told_which_are(house: FakeHouse, path: str, takes: set[str]) -> None:
    async def fetch(grant: str, voice_hash: str) -> Any:
        raise AssertionError("nobody asks for a voice here")

    app = build_app(house, Settings(host="127.0.0.1"), TOKEN, more=[engine_door(fetch, "x")])
    with TestClient(app, base_url="http://localhost:8080", headers=BEARER) as client:
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - takes:
            refused = client.request(method, path)
            assert refused.status_code == 405, method
            assert set(refused.headers["allow"].split(", ")) == takes, method


async def test_a_caller_who_does_not_wait_for_the_answer_gets_no_call(house: FakeHouse) -> None:
    """By the rules of ASGI: nothing else than `receive` says that the browser is gone."""
    app = build_app(house, Settings(host="127.0.0.1"), TOKEN)
    placing, cancelled = asyncio.Event(), asyncio.Event()

    async def place(*_: str) -> tuple[str, str]:
        placing.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("it should have been cancelled")

    house.place = place  # type: ignore[method-assign]  # this test's
    body = iter([{"type": "http.request", "body": SDP.encode(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in body:
            return message
        await placing.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        """To nobody."""

    headers = [(b"host", b"localhost"), (b"content-type", b"application/sdp")]
    headers.append((b"authorization", f"Bearer {TOKEN}".encode()))
    scope = {
        "type": "http", "method": "POST", "path": "/api/call", "raw_path": b"/api/call", "query_string": b"",
        "headers": headers, "scheme": "http", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    assert cancelled.is_set()


def test_calls_metrics_and_health(local: TestClient, house: FakeHouse) -> None:
    assert local.get("/api/calls").json() == {
        "calls": [{"call_id": "c1", "state": "listening"}], "next": None, "previous": None, "found": None,
        "found_more": False, "silence": None,
    }  # fmt: skip
    assert local.get("/api/refused").json() == {"refused": [], "next": None, "previous": None, "found": None}
    assert local.get("/api/calls/c1").json() == {"call_id": "c1"}
    assert local.get("/api/calls/c9").status_code == 404
    assert local.get("/metrics").text == "voicegate_calls 1\n"
    assert local.get("/healthz").status_code == 200
    assert local.get("/readyz").json() == {"ready": True, "parts": {"hall0": "ready"}}


def test_readiness_is_asked_of_the_house_once_a_second(
    local: TestClient, house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        assert local.get("/readyz").status_code == 200
    assert house.asked == 1
    house.is_ready, house.hall = False, "slow"
    monkeypatch.setattr("gateway.front.http.app.READY_FOR_S", 0.0)
    assert local.get("/readyz").status_code == 503
    assert local.get("/readyz").json() == {"ready": False, "parts": {"hall0": "slow"}}


def test_why_it_is_busy_is_for_who_shows_the_token(lan: TestClient, house: FakeHouse) -> None:
    house.is_ready, house.busy = False, "hall0: pass_s is 0.019, of 0.016 at most"
    for headers in ({}, {"Authorization": "Bearer a-guess"}):
        refused = lan.get("/readyz", headers=headers)
        assert refused.status_code == 503
        assert refused.json() == {"ready": False, "parts": {"hall0": "ready"}, "busy": True}
    assert lan.get("/readyz", headers=BEARER).json()["busy"] == house.busy
    lan.cookies.set(COOKIE, lan.post("/login", data={"token": TOKEN}).cookies.get(COOKIE) or "")
    assert lan.get("/readyz").json()["busy"] == house.busy


def test_who_sits_at_the_machine_is_told_why_it_is_busy(local: TestClient, house: FakeHouse) -> None:
    house.is_ready, house.busy = False, "hall0: pass_s is 0.019, of 0.016 at most"
    assert local.get("/readyz").json()["busy"] == house.busy


@pytest.mark.parametrize("path", ["/nowhere", "/console/../app.py", "/console/%2e%2e/app.py"])
def test_nothing_else_is_served(local: TestClient, path: str) -> None:
    response = local.get(path)
    assert response.status_code == 404
    assert response.json()["status"] == 404


@pytest.mark.parametrize("path", ["/", "/api/calls", "/nowhere", "/console/console.css"])
def test_every_answer_is_strict(local: TestClient, path: str) -> None:
    headers = local.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "192.0.2.1"]
)
def test_a_rebound_name_is_refused_on_loopback(local: TestClient, house: FakeHouse, host: str) -> None:
    assert local.get("/api/calls", headers={"Host": host}).status_code == 421
    assert local.get("/healthz", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8080", "LOCALHOST:8080"])
def test_loopback_has_several_names(local: TestClient, host: str) -> None:
    assert local.get("/api/calls", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_may_not_call(local: TestClient, house: FakeHouse, headers: dict[str, str]) -> None:
    assert local.post("/api/call", content=SDP, headers={**OFFER, **headers}).status_code == 403
    assert local.delete("/api/calls/c1", headers=headers).status_code == 403
    assert not house.placed
    assert not house.hung_up


def test_our_own_page_may(local: TestClient) -> None:
    headers = {**OFFER, "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert local.post("/api/call", content=SDP, headers=headers).status_code == 201


def test_no_token_no_gateway_beyond_loopback(house: FakeHouse) -> None:
    with pytest.raises(StartError, match="token"):
        build_app(house, Settings(host="0.0.0.0"))


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/calls"), ("POST", "/api/call"), ("DELETE", "/api/calls/c1"), ("GET", "/metrics"),
     ("GET", "/console/console.js"), ("POST", "/logout"), ("GET", "/nowhere")],
)  # fmt: skip
def test_the_lan_needs_the_token(lan: TestClient, method: str, path: str) -> None:
    response = lan.request(method, path, content=SDP, headers=OFFER)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    wrong = lan.request(method, path, content=SDP, headers={**OFFER, "Authorization": "Bearer nearly"})
    assert wrong.status_code == 401


def test_the_token_opens(lan: TestClient) -> None:
    assert lan.get("/api/calls", headers=BEARER).status_code == 200
    assert lan.post("/api/call", content=SDP, headers={**OFFER, **BEARER}).status_code == 201
    assert lan.get("/healthz").status_code == 200
    assert lan.get("/readyz").status_code == 200


def test_a_lan_gateway_answers_to_its_addresses_and_names(lan: TestClient) -> None:
    for host in ("192.0.2.7:8080", "[2001:db8::1]:8080", "voice.example.com", "localhost"):
        assert lan.get("/api/calls", headers={**BEARER, "Host": host}).status_code == 200
    assert lan.get("/api/calls", headers={**BEARER, "Host": "evil.example"}).status_code == 421


def test_the_form_gives_a_cookie(lan: TestClient) -> None:
    assert lan.get("/", follow_redirects=False).headers["location"] == "/login"
    assert "Console token" in lan.get("/login").text
    refused = lan.post("/login", data={"token": "no"})
    assert refused.status_code == 401
    assert "not the token" in refused.text
    opened = lan.post("/login", data={"token": TOKEN}, follow_redirects=False)
    assert opened.headers["location"] == "/"
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert lan.get("/api/calls").status_code == 200
    assert lan.post("/api/call", content=SDP, headers={**OFFER, "Origin": "http://evil"}).status_code == 403
    lan.post("/logout")
    assert lan.get("/api/calls").status_code == 401


def test_a_page_of_a_call_is_come_back_to_after_the_login(lan: TestClient) -> None:
    sent = lan.get("/calls/c1", follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?then=/calls/c1")
    assert lan.get("/api/calls/c1/course").status_code == 401
    for then, leads in (
        ("/calls/c1", "/calls/c1"), ("/calls", "/calls"), ("//evil.example", "/"), ("/calls/../logout", "/"),
        ("https://evil.example/calls/c1", "/"), ("/calls/c1%0d%0aX: y", "/"), ("/api/calls", "/"),
    ):  # fmt: skip
        form = lan.post(f"/login?then={then}", data={"token": TOKEN}, follow_redirects=False)
        assert form.headers["location"] == leads
    assert "/console/course.js" in lan.get("/calls/c1").text


def test_a_forged_cookie_does_not(lan: TestClient) -> None:
    for value in ("", "x", TOKEN, '"', "ä"):
        response = lan.get("/api/calls", headers={"Cookie": f"{COOKIE}={value}".encode()})
        assert response.status_code == 401


def test_guessing_is_slowed(lan: TestClient) -> None:
    for _ in range(WRONG_TOKENS):
        assert lan.get("/api/calls", headers={"Authorization": "Bearer guess"}).status_code == 401
    assert lan.get("/api/calls", headers={"Authorization": "Bearer guess"}).status_code == 429
    assert lan.post("/login", data={"token": TOKEN}).status_code == 429
    assert lan.get("/api/calls", headers=BEARER).status_code == 429


def test_a_right_cookie_never_waits(lan: TestClient) -> None:
    lan.post("/login", data={"token": TOKEN})
    for _ in range(WRONG_TOKENS + 1):
        lan.get("/api/calls", headers={"Authorization": "Bearer guess", "Cookie": ""})
    assert lan.get("/api/calls").status_code == 200


def test_what_a_call_says_of_itself_needs_no_token_and_nothing_else_is_opened(house: FakeHouse) -> None:
    app = build_app(house, Settings(host="0.0.0.0"), TOKEN)
    with TestClient(app, base_url="http://192.0.2.7:8080", raise_server_exceptions=False) as client:
        assert client.get("/synthetic/c1").json()["claims"] == {"synthetic": True}
        assert client.get("/synthetic/c2").status_code == 404
        assert client.get("/synthetic/..%2fapi%2fcalls").status_code == 404
        assert client.get("/synthetic/../api/calls").status_code == 401
        assert client.post("/synthetic/c1").status_code == 405
        assert client.get("/synthetic").status_code == 401


def test_the_page_is_known_by_its_public_url(house: FakeHouse) -> None:
    app = build_app(house, Settings(host="0.0.0.0", public_url="https://voice.example.org/gate"), TOKEN)
    with TestClient(app, base_url="https://voice.example.org", raise_server_exceptions=False) as client:
        assert client.get("/synthetic/c1").status_code == 200


def test_no_script_of_the_console_writes_markup() -> None:
    scripts = sorted((Path(app_module.__file__).parent / "console").glob("*.js"))
    assert len(scripts) > 20
    for script in scripts:
        for writer in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc"):
            assert writer not in script.read_text(), f"{script.name}: strangers' words may be among it"
