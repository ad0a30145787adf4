"""Who may do what over HTTP, asked by an enemy: tokens without the right, over, revoked, guessed, forged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from gateway.config.settings import Settings
from gateway.front.admission.rights import RIGHTS, ROLES
from gateway.front.http import boundary, credentials
from gateway.front.http.app import build_app
from gateway.front.http.credentials import COOKIE, PAGE_COOKIE, SOURCES, WRONG_TOKENS, Gatekeeper, Guesses
from gateway.front.http.operations import OPERATIONS, Operation
from gateway.store.api_tokens import ApiTokens
from gateway.store.registry import Registry
from tests.gateway.front.http.test_app import BEARER, OFFER, SDP, TOKEN, FakeHouse
from tests.needs import HANGS_S

LAN = "http://192.0.2.7:8080"
HERE = "http://localhost:8080"
GUARDED = [one for one in OPERATIONS if one.needs in RIGHTS and not one.is_door]


class Door:
    """An app with a table of tokens, and what it refused."""

    def __init__(self, folder: Path, more: list[Route] | None = None, **settings: Any) -> None:
        self.registry = Registry.open(f"sqlite:///{folder / 'tokens.db'}")
        self.tokens = ApiTokens(self.registry)
        self.tokens.open()
        self.house = FakeHouse()
        self.refused: Counter[str] = Counter()
        given = {"host": "0.0.0.0", "data_dir": folder, **settings}
        self.app: Starlette = build_app(
            self.house, Settings(**given), TOKEN, more or [], tokens=self.tokens,
            counted=lambda why: self.refused.update([why]),
        )  # fmt: skip

    def client(self, base_url: str = LAN, **headers: str) -> TestClient:
        return TestClient(self.app, base_url=base_url, headers=headers, raise_server_exceptions=False)

    def shows(self, role: str, lives_s: float = 60) -> dict[str, str]:
        """The header of a new token of that role."""
        return {"Authorization": f"Bearer {self.tokens.make(role, role, lives_s, 'a test')[1]}"}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path)
    yield opened
    opened.registry.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path, host="127.0.0.1")
    yield opened
    opened.registry.close()


def asked(client: TestClient, one: Operation, **more: Any) -> Any:
    given = {"day": "2026-03-02", "file": "c1-1.wav", "trunk": "carrier"}
    path = one.path.format(call_id="c1", own_call="c1.0", token_id="a" * 10, name="anna", **given)
    return client.request(one.method, path, **more)


@pytest.mark.parametrize("one", GUARDED, ids=lambda one: one.name)
def test_without_the_right_nothing_is_done_and_the_refusal_names_it(door: Door, one: Operation) -> None:
    refused = asked(door.client(), one, headers=door.shows("nobody"))
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["right"] == one.needs
    assert door.refused == {one.needs: 1}
    assert not door.house.placed
    assert not door.house.hung_up
    assert asked(door.client(), one).status_code == 401


@pytest.mark.parametrize("one", GUARDED, ids=lambda one: one.name)
def test_the_right_opens(door: Door, one: Operation) -> None:
    answer = asked(door.client(), one, headers=door.shows("admin"))
    assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("one", GUARDED, ids=lambda one: one.name)
def test_on_loopback_too_all_but_reading_needs_a_token(here: Door, one: Operation) -> None:
    answer = asked(here.client(HERE), one)
    if one.needs == "calls.read":
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401
        assert answer.json()["right"] == one.needs
    assert not here.house.placed
    assert not here.house.hung_up


def test_the_page_on_loopback_may_call_and_no_more(here: Door) -> None:
    client = here.client(HERE)
    given = client.get("/").headers["set-cookie"].lower()
    assert "samesite=strict" in given
    assert "httponly" in given
    assert client.get("/api/me").json()["rights"] == ["calls.read", "calls.place"]
    location = client.post("/api/call", content=SDP, headers=OFFER).headers["location"]
    assert client.delete("/api/calls/c1").status_code == 401, "an operator's hang-up is another right"
    assert client.get("/api/tokens").status_code == 401
    assert here.house.hung_up == []
    assert client.delete(location).status_code == 204, "its own call it may leave"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_another_page_in_the_same_browser_gets_nowhere(here: Door, headers: dict[str, str]) -> None:
    """Even if the browser sent our cookie with it."""
    client = here.client(HERE)
    client.get("/")
    assert client.post("/api/call", content=SDP, headers={**OFFER, **headers}).status_code in (403, 421)
    assert client.post("/api/tokens", json={}, headers=headers).status_code in (403, 421)
    assert not here.house.placed


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
    ],
)
def test_who_comes_through_a_proxy_does_not_sit_here(here: Door, headers: dict[str, str]) -> None:
    client = here.client(HERE)
    assert client.get("/api/calls", headers=headers).status_code == 401
    assert client.get("/", headers=headers, follow_redirects=False).headers["location"] == "/login"
    assert PAGE_COOKIE not in client.cookies


@pytest.mark.parametrize(
    "settings",
    [
        {"public_url": "https://voice.example.org"},
        {"http_names": ("voice.example.org",)},
        {"trusted_proxies": ("127.0.0.1",)},
    ],
)
def test_a_loopback_that_others_reach_by_a_name_is_not_open(tmp_path: Path, settings: dict[str, Any]) -> None:
    door = Door(tmp_path, host="127.0.0.1", **settings)
    assert door.client(HERE).get("/api/calls").status_code == 401
    assert door.client(HERE).get("/api/calls", headers=BEARER).status_code == 200


def test_a_token_that_is_over_opens_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = door.shows("watcher", 1)
    assert door.client().get("/api/calls", headers=shown).status_code == 200
    now = time.time()
    monkeypatch.setattr("gateway.store.api_tokens.time.time", lambda: now + 2)
    assert door.client().get("/api/calls", headers=shown).status_code == 401


def test_a_token_that_was_revoked_opens_nothing_from_then_on(door: Door) -> None:
    shown = door.shows("watcher")
    assert door.client().get("/api/calls", headers=shown).status_code == 200
    (token,) = door.tokens.listed()
    assert door.client().delete(f"/api/tokens/{token.token_id}", headers=BEARER).status_code == 204
    assert door.client().get("/api/calls", headers=shown).status_code == 401
    assert door.client().delete(f"/api/tokens/{token.token_id}", headers=BEARER).status_code == 404
    (over,) = door.tokens.listed()
    assert str(over.revoked_by).startswith("console")


def test_a_login_with_a_token_has_its_rights_and_ends_with_it(door: Door) -> None:
    client = door.client()
    text = door.shows("watcher")["Authorization"].removeprefix("Bearer ")
    client.post("/login", data={"token": text})
    assert text not in client.cookies[COOKIE]
    assert client.get("/api/me").json()["role"] == "watcher"
    assert client.post("/api/call", content=SDP, headers=OFFER).status_code == 403
    door.tokens.revoke(door.tokens.listed()[0].token_id, "a test")
    assert client.get("/api/calls").status_code == 401


def test_a_cookie_cannot_be_made_of_another(door: Door, here: Door) -> None:
    client = here.client(HERE)
    client.get("/")
    page = client.cookies[PAGE_COOKIE]
    watcher = door.client()
    watcher.post("/login", data={"token": door.shows("watcher")["Authorization"].removeprefix("Bearer ")})
    session = watcher.cookies[COOKIE]
    whose, until, mac = session.split(".")
    for forged in (
        page, page.replace("page", "console", 1), f"console.{until}.{mac}", f"{whose}.{int(until) + 9}.{mac}",
        f"{whose}.{until}.", f"{whose}..{mac}", "console.9999999999.", "9" * 300, "..", "é",
    ):  # fmt: skip
        headers = {"Cookie": f"{COOKIE}={forged}".encode()}
        assert door.client().get("/api/calls", headers=headers).status_code == 401, forged


def test_nobody_gives_a_right_that_he_has_not(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROLES, "clerk", frozenset({"tokens.write", "calls.read"}))
    shown = door.shows("clerk")
    for role, status in (("watcher", 201), ("nobody", 201), ("operator", 403), ("admin", 403)):
        made = door.client().post("/api/tokens", json={"name": "x", "role": role}, headers=shown)
        assert made.status_code == status
    listed = door.client().get("/api/tokens", headers=shown)
    assert "sha256" not in listed.text
    assert {one["made_by"].partition(" ")[0] for one in listed.json()["tokens"]} == {"clerk", "a"}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"name": "x"}', b'{"name": "x", "role": "king"}', b"\xff", b"[" * 9000,
     b'{"name": "x", "role": "watcher", "expires_s": 1e99}', b'{"name": "x", "role": "watcher", "more": 1}'],
)  # fmt: skip
def test_what_is_no_wish_for_a_token_is_refused(door: Door, body: bytes) -> None:
    assert door.client().post("/api/tokens", content=body, headers=BEARER).status_code == 400
    assert door.tokens.listed() == []


def test_a_thousand_wrong_tokens_cost_little_and_open_nothing(door: Door) -> None:
    client = door.client()
    looked_up = 0
    of = door.tokens.of

    def counting(text: str) -> Any:
        nonlocal looked_up
        looked_up += 1
        return of(text)

    door.tokens.of = counting  # type: ignore[method-assign]
    statuses: Counter[int] = Counter()
    for number in range(1000):
        guess = f"vgt_{'a' * 10}_{number:043d}"
        statuses[client.get("/api/calls", headers={"Authorization": f"Bearer {guess}"}).status_code] += 1
    assert statuses == {401: WRONG_TOKENS, 429: 1000 - WRONG_TOKENS}
    assert looked_up == WRONG_TOKENS
    assert door.refused == {"token": WRONG_TOKENS, "wait": 1000 - WRONG_TOKENS}


def test_a_header_does_not_make_somebody_else_of_who_guesses(door: Door) -> None:
    client = door.client()
    for number in range(WRONG_TOKENS):
        headers = {"Authorization": "Bearer guess", "X-Forwarded-For": f"198.51.100.{number}"}
        client.get("/api/calls", headers=headers)
    late = {"Authorization": "Bearer guess", "X-Forwarded-For": "198.51.100.99"}
    assert client.get("/api/calls", headers=late).status_code == 429


def test_behind_a_proxy_that_is_trusted_each_has_his_own_guesses(tmp_path: Path) -> None:
    door = Door(tmp_path, trusted_proxies=("192.0.2.200", "198.51.100.0/24"))
    client = TestClient(door.app, base_url=LAN, client=("192.0.2.200", 4711), raise_server_exceptions=False)

    def asks(forwarded: str) -> int:
        headers = {"Authorization": "Bearer guess", "X-Forwarded-For": forwarded}
        return client.get("/api/calls", headers=headers).status_code

    for number in range(WRONG_TOKENS):  # what stands before the last that is not a proxy's, anybody wrote
        assert asks(f"10.0.0.{number}, 203.0.113.5, 198.51.100.1") == 401
    assert asks("203.0.113.5") == 429
    assert asks("203.0.113.6") == 401
    assert asks("no address") == 401


def test_so_many_sources_are_remembered_and_no_more() -> None:
    guesses = Guesses()
    for number in range(SOURCES + 5):
        guesses.note(str(number))
    assert len(guesses._wrong) == SOURCES


def test_a_database_that_is_away_opens_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = door.shows("admin")
    door.registry.close()
    monkeypatch.setattr(door.tokens, "_row", _away)
    answer = door.client().get("/api/calls", headers=shown)
    assert answer.status_code == 503
    assert door.client().get("/api/calls", headers=BEARER).status_code == 200, "the console's own is a file"


def _away(_: str) -> Any:
    from gateway.store.registry import RegistryError

    raise RegistryError("the disk is gone: secret place")


class Stream:
    """A request whose answer never ends by itself, by the rules of ASGI."""

    def __init__(self, app: Starlette, headers: dict[str, str]) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self._gone = asyncio.Event()
        named = {"host": "192.0.2.7", **{name.lower(): value for name, value in headers.items()}}
        self._scope = {
            "type": "http", "method": "GET", "path": "/api/events", "raw_path": b"/api/events",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()], "scheme": "http",
            "client": ("192.0.2.9", 1), "server": ("192.0.2.7", 80), "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        self.serving = asyncio.ensure_future(app(self._scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            (self.begun if message.get("more_body") else self.ended).set()


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_what_it_listens_to_ends_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(boundary, "STILL_EVERY_S", 0.01)
    left = asyncio.Event()

    async def words() -> AsyncIterator[bytes]:
        yield b"data: hello\n\n"
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def slow(_: Request) -> StreamingResponse:
        return StreamingResponse(words())

    door = Door(tmp_path, [Route("/api/events", slow)])
    token, text = door.tokens.make("a", "watcher", 60, "a test")
    stream = Stream(door.app, {"Authorization": f"Bearer {text}"})
    other = Stream(door.app, BEARER)
    async with asyncio.timeout(HANGS_S):
        await asyncio.gather(stream.begun.wait(), other.begun.wait())
        if how == "revoked":
            door.tokens.revoke(token.token_id, "a test")
        else:
            now = time.time()
            monkeypatch.setattr(credentials.time, "time", lambda: now + 61)
        await asyncio.gather(stream.ended.wait(), left.wait(), stream.serving)
    assert door.refused["over"] == 1
    assert not other.ended.is_set(), "another's goes on"
    other.serving.cancel()
    await asyncio.gather(other.serving, return_exceptions=True)


def test_what_happens_is_for_who_may_read_calls(tmp_path: Path) -> None:
    async def serve(_: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    door = Door(tmp_path, [Route("/api/events", serve)])
    assert door.client().get("/api/events").status_code == 401
    for role, status in (("watcher", 200), ("caller", 403), ("nobody", 403)):
        assert door.client().get("/api/events", headers=door.shows(role)).status_code == status


def test_no_secret_is_logged(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    client = door.client()
    text = client.post("/api/tokens", json={"name": "x", "role": "watcher"}, headers=BEARER).json()["token"]
    client.post("/login", data={"token": text})
    client.post("/login", data={"token": text[:-1] + "x"})
    client.delete("/api/calls/c1", headers={"Authorization": f"Bearer {text}"})
    said = "".join(capsys.readouterr())
    assert "token.made" in said
    assert "right.missing" in said
    assert text[15:-1] not in said
    assert TOKEN not in said


def test_a_session_outlives_the_front_and_not_the_console_s_token() -> None:
    make: Callable[[str], Gatekeeper] = lambda token: Gatekeeper(token, None, local_only=False)  # noqa: E731
    location = make("one").own_call("c1")
    assert make("one").is_own_call("c1", location)
    assert not make("two").is_own_call("c1", location)
    assert not make("one").is_own_call("c2", location)
