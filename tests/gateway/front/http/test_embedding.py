"""The call button on another page: what opens it, what it opens, and how often."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from gateway.config.settings import Settings
from gateway.front.http import embedding
from gateway.front.http.app import build_app
from gateway.front.http.embedding import TOKEN_S
from tests.gateway.front.http.test_app import BEARER, OFFER, SDP, TOKEN, FakeHouse

SHOP = "https://shop.example"


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def client(house: FakeHouse) -> Iterator[TestClient]:
    settings = Settings(host="0.0.0.0", embed_origins=(SHOP, "https://other.example"), embed_per_address=2)
    app = build_app(house, settings, TOKEN)
    with TestClient(app, base_url="http://192.0.2.7:8080") as client:
        yield client


def token(client: TestClient, origin: str = SHOP, dialled: str = "demo") -> str:
    answer = client.post("/api/embed", json={"origin": origin, "dialled": dialled}, headers=BEARER)
    assert answer.status_code == 200
    assert answer.json()["expires_s"] == TOKEN_S
    return str(answer.json()["token"])


def page(token: str, origin: str = SHOP, **more: str) -> dict[str, str]:
    return {"Origin": origin, "Authorization": f"Bearer {token}", "Sec-Fetch-Site": "cross-site", **more}


def test_its_page_calls_and_hangs_up(client: TestClient, house: FakeHouse) -> None:
    shown = token(client)
    asked = client.options("/api/call", headers={"Origin": SHOP, "Access-Control-Request-Method": "POST"})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == SHOP
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    answer = client.post("/api/call?dialled=demo", content=SDP, headers=page(shown, **OFFER))
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert client.get("/api/ice", headers=page(shown)).status_code == 200
    assert client.delete(answer.headers["location"], headers=page(shown)).status_code == 204
    assert house.hung_up == ["c1"]


@pytest.mark.parametrize("path", ["/", "/api/calls", "/api/calls/c1", "/metrics", "/api/embed", "/api/callx"])
def test_it_opens_nothing_else(client: TestClient, path: str) -> None:
    answer = client.get(path, headers=page(token(client)))
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_is_for_its_page_its_number_and_its_minutes(
    client: TestClient, house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = token(client)
    for headers, query in [
        (page(shown, "https://other.example", **OFFER), ""),
        (page(shown, **OFFER), "?dialled=premium"),
        (page(shown[:-1], **OFFER), ""),
        (page(f"9{shown}", **OFFER), ""),
        (page("x", **OFFER), ""),
        (page("", **OFFER), ""),
        (page(TOKEN, **OFFER), ""),
    ]:
        assert client.post(f"/api/call{query}", content=SDP, headers=headers).status_code == 401
    now = time.time()
    monkeypatch.setattr(embedding.time, "time", lambda: now + TOKEN_S + 1)
    assert client.post("/api/call", content=SDP, headers=page(shown, **OFFER)).status_code == 401
    assert not house.placed


def test_the_number_cannot_be_smuggled_in(client: TestClient, house: FakeHouse) -> None:
    answer = client.post("/api/call", json={"sdp": SDP, "dialled": "premium"}, headers=page(token(client)))
    assert answer.status_code == 415
    for query in (
        "dialled=demo&dialled=premium",
        "dialled=premium&dialled=demo",
        "dialled=&dialled=demo",
        "dialled=",
    ):
        answer = client.post(f"/api/call?{query}", content=SDP, headers=page(token(client), **OFFER))
        assert answer.status_code == 401
    assert not house.placed


def test_an_address_calls_so_often_and_no_more(client: TestClient, house: FakeHouse) -> None:
    statuses = [
        client.post("/api/call", content=SDP, headers=page(token(client), **OFFER)).status_code
        for _ in range(3)
    ]
    assert statuses == [201, 201, 429]


def test_an_origin_too() -> None:
    settings = Settings(embed_origins=(SHOP,), embed_per_origin=1)
    app = build_app(FakeHouse(), settings, TOKEN)
    with TestClient(app, base_url="http://localhost:8080", headers=BEARER) as client:
        shown = client.post("/api/embed", json={"origin": SHOP}).json()["token"]
        for status in (201, 429):
            answer = client.post("/api/call", content=SDP, headers=page(shown, **OFFER))
            assert answer.status_code == status
        assert answer.headers["retry-after"] == "60"


def test_who_gets_a_token(client: TestClient) -> None:
    assert client.post("/api/embed", json={"origin": SHOP}).status_code == 401
    for body in (
        {"origin": "https://evil.example"},
        {"dialled": "demo"},
        [],
        {"origin": SHOP, "dialled": "a b"},
    ):
        assert client.post("/api/embed", json=body, headers=BEARER).status_code in (400, 403)


def test_it_is_off_unless_the_operator_names_origins(house: FakeHouse) -> None:
    app = build_app(house, Settings(), TOKEN)
    with TestClient(app, base_url="http://localhost:8080", headers=BEARER) as client:
        assert client.post("/api/embed", json={"origin": SHOP}).status_code == 403
        answer = client.post("/api/call", content=SDP, headers={"Origin": SHOP, **OFFER})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert not house.placed


def test_an_origin_that_is_not_named_is_told_so_and_the_operator_once(
    client: TestClient, house: FakeHouse
) -> None:
    with capture_logs() as logs:
        for headers in ({"Access-Control-Request-Method": "POST"}, {}):
            for path in ("/api/call", "/api/ice", "/api/call/c1"):
                asked = {"Origin": "https://evil.example", **headers}
                answer = client.request("OPTIONS" if headers else "GET", path, headers=asked)
                assert answer.status_code == 403
                assert answer.json()["detail"] == (
                    "the page's origin, 'https://evil.example', is not among VOICEGATE_EMBED_ORIGINS"
                )
                assert "access-control-allow-origin" not in answer.headers
        for k in range(2 * embedding.STRANGERS):
            client.get("/api/ice", headers={"Origin": f"https://evil{k}.example{'x' * 200}"})
    told = [one["origin"] for one in logs if one["event"] == "embed.refused"]
    assert told[0] == "https://evil.example"
    assert len(told) == len(set(told)) == embedding.STRANGERS
    assert max(map(len, told)) == 100
    assert not house.placed
