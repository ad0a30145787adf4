"""The house and its plans over HTTP: who may see what, and questions of an enemy's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gateway.dialplan import Dialplan, Route
from gateway.dialplan.routes import Hours
from gateway.dialplan.verbs import Answer, Hangup
from gateway.front.calls.house_report import HouseShown
from gateway.front.http.house_shapes import HouseTold, PlanShown, RouteTold, TelephoneList
from gateway.ipc.binding import Binding
from gateway.ipc.front_messages import TelephoneState
from tests.gateway.front.http.test_app import BEARER, HOUSE, FakeHouse
from tests.gateway.front.http.test_rights import HERE, LAN, Door

HOSTILE = "<img src=x onerror=alert(1)>"
PLAN = Dialplan(
    (
        Route(
            name="vip", called=("menu",), caller=("+49*",), source=("192.0.2.0/24",),
            headers={"x-tier": (HOSTILE,)}, hours=(Hours(days="mon-fri"),), zone="Europe/Berlin",
            do=(Answer(), Hangup()), file="/plans/10-vip.toml", line=3,
        ),
        Route(name="menu", called=("menu", HOSTILE), do=(Answer(),), file="/plans/20-menu.toml", line=7),
        Route(name="inner", do=(Hangup(),), file="/plans/20-menu.toml", line=20),
    ),
    {"carol": "sip:+4930123@pbx", "desk": "user:reception", "out": "trunk:carrier/+4930456"},
    Path("/plans"),
    version="0123456789ab",
)  # fmt: skip


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path)
    opened.house.plan = lambda: PLAN  # type: ignore[method-assign]
    yield opened
    opened.registry.close()


@pytest.fixture
def watcher(door: Door) -> TestClient:
    return door.client(**door.shows("watcher"))


def test_the_house_is_told_to_whoever_may_read(door: Door, watcher: TestClient) -> None:
    told = watcher.get("/api/house")
    assert told.status_code == 200
    shown = HouseTold.model_validate(told.json())
    assert (shown.calls, shown.places["telephones"].free) == (1, 23)
    assert shown.office == "", "who can read keys is for whoever may reload"
    assert door.client(**door.shows("operator")).get("/api/house").json()["office"] == "runs as root"


async def test_many_who_ask_at_once_cost_one_question(door: Door) -> None:
    asked = asyncio.Event()

    async def slow(_: FakeHouse) -> HouseShown:
        door.house.asked += 1
        asked.set()
        await asyncio.sleep(0)
        return HOUSE

    door.house.house = slow.__get__(door.house)  # type: ignore[method-assign]
    transport = httpx.ASGITransport(door.app)
    async with httpx.AsyncClient(transport=transport, base_url=LAN, headers=BEARER) as client:
        answers = await asyncio.gather(*(client.get("/api/house") for _ in range(20)))
    assert {one.status_code for one in answers} == {200}
    assert door.house.asked <= 2, "one, or two where the first second was over meanwhile"


def test_the_page_is_behind_the_login_and_loads_nothing_from_elsewhere(door: Door) -> None:
    stranger = door.client()
    sent = stranger.get("/house", follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?then=/house")
    for file in ("house.js", "house.css", "house.html"):
        assert stranger.get(f"/console/{file}").status_code == 401
    page = door.client(**BEARER).get("/house")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "set-cookie" not in page.headers
    assert "style=" not in page.text
    assert "onclick" not in page.text


def test_routes_are_shown_with_their_conditions_and_without_their_texts(watcher: TestClient) -> None:
    told = watcher.get("/api/dialplans").json()
    PlanShown.model_validate(told)
    assert told["routes"][0] == {
        "name": "vip", "file": "10-vip.toml", "line": 3, "called": ["menu"], "caller": ["+49*"],
        "source": ["192.0.2.0/24"], "headers": {"x-tier": [HOSTILE]}, "hours": ["mon-fri 00:00-24:00"],
        "emergency": False, "zone": "Europe/Berlin", "voice": "heart", "language": "en",
        "verbs": ["answer", "hangup"],
    }  # fmt: skip


def test_somebodys_number_is_for_whoever_may_change_plans(door: Door, watcher: TestClient) -> None:
    watched = watcher.get("/api/dialplans")
    assert "4930" not in watched.text
    assert "/plans" not in watched.text
    assert [(one["name"], one["by"]) for one in watched.json()["targets"]] == [
        ("carol", "caller"), ("desk", "telephone"), ("out", "trunk"),
    ]  # fmt: skip
    told = door.client(**door.shows("operator")).get("/api/dialplans").json()
    assert told["folder"] == "/plans"
    assert [one["address"] for one in told["targets"]] == list(PLAN.targets.values())


def test_a_call_is_tried_and_each_route_before_it_says_why_not(watcher: TestClient) -> None:
    told = watcher.get("/api/dialplans/route", params={"called": "menu", "caller": "anna"}).json()
    RouteTold.model_validate(told)
    assert told["route"]["name"] == "menu"
    assert told["passed"] == [{"name": "vip", "why": "caller anna fits none of +49*"}]
    assert told["plan"] == PLAN.version
    peer = {"called": "menu", "caller": "+4930", "source": "192.0.2.7", "at": "2026-03-02T12:00"}
    told = watcher.get("/api/dialplans/route", params={**peer, "header": f"X-Tier={HOSTILE}"}).json()
    assert told["route"]["name"] == "vip"
    assert told["at"].startswith("2026-03-02T12:00:00")


@pytest.mark.parametrize(("called", "status"), [("nobody", 404), ("112", 380), ("b>" + HOSTILE, 404)])
def test_what_a_caller_hears_whom_no_route_takes(watcher: TestClient, called: str, status: int) -> None:
    told = watcher.get("/api/dialplans/route", params={"called": called})
    assert told.headers["content-type"] == "application/json"
    assert (told.json()["route"], told.json()["status"]) == (None, status)
    assert len(told.json()["passed"]) == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"called": ""},
        {"called": "x" * 257},
        {"called": "a\x00b"},
        {"called": "menu", "caller": "\n"},
        {"called": "menu", "at": "noon"},
        {"called": "menu", "at": "9999-12-31"},
        {"called": "menu", "at": "0001-01-01"},
        {"called": "menu", "header": ["a=b"] * 17},
        {"called": "menu", "header": "x" * 301},
        {"called": "menu", "more": "1"},
    ],
)
def test_what_is_no_call_is_refused(watcher: TestClient, asked: dict[str, Any]) -> None:
    refused = watcher.get("/api/dialplans/route", params=asked)
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"


def test_nothing_of_a_call_that_is_tried_is_placed(door: Door, watcher: TestClient) -> None:
    watcher.get("/api/dialplans/route", params={"called": "menu"})
    assert door.house.placed == []
    assert watcher.post("/api/dialplans/route").status_code == 405


def test_registered_telephones_are_for_whoever_keeps_users(door: Door, watcher: TestClient) -> None:
    held = Binding(
        user="zoe", key="k1", contact="sip:zoe@10.0.0.7", call_id_hash="h", cseq=1, transport="udp",
        host="192.0.2.7", port=5060, source="192.0.2.7", user_agent=HOSTILE, registered_at=1.0,
        expires_at=2.0,
    )  # fmt: skip
    silent = TelephoneState("zoe", "k1", False, None)
    door.house.telephones = lambda: [(held, silent), (replace(held, user="anna"), None)]  # type: ignore[method-assign]
    assert watcher.get("/api/telephones").status_code == 403
    told = door.client(**BEARER).get("/api/telephones").json()
    anna, zoe = TelephoneList.model_validate(told).telephones
    assert (anna.user, anna.answers, zoe.user, zoe.answers) == ("anna", None, "zoe", False)
    assert zoe.user_agent == HOSTILE
    assert "10.0.0.7" not in str(told), "the Contact is nobody's matter"


def test_on_loopback_the_house_is_read_without_a_token_and_plans_stay_as_they_are(tmp_path: Path) -> None:
    here = Door(tmp_path, host="127.0.0.1")
    try:
        client = here.client(HERE)
        assert client.get("/house").status_code == 200
        assert client.get("/api/house").status_code == 200
        assert client.get("/api/dialplans/route").status_code == 200
        for path in ("/api/reload", "/api/dialplans/check"):
            assert client.post(path).status_code == 401
        assert client.get("/api/telephones").status_code == 401
    finally:
        here.registry.close()
