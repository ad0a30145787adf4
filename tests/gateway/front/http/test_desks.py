"""What operators' programs ask for beside calls: users, recordings, plans, what a conversation shall do."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gateway.front.admission.rights import ROLES
from gateway.front.admission.trunks_out import TrunksOut
from gateway.front.calls.call_list import CallsWanted
from gateway.ipc.front_messages import TrunkState
from gateway.store.call_search import CallSearch
from gateway.store.sip_users import SipUsers
from tests.gateway.front.http.test_app import BEARER, FakeHouse
from tests.gateway.front.http.test_rights import Door


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path)
    yield opened
    opened.registry.close()


@pytest.fixture
def client(door: Door) -> TestClient:
    return door.client(**BEARER)


# ── users ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_user_is_added_and_its_password_told_once(client: TestClient, tmp_path: Path) -> None:
    made = client.put("/api/users/anna", json={"srtp": "required"}).json()
    assert len(made.pop("password")) == 19
    shown = {"name": "anna", "role": "caller", "legacy": False, "srtp": "required"}
    assert made == shown
    told = client.get("/api/users")
    assert told.json() == {"users": [shown]}
    assert client.put("/api/users/anna", json={"password": "long enough"}).json()["password"] is None
    assert SipUsers(tmp_path).ha1("anna") is not None
    assert client.delete("/api/users/anna").status_code == 204
    assert client.delete("/api/users/anna").status_code == 404


@pytest.mark.parametrize(
    ("name", "wish"),
    [("a b", {}), ("a", {"password": "short"}), ("a", {"role": "king"}), ("a", {"more": 1}), ("a" * 65, {}),
     ("a", {"password": "line\nbreak"}), ("a", {"legacy": "yes"}), ("..", {})],
)  # fmt: skip
def test_what_is_no_user_is_refused(client: TestClient, name: str, wish: dict[str, Any]) -> None:
    assert client.put(f"/api/users/{name}", json=wish).status_code in (400, 404, 405)
    assert client.get("/api/users").json() == {"users": []}


def test_nobody_makes_a_user_of_more_rights_than_his(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROLES, "clerk", frozenset({"users.write", "calls.place"}))
    clerk = door.client(**door.shows("clerk"))
    assert clerk.put("/api/users/anna", json={"role": "operator"}).status_code == 403
    assert clerk.put("/api/users/anna", json={}).status_code == 200
    door.client(**BEARER).put("/api/users/boss", json={"role": "admin"})
    assert clerk.put("/api/users/boss", json={}).status_code == 403, "nor takes such a one's password"


def test_no_password_and_no_hash_comes_out_again(client: TestClient, tmp_path: Path, capsys: Any) -> None:
    client.put("/api/users/anna", json={"password": "open sesame"})
    client.put("/api/users/anna", json={"password": "open sesame", "rights": []})
    hashed = SipUsers(tmp_path).ha1("anna")
    told = client.get("/api/users").text + "".join(capsys.readouterr())
    assert "sesame" not in told
    assert str(hashed) not in told


# ── trunks ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_trunk_is_listed_taken_out_of_service_and_put_back(door: Door, tmp_path: Path) -> None:
    state = TrunkState("carrier", None, True, {"udp:192.0.2.1:5060": ""}, calls=1, calls_at_most=4)
    door.house.trunks = TrunksOut(tmp_path / "trunks_out.json", lambda: [state])
    client, watcher = door.client(**BEARER), door.client(**door.shows("watcher"))
    (shown,) = client.get("/api/trunks").json()["trunks"]
    assert shown == {
        "name": "carrier", "up": True, "why": None, "registered": True,
        "addresses": {"udp:192.0.2.1:5060": ""}, "calls": 1, "calls_at_most": 4, "answers": {},
        "not_let_out": {}, "out": None,
    }  # fmt: skip
    wish = {"in_service": False, "why": "fraud"}
    assert watcher.put("/api/trunks/carrier/service", json=wish).json()["right"] == "trunks.write"
    assert client.put("/api/trunks/carrier/service", json=wish).status_code == 204
    out = watcher.get("/api/trunks").json()["trunks"][0]["out"]
    assert (out["by"], out["why"]) == ("console", "fraud")
    assert client.put("/api/trunks/carrier/service", json={"in_service": True}).status_code == 204
    assert client.get("/api/trunks").json()["trunks"][0]["out"] is None
    assert client.put("/api/trunks/moon/service", json=wish).status_code == 404
    for wrong in ({}, {"in_service": "no"}, {**wish, "why": "a\nb"}, {**wish, "why": "x" * 201}):
        assert client.put("/api/trunks/carrier/service", json=wrong).status_code == 400


# ── recordings ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Two recordings, and what is none of ours beside them."""
    for day, name in (("2026-03-02", "c1-1772449200.wav"), ("2026-03-03", "c2-1772535600.wav")):
        folder = tmp_path / "recordings" / day
        folder.mkdir(parents=True)
        with wave.open(str(folder / name), "wb") as out:
            out.setparams((1, 2, 24_000, 0, "NONE", ""))
            out.writeframes(bytes(4800))
    (tmp_path / "recordings" / "2026-03-03" / "notes.txt").write_text("x")
    (tmp_path / "recordings" / "2026-03-03" / "c3-1.wav").symlink_to("/etc/passwd")
    (tmp_path / "secret-1.wav").write_text("x")
    return tmp_path / "recordings"


