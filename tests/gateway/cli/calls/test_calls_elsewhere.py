"""`voicegate calls` beside a gateway, and from elsewhere by its API: both say the same."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from starlette.testclient import TestClient

from gateway.cli.house import house_client as module
from gateway.cli.main import cli
from gateway.config.settings import Settings, load
from gateway.front.calls.call_list import CallList, CallsWanted, ListedCalls
from gateway.front.calls.refused_list import ListedRefusals, RefusalList
from gateway.front.events.event_shelf import EventShelf, NewEvent
from gateway.front.http.app import build_app
from gateway.front.http.event_feed import EventFeed
from gateway.ipc.ending import CallEnding, End
from gateway.store.call_events import CallOffered, Turn
from gateway.store.call_headers import CallHeaders
from gateway.store.call_search import CallSearch
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey
from tests.gateway.front.http.test_app import TOKEN, FakeHouse

URL = "https://gate.example:8443"
CALLS = 30


class KeptHouse(FakeHouse):
    """A front that has calls in its stores."""

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.registry = Registry.open(load().sql)
        self.redis_url = redis_url
        self._sessions: Sessions | None = None

    async def _list(self) -> CallList:
        self._sessions = self._sessions or await Sessions.open(self.redis_url)
        return CallList(self.registry, self._sessions)

    async def list_calls(self, wanted: CallsWanted) -> ListedCalls:
        return await (await self._list()).page(wanted)

    async def list_refused(
        self, search: CallSearch, count: int, cursor: str | None, *, counted: bool
    ) -> ListedRefusals:
        return RefusalList(self.registry).page(search, count, cursor, counted=counted)

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        return await (await self._list()).one(call_id)


@pytest.fixture
def house(own_house: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptHouse]:
    """It has calls of all kinds; whoever asks for it by --url asks its app."""
    monkeypatch.setenv("VOICEGATE_REDIS_URL", valkey.url)
    house = KeptHouse(valkey.url)
    asyncio.run(filled(house))
    token = own_house.parent / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    shelf = EventShelf(own_house.parent / "events.db", 3600.0).open()
    shelf.keep([NewEvent("c001", 5.0, CallOffered(caller="sip:bob@x"))])
    feed = EventFeed(shelf, asyncio.Event)
    app = build_app(house, Settings(host="0.0.0.0", http_names=("gate.example",)), TOKEN, [feed.route()])
    with AppClient(app, base_url=URL) as client:
        monkeypatch.setattr(module.httpx, "Client", lambda **more: put(client, more["headers"]))
        yield house
    house.registry.close()
    shelf.close()


class AppClient(TestClient):
    """An app in the place of a network: it is asked without a limit of time, and left open."""

    def request(self, *args: Any, timeout: object = None, **more: Any) -> httpx.Response:
        return super().request(*args, **more)

    def close(self) -> None:
        pass


def put(client: AppClient, headers: dict[str, str]) -> AppClient:
    client.headers.update(headers)
    return client


async def filled(house: KeptHouse) -> None:
    now = time.time()
    sessions = await Sessions.open(house.redis_url)
    for number in range(CALLS):
        call_id = f"c{number:03d}"
        house.registry.enter(
            CallRow(
                call_id=call_id, payload=number, route="desk" if number % 5 else "demo", plan="0123456789ab",
                caller=f"sip:+4930{number:03d}\x1b[2J@x" if number == 3 else f"sip:+4930{number:03d}@x",
                called="sip:demo@gw", source="10.0.0.9", voice="heart", grant_jti=f"jti-{number}",
                started_at=now - 3600 + number, sip_call_id=f"{number}-a@phone",
            )
        )  # fmt: skip
        session = sessions.session(call_id)
        session.opened(caller=f"sip:+4930{number:03d}@x", called="sip:demo@gw", route="demo")
        if number % 10 == 9:
            continue
        how = CallEnding(End.LINE_DIED if number % 7 == 3 else End.CALLER)
        session.turn(Turn("caller", "when are you open", duration_s=1.2), at=now)
        session.note(mos=4.2, far_mos=4.0 - number / 20)
        session.ended(how, at=now - 3500 + number * 2, underruns=0)
        house.registry.close_call(call_id, how, now - 3500 + number * 2, 4.0 - number / 20)
    house.registry.enter(
        CallRow(call_id="c-lost", payload=999, route="demo", caller="a", called="b", source="c")
    )
    await sessions.close()
    headers = CallHeaders(house.registry)
    headers.open()
    headers.note("c004", {"p-asserted-identity": "<tel:+4930>"})
    refused = RefusedCalls(house.registry)
    refused.open()
    refused.note(
        [
            RefusedCall(
                call_id=f"r{number:02}", sip_call_id=f"{number}/no@phone", caller=f"sip:eve{number}@h",
                called="sip:x@gw", source=f"192.0.2.{number}", transport="udp", status=404 + number % 2,
                reason="no route takes it", started_at=now + number,
            )
            for number in range(25)
        ]
    )  # fmt: skip


def here(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["calls", *argv])


def there(*argv: str) -> Result:
    token = load().data_dir.parent / "token"
    return CliRunner().invoke(cli, ["--url", URL, "--token-from", str(token), "calls", *argv])


ASKED = [
    (),
    ("--count", "7"),
    ("--count", "100"),
    ("--failed",),
    ("--poor", "--sort", "-duration"),
    ("--sort", "caller", "--count", "3"),
    ("--caller", "4930 02", "--state", "ended"),
    ("--route", "demo", "--how", "caller", "--voice", "heart"),
    ("--at-least", "120", "--at-most", "130"),
    ("--since", "2h", "--until", "1m", "--id", "c00"),
    ("--id", "17-a@"),
    ("--caller", "nobody at all"),
    ("--json", "--count", "3"),
    ("--csv",),
    ("--csv", "--count", "5", "--state", "live"),
    ("--refused",),
    ("--refused", "--caller", "eve1", "--count", "3"),
    ("--refused", "--csv"),
    ("--refused", "--json", "--id", "1"),
    ("show", "c004"),
    ("show", "c009"),
    ("show", "17-a@phone"),
    ("show", "c-lost"),
    ("show", "r03"),
    ("show", "3/no@phone"),
    ("why", "c003"),
    ("why", "c005"),
    ("why", "c005", "--json"),
    ("why", "r03"),
    ("why", "3/no@phone"),
    ("show", "nobody/else?"),
    ("why", "c\x1b[2J"),
]


def test_the_same_words_are_said_beside_a_gateway_and_from_elsewhere(house: KeptHouse) -> None:
    for argv in ASKED:
        beside, away = here(*argv), there(*argv)
        assert beside.exit_code == away.exit_code, (argv, away.output, away.exception)
        place = f"the data directory {load().data_dir} (VOICEGATE_DATA_DIR)"
        assert beside.stdout == away.stdout.replace(f"the gateway {URL}", place), argv
        assert beside.stderr == away.stderr.replace(f"the gateway {URL}", place), argv
        if {"nobody at all", "nobody/else?", "c\x1b[2J"} & {*argv}:
            assert beside.exit_code == (argv[0] in ("show", "why"))
        else:
            assert beside.exit_code == 0, beside.output
            assert beside.stdout.strip()
    one, far = (json.loads(asked("show", "c004", "--json").stdout) for asked in (here, there))
    assert {name: one[name] for name in far} == far
    assert set(one) - set(far) == {"registry"}, "what consent's commands read, beside the gateway alone"
    rows = list(csv.DictReader(io.StringIO(there("--csv").stdout, newline="")))
    assert len(rows) == CALLS + 1
    assert rows[-1]["sip_call_id"] == "0-a@phone"


def test_what_happens_is_followed_from_elsewhere(house: KeptHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[Any] = []

    def one(client: module.HouseClient, *_: Any) -> Iterator[dict[str, Any]]:
        followed.append(client.url)
        yield {"type": "gap"}

    monkeypatch.setattr("gateway.cli.calls.call_follow.followed", one)
    assert there("--follow").stdout == "-- some events are not kept any more --\n"
    assert followed == [URL]


def test_from_elsewhere_pages_are_small_enough_for_any_number_of_calls(
    house: KeptHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    monkeypatch.setattr("gateway.cli.calls.call_stores.AT_ONCE", 3)
    assert here("--csv").stdout == there("--csv").stdout
    assert there("--csv").stdout_bytes.count(b"\r\n") == CALLS + 2
    assert here("--refused", "--csv").stdout == there("--refused", "--csv").stdout