def test_what_callers_left_is_listed_and_heard(client: TestClient, left: Path) -> None:
    listed = client.get("/api/recordings").json()["recordings"]
    assert [(one["day"], one["file"], one["call_id"], one["bytes"]) for one in listed] == [
        ("2026-03-03", "c2-1772535600.wav", "c2", 4844), ("2026-03-02", "c1-1772449200.wav", "c1", 4844),
    ]  # fmt: skip
    assert len(client.get("/api/recordings?limit=1").json()["recordings"]) == 1
    assert [one["call_id"] for one in client.get("/api/recordings?call_id=c1").json()["recordings"]] == ["c1"]
    assert client.get("/api/recordings?limit=0").status_code == 400
    heard = client.get("/api/recordings/2026-03-02/c1-1772449200.wav")
    assert heard.headers["content-type"] == "audio/wav"
    assert heard.content[:4] == b"RIFF"
    part = client.get("/api/recordings/2026-03-02/c1-1772449200.wav", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")


def test_a_course_has_its_recordings_for_who_may_hear_them(
    client: TestClient, door: Door, left: Path
) -> None:
    at = 1772449200.0
    told = {"at": at + 0.75, "kind": "recorded", "data": {"path": "/x/2026-03-02/c1-1772449200.wav"}}
    door.house.courses["c1"]["call"]["events"] = [told]
    assert client.get("/api/calls/c1/course").json()["recordings"] == [
        {"href": "/api/recordings/2026-03-02/c1-1772449200.wav", "began_at": at + 0.65, "duration_s": 0.1}
    ]
    told["data"] = {"path": ["no path"]}
    assert client.get("/api/calls/c1/course").json()["recordings"][0]["began_at"] == at
    (left / "2026-03-02" / "c1-1772449200.wav").write_bytes(b"no sound")
    assert client.get("/api/calls/c1/course").json()["recordings"][0]["duration_s"] == 0
    watcher = door.client(**door.shows("watcher"))
    assert watcher.get("/api/calls/c1/course").json()["recordings"] is None


@pytest.mark.parametrize(
    "path",
    [
        "2026-03-03/c3-1.wav",
        "2026-03-03/notes.txt",
        "../secret-1.wav",
        "..%2f/secret-1.wav",
        "%2e%2e/secret-1.wav",
        "2026-03-03/..%2f..%2fsecret-1.wav",
        "2026-03-03/c9-1.wav",
        "2026-03-03/",
        "2026-03-03/c2-1772535600.wav%00",
    ],
)
def test_nothing_else_is_heard(client: TestClient, left: Path, path: str) -> None:
    assert client.get(f"/api/recordings/{path}").status_code == 404


# ── what a conversation shall do ─────────────────────────────────────────────────────────────────────


def test_a_conversation_is_steered(door: Door, client: TestClient) -> None:
    assert client.post("/api/calls/c1/say", json={"text": "one moment"}).status_code == 204
    assert client.post("/api/calls/c1/transfer", json={"target": "desk"}).status_code == 204
    assert client.put("/api/calls/c1/mute", json={"muted": True}).status_code == 204
    assert client.put("/api/calls/c1/mute", json={"muted": False}).status_code == 204
    assert door.house.steered == [("say", "one moment"), ("transfer", "desk"), ("mute", ""), ("unmute", "")]
    assert client.post("/api/calls/c2/say", json={"text": "one moment"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "say", {"text": ""}),
        ("POST", "say", {"text": "x" * 501}),
        ("POST", "say", {"text": "a\x00b"}),
        ("POST", "say", {}),
        ("POST", "transfer", {"target": "sip:evil@example.com"}),
        ("PUT", "mute", {"muted": 1}),
        ("POST", "transfer", {"target": "+4930123"}),
    ],
)
def test_what_is_no_wish_is_refused(
    door: Door, client: TestClient, method: str, path: str, body: Any
) -> None:
    assert client.request(method, f"/api/calls/c1/{path}", json=body).status_code == 400
    assert not door.house.steered


# ── the list ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_search_is_read_as_it_is_written(door: Door, client: TestClient) -> None:
    asked = "state=live&caller=%2B4930&since=1.5&failed=true&limit=3&id=ab&route=desk&voice=jane&how=hung+up"
    more = "poor=1&least_s=2.5&most_s=90&sort=-duration&count=1"
    assert client.get(f"/api/calls?{asked}&{more}").status_code == 200
    assert client.get("/api/refused?caller=%2B4930&id=ab&limit=3&count=true").status_code == 200
    wanted, refused = door.house.searched
    assert wanted == CallsWanted(
        search=CallSearch(
            id="ab", caller="+4930", since=1.5, route="desk", voice="jane", how="hung up", failed=True,
            poor=True, least_s=2.5, most_s=90.0, ended=False,
        ),
        sort="-duration", count=3, counted=True,
    )  # fmt: skip
    assert refused == (CallSearch(id="ab", caller="+4930"), 3, None, True)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=9999", "state=x", "since=nan", "since=-1", "since=1e400", "more=1",
              "caller=%00", "failed=perhaps", "sort=price", "sort=--began", "least_s=-1", "most_s=inf",
              "id=%07", "route=%0a", "cursor=" + "a" * 101],
)  # fmt: skip
def test_a_search_that_is_none_is_refused(door: Door, client: TestClient, query: str) -> None:
    assert client.get(f"/api/calls?{query}").status_code == 400
    assert client.get(f"/api/refused?{query}").status_code == 400
    assert not door.house.searched


@pytest.mark.parametrize("path", ["/api/calls", "/api/refused", "/api/calls/c1"])
def test_who_may_not_read_calls_lists_none(door: Door, path: str) -> None:
    told = door.client(**door.shows("caller")).get(path)
    assert (told.status_code, told.json()["right"]) == (403, "calls.read")
    assert not door.house.searched


def test_plans_are_shown_tried_and_reloaded(client: TestClient) -> None:
    shown = {"version": "0123456789ab", "folder": "/plans", "routes": [], "targets": []}
    assert client.get("/api/dialplans").json() == shown
    assert client.post("/api/dialplans/check").json() == {"version": "0123456789ab"}
    assert client.post("/api/reload").json() == {
        "plan": "0123456789ab", "was": "0123456789ab", "failed": {}, "notes": [],
    }  # fmt: skip
    assert client.get("/api/voices").json() == {"voices": ["heart"]}


def test_what_does_not_load_is_a_problem_that_says_what(door: Door, client: TestClient) -> None:
    from gateway.ipc.front_messages import Reloaded

    async def reloaded(_: FakeHouse) -> Reloaded:
        return Reloaded("new", "old", {"trunks": "trunks.toml:3: no host"}, ("a note",))

    door.house.reloaded = reloaded.__get__(door.house)  # type: ignore[method-assign]
    refused = client.post("/api/reload")
    assert refused.status_code == 409
    told = refused.json()
    assert (told["plan"], told["failed"], told["notes"]) == (
        "new",
        {"trunks": "trunks.toml:3: no host"},
        ["a note"],
    )
    assert "trunks.toml:3" in told["detail"]
