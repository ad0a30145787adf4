"""The list of calls, page by page, in every order, from both stores; ten thousand of them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from sqlalchemy import Connection, delete, event, insert, inspect

from gateway.front.calls.call_list import SILENT, CallList, CallsWanted
from gateway.front.calls.list_cursor import ListCursor
from gateway.front.calls.refused_list import RefusalList
from gateway.ipc.ending import CallEnding, End
from gateway.store.call_order import ORDERS, SORTS, Sort
from gateway.store.call_search import CallSearch
from gateway.store.call_tables import CALLS, LEAVES
from gateway.store.refused_calls import REFUSED, RefusedCall, RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey

BEGAN_AT: Final = 1_800_000_000.25
MANY: Final = 10_000


class FakeSessions:
    """What Redis says of calls."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.ladders: dict[str, list[dict[str, Any]]] = {}
        self.away = False

    async def seen(self, ids: list[str], undecided: list[str]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        if self.away:
            raise ConnectionError("no Redis")
        heads = {call_id: self.facts[call_id] for call_id in ids if call_id in self.facts}
        living = {one for one, facts in self.facts.items() if facts["state"] != "ended"}
        return heads, living & set(undecided)

    async def show(self, call_id: str) -> dict[str, Any] | None:
        if self.away:
            raise ConnectionError("no Redis")
        return self.facts.get(call_id)

    async def sound(self, _: str) -> dict[str, Any]:
        if self.away:
            raise ConnectionError("no Redis")
        return {"parts": []}

    async def ladder(self, call_id: str) -> list[dict[str, Any]]:
        return self.ladders.get(call_id, [])

    async def log(self, _: str) -> list[dict[str, Any]]:
        return []

    async def last_seen(self, call_id: str) -> float | None:
        return time.time() if call_id in self.facts else None


class Stores:
    def __init__(self, url: str) -> None:
        self.registry = Registry.open(url)
        self.redis = FakeSessions()
        self.list = CallList(self.registry, self.redis)  # type: ignore[arg-type]
        self.asked: list[tuple[str, Any]] = []
        """queries and their parameters"""
        event.listen(self.registry.engine, "before_cursor_execute", self._count)

    def _count(self, _: Connection, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        self.asked.append((statement, parameters))

    def enter(
        self, number: int, at: float, *, ended: bool = True, how: str = CallEnding(End.CALLER), **more: Any
    ) -> str:
        call_id = f"c{number:03d}"
        row = {
            "call_id": call_id, "payload": number, "route": "demo", "caller": f"sip:+4930{number:03d}@x",
            "called": "sip:demo@y", "source": "z", "started_at": at, "plan": "0123456789ab",
        }  # fmt: skip
        lasted, sounded = more.pop("lasted", 10.0), more.pop("sounded", None)
        self.registry.enter(CallRow(**{**row, **more}))
        if ended:
            self.registry.close_call(call_id, how, at + lasted, sounded)
        return call_id

    async def page(self, search: CallSearch | None = None, **more: Any) -> Any:
        return await self.list.page(CallsWanted(search=search or CallSearch(), **more))

    async def pages(self, search: CallSearch, count: int, sort: Sort = "") -> list[list[str]]:
        """All of them, forward; on the way it is tried that each page leads back to the one before it."""
        found: list[list[str]] = []
        cursor = None
        while True:
            page = await self.page(search, count=count, sort=sort, cursor=cursor)
            if found:
                before = await self.page(search, count=count, sort=sort, cursor=page.preceding)
                assert [call["call_id"] for call in before.calls] == found[-1]
                assert before.following == cursor
                assert (before.preceding is None) == (len(found) == 1)
            else:
                assert page.preceding is None
            found.append([call["call_id"] for call in page.calls])
            cursor = page.following
            if cursor is None:
                return found

    async def found(self, sort: Sort = "", **search: Any) -> list[str]:
        """Ids of the calls found, by a page that holds all; the count is the same."""
        page = await self.page(CallSearch(**search), sort=sort, counted=True)
        assert page.found == len(page.calls)
        assert not page.found_more
        return [call["call_id"] for call in page.calls]


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    opened = Stores(url if request.param == "sqlite" else request.getfixturevalue("postgresql"))
    emptied(opened.registry)
    yield opened
    emptied(opened.registry)
    opened.registry.close()


def emptied(registry: Registry) -> None:
    """A server of PostgreSQL is there for many tests."""
    with registry.engine.begin() as connection:
        for table in (CALLS, LEAVES, REFUSED):
            if inspect(connection).has_table(table.name):
                connection.execute(delete(table))


# ── order ────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_has_not_ended_comes_first_and_each_call_once(stores: Stores) -> None:
    for number in range(12):
        # four began in the same second each
        stores.enter(number, BEGAN_AT + number // 4, ended=number not in (2, 7))
    order = ["c007", "c002", "c008", "c009", "c010", "c011", "c004", "c005", "c006", "c000", "c001", "c003"]
    for count in (1, 2, 3, 5, 12, 100):
        pages = await stores.pages(CallSearch(), count)
        assert [call for page in pages for call in page] == order
        assert all(len(page) == count for page in pages[:-1])
    assert await stores.pages(CallSearch(ended=False), 1) == [["c007"], ["c002"]]
    assert await stores.pages(CallSearch(ended=True, caller="30004"), 5) == [["c004"]]


async def test_a_call_that_ends_while_a_page_is_read_stands_on_it_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        stores.enter(number, BEGAN_AT + number, ended=number < 2)
    find = stores.registry.find

    def ends_behind(*args: Any, **more: Any) -> list[CallRow]:
        rows = list(find(*args, **more))
        stores.registry.close_call("c003", CallEnding(End.CALLER), BEGAN_AT + 10)
        return rows

    monkeypatch.setattr(stores.registry, "find", ends_behind)
    page = await stores.page(count=10)
    assert [call["call_id"] for call in page.calls] == ["c002", "c003", "c001", "c000"]
    assert page.calls[1]["state"] == "ended"


async def test_calls_are_sorted_by_each_key_in_both_directions(stores: Stores) -> None:
    """Of calls alike in it the newest comes first; how long one lasts that has not ended nobody knows."""
    stores.enter(1, BEGAN_AT, lasted=7.0, caller="b")
    stores.enter(2, BEGAN_AT + 1, lasted=3.5, caller="a")
    stores.enter(3, BEGAN_AT + 2, ended=False, caller="c")
    stores.enter(4, BEGAN_AT + 3, lasted=7.0, caller="a")
    stores.enter(5, BEGAN_AT + 4, ended=False, caller="ü")
    orders: dict[Sort, str] = {
        "": "53421", "-began": "54321", "began": "12345", "-duration": "41235"[:3] + "35",
        "duration": "241" + "53", "caller": "42135", "-caller": "53142",
    }  # fmt: skip
    assert set(orders) == set(SORTS)
    for sort, order in orders.items():
        for count in (1, 2, 5):
            pages = await stores.pages(CallSearch(), count, sort)
            assert "".join(call[-1] for page in pages for call in page) == order, sort


async def test_a_place_stays_where_it_is_while_calls_come_and_end(stores: Stores) -> None:
    for number in range(6):
        stores.enter(number, BEGAN_AT + number, ended=number != 5)
    first = await stores.page(count=3)
    assert [call["call_id"] for call in first.calls] == ["c005", "c004", "c003"]
    stores.enter(6, BEGAN_AT + 6, ended=False)
    stores.registry.close_call("c005", "hung up", BEGAN_AT + 9)
    second = await stores.page(count=3, cursor=first.following)
    assert [call["call_id"] for call in second.calls] == ["c002", "c001", "c000"]
    before = await stores.page(count=3, cursor=second.preceding)
    assert [call["call_id"] for call in before.calls] == ["c005", "c004", "c003"]
    assert before.preceding is not None


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_are_found_by_each_thing_that_is_known_of_them(stores: Stores) -> None:
    stores.enter(1, BEGAN_AT, lasted=61.0, sounded=4.2, route="desk", sip_call_id="a1b2@phone_1")
    stores.enter(2, BEGAN_AT + 1, lasted=5.0, how="failed: its line died", sounded=3.1, voice="jane")
    stores.enter(3, BEGAN_AT + 2, lasted=60.0, how="hung up by the console", sip_call_id="a1%2@phone")
    stores.enter(4, BEGAN_AT + 3, ended=False, sip_call_id="A1@phone")
    assert await stores.found() == ["c004", "c003", "c002", "c001"]
    assert await stores.found(id="c00") == ["c004", "c003", "c002", "c001"]
    assert await stores.found(id="c002") == ["c002"]
    assert await stores.found(id="a1") == ["c003", "c001"]
    assert await stores.found(id="a1b2@phone_1") == ["c001"]
    assert await stores.found(id="a1%") == ["c003"]
    assert await stores.found(id="2") == []
    assert await stores.found(route="desk") == ["c001"]
    assert await stores.found(route="des") == []
    assert await stores.found(voice="jane") == ["c002"]
    assert await stores.found(failed=True) == ["c002"]
    assert await stores.found(how="hung up") == ["c003"]
    assert await stores.found(how="failed: its") == ["c002"]
    assert await stores.found(poor=True) == ["c002"]
    assert await stores.found(least_s=60.0) == ["c003", "c001"]
    assert await stores.found(most_s=60.0) == ["c003", "c002"]
    assert await stores.found(least_s=60.0, most_s=60.5, sort="duration") == ["c003"]
    assert await stores.found(since=BEGAN_AT + 1, until=BEGAN_AT + 3) == ["c003", "c002"]
    assert await stores.found(ended=False, failed=True) == []
    assert await stores.found(ended=False, sort="caller") == ["c004"]
    assert (await stores.page(CallSearch(poor=True))).calls[0]["sounded"] == 3.1


# ── cursors ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "cursor",
    ["", "f", "0123456789ab~f0~c1", "0123456789ab~x0~c1", "o~1.0~c1", "f0~c1; drop table", "é" * 12],
)
async def test_what_is_no_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    with pytest.raises(ValueError, match="cursor"):
        await stores.page(cursor=cursor)
    with pytest.raises(ValueError, match="cursor"):
        RefusalList(stores.registry).page(CallSearch(), 1, cursor)


async def test_a_cursor_is_good_for_its_own_search_and_order_alone(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    for number in range(4):
        stores.enter(number, BEGAN_AT + number)
    first = await stores.page(CallSearch(called="demo"), count=2)
    assert len((await stores.page(CallSearch(called="demo"), count=1, cursor=first.following)).calls) == 1
    for search, sort in ((CallSearch(), ""), (CallSearch(called="demo"), "-began")):
        with pytest.raises(ValueError, match="of another search, order or list"):
            await stores.page(search, sort=sort, cursor=first.following)
    with pytest.raises(ValueError, match="of another search, order or list"):
        RefusalList(stores.registry).page(CallSearch(called="demo"), 1, first.following)
    far = ListCursor(False, 7, "c001").write(CallsWanted().kind)
    with pytest.raises(ValueError, match="not a cursor of this list"):
        await stores.page(cursor=far)
    assert len(first.following) <= 100


# ── both stores ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_is_shown_as_both_stores_have_it(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    stores.enter(1, BEGAN_AT, ended=False)
    stores.enter(2, BEGAN_AT + 1, ended=False)
    stores.redis.facts["c001"] = {"state": "listening", "turns": 3}
    unknown, live = (await stores.page()).calls
    assert (live["state"], live["turns"], live["plan"]) == ("listening", 3, "0123456789ab")
    assert unknown["state"] == "unknown"
    assert live["payload"] == "000000000001"
    assert "ended_at" not in live


async def test_while_redis_is_away_the_registry_s_calls_are_listed_and_it_is_said(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    stores.enter(1, BEGAN_AT, sounded=4.0)
    stores.enter(2, BEGAN_AT + 1, ended=False)
    assert (await stores.page()).silence is None
    stores.redis.away = True
    page = await stores.page()
    assert [call["state"] for call in page.calls] == ["unknown", "ended"]
    assert page.silence == SILENT
    one = await stores.list.one("c001")
    assert one is not None
    assert (one["silence"], one["sounded"]) == (SILENT, 4.0)
    with pytest.raises(ConnectionError):
        await stores.list.one("c-unknown")


async def test_one_call_is_found_by_its_caller_s_call_id_and_a_refused_one_says_why(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    stores.enter(1, BEGAN_AT, sip_call_id="again@phone")
    stores.enter(2, BEGAN_AT + 1, sip_call_id="again@phone")
    stores.redis.facts["c002"] = {"call_id": "c002", "state": "ended", "turns": [{"who": "bot"}]}
    turned_away(stores.registry, 1)
    newest = await stores.list.one("again@phone")
    assert newest is not None
    assert (newest["call_id"], newest["turns"]) == ("c002", [{"who": "bot"}])
    for call_id in ("r0000", "no-0@phone"):
        told = await stores.list.one(call_id)
        assert told is not None
        assert (told["call_id"], told["state"]) == ("r0000", "refused")
        assert (told["refused"]["status"], told["refused"]["reason"]) == (404, "no route takes it")
    assert await stores.list.one("nobody") is None


# ── a course ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_course_says_what_was_wrong_and_what_is_forgotten(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    stores.enter(1, 1_800_000_000.0)
    began = {"at": 1_800_000_000.0, "kind": "opened", "data": {}}
    muted = {"at": 1_800_000_003.0, "kind": "muted", "data": {"reason": "revoked"}}
    stores.redis.facts["c001"] = {"call_id": "c001", "state": "ended", "events": [began, muted]}
    told = await stores.list.course("c001")
    assert told is not None
    assert (told["wrong"], told["causes"][0]["event"], told["causes"][0]["number"]) == (
        True,
        "muted",
        "revoked",
    )
    assert told["call"]["how"] == "caller hung up", "the registry says it"
    assert "causes" not in told["call"]
    shown = await stores.list.one("c001")
    assert shown is not None
    assert shown["causes"] == told["causes"]

    stores.redis.facts.clear()
    forgotten = await stores.list.course("c001")
    assert forgotten is not None
    assert forgotten["wrong"] is False
    assert "Redis has forgotten" in forgotten["not_known"][0]
    assert forgotten["call"]["plan"] == "0123456789ab"


async def test_a_course_while_redis_is_away_has_what_the_registry_has(stores: Stores) -> None:
    stores.enter(1, 1_800_000_000.0)
    stores.redis.away = True
    told = await stores.list.course("c001")
    assert told is not None
    assert told["call"]["silence"] == "Redis does not answer"
    assert (told["sound"]["parts"], told["ladder"], told["log"]) == ([], [], [])
    with pytest.raises(ConnectionError):
        await stores.list.course("c002")


async def test_a_course_is_found_by_its_callers_sip_call_id(stores: Stores) -> None:
    call_id = stores.enter(1, 1_800_000_000.0)
    with stores.registry.writing() as connection:
        connection.execute(CALLS.update().values(sip_call_id="a@b"))
    stores.redis.ladders[call_id] = [{"at": 1.0, "first": "INVITE"}]
    told = await stores.list.course("a@b")
    assert told is not None
    assert (told["call"]["call_id"], len(told["ladder"])) == (call_id, 1)


async def test_a_course_of_a_call_that_was_not_taken(tmp_path: Path) -> None:
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    table = RefusedCalls(stores.registry)
    table.open()
    table.note(
        [
            RefusedCall(
                call_id="r1", sip_call_id="a@b", caller="sip:bob@x", called="sip:no@y", source="192.0.2.1",
                transport="udp", status=404, reason="no route", started_at=1_800_000_000.0,
            )
        ]
    )  # fmt: skip
    for call_id in ("r1", "a@b"):
        told = await stores.list.course(call_id)
        assert told is not None
        assert (told["call"]["state"], told["call"]["refused"]["status"]) == ("refused", 404)
        assert told["causes"][0]["number"] == "404 no route"
    assert await stores.list.course("r2") is None
    stores.redis.ladders["r2"] = [{"at": 1.0, "first": "INVITE"}]
    alone = await stores.list.course("r2")
    assert alone is not None
    assert (alone["call"]["state"], alone["ladder"]) == ("unknown", stores.redis.ladders["r2"])


# ── refused calls ────────────────────────────────────────────────────────────────────────────────────


def turned_away(registry: Registry, count: int) -> None:
    table = RefusedCalls(registry)
    table.open()
    calls = [
        RefusedCall(
            call_id=f"r{number:04d}", sip_call_id=f"no-{number}@phone", caller=f"sip:+4930{number:04d}@x",
            called="sip:nowhere@y", source=f"192.0.2.{number}", transport="udp", status=404,
            reason="no route takes it", started_at=BEGAN_AT + number // 3,
        )
        for number in range(count)
    ]  # fmt: skip
    table.note(calls)


async def test_refused_calls_are_paged_forward_and_back(stores: Stores) -> None:
    turned_away(stores.registry, 10)
    listed = RefusalList(stores.registry)
    order = [f"r{number:04d}" for number in range(9, -1, -1)]
    for count in (1, 3, 10):
        found: list[str] = []
        before, cursor = None, None
        while True:
            page = listed.page(CallSearch(), count, cursor)
            if before is not None:
                back = listed.page(CallSearch(), count, page.preceding)
                assert back.refused == before.refused
                assert (back.preceding is None) == (len(before.refused) == len(found))
            found += [call.call_id for call in page.refused]
            before, cursor = page, page.following
            if cursor is None:
                break
        assert found == order
    assert listed.page(CallSearch(caller="30 0004"), 5, counted=True).found == 1
    assert [call.call_id for call in listed.page(CallSearch(id="no-4"), 5).refused] == ["r0004"]
    with pytest.raises(ValueError, match="cursor"):
        listed.page(CallSearch(), 1, ListCursor(False, 0, "c1").write(("refused", CallSearch())))


# ── ten thousand ─────────────────────────────────────────────────────────────────────────────────────


def filled(registry: Registry) -> None:
    """Ten thousand calls; every hundredth has not ended."""
    rows = [
        {
            "call_id": f"{number * 7919 % MANY:04x}{number:012x}", "payload": number, "gateway": "",
            "dialplan": "", "route": "desk" if number % 50 == 0 else "demo",
            "caller": f"sip:+49{number * 7919 % 1_000_003:07}@h", "called": "sip:d@h", "source": "",
            "started_at": BEGAN_AT + number, "sip_call_id": f"{number:05}@phone", "sounded": 4.0,
            "ended_at": None if number % 100 == 0 else BEGAN_AT + number + number * 31 % 600 + 1,
            "how": None if number % 100 == 0 else "hung up",
        }
        for number in range(MANY)
    ]  # fmt: skip
    with registry.engine.begin() as connection:
        connection.execute(insert(CALLS), rows)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    opened = Stores(f"sqlite:///{tmp_path_factory.mktemp('many') / 'calls.db'}")
    filled(opened.registry)
    yield opened
    opened.registry.close()


def plans(stores: Stores) -> list[str]:
    """How the database goes about each query that was asked."""
    asked, stores.asked = stores.asked, []
    told = []
    with stores.registry.engine.connect() as connection:
        for statement, parameters in asked:
            if stores.registry.backend == "sqlite":
                steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                told.append("; ".join(str(row[-1]) for row in steps))
            else:
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                steps = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                told.append("; ".join(str(row[0]) for row in steps))
    stores.asked = []
    return told


INDEXES: Final[dict[Sort, tuple[str, ...]]] = {
    "": ("calls_open", "calls_by_start"),
    "-began": ("calls_by_start",),
    "began": ("calls_by_start",),
    "-duration": ("calls_by_duration", "calls_open"),
    "duration": ("calls_by_duration", "calls_open"),
    "caller": ("calls_by_caller",),
    "-caller": ("calls_by_caller",),
}
"""By what index each part of each order is read."""


@pytest.mark.parametrize("sort", SORTS)
async def test_each_page_of_ten_thousand_costs_two_queries_at_most_each_by_its_index(
    many: Stores, sort: Sort
) -> None:
    """Forward to where the first part is over, and back."""
    cursor, seen = None, 0
    for _ in range(4):
        many.asked = []
        page = await many.page(sort=sort, count=60, cursor=cursor)
        assert len(page.calls) == 60
        told = plans(many)
        assert len(told) <= 2
        for plan in told:
            named = re.findall(r"calls USING (?:COVERING )?INDEX (\w+)", plan)
            assert named, plan
            assert named[0] in INDEXES[sort]
            assert "SCAN calls;" not in plan
            assert "FOR ORDER BY" not in plan, "only what is alike in the key is sorted"
        seen += len(told)
        before, cursor = page, page.following
    assert seen >= len(ORDERS[sort])
    many.asked = []
    back = await many.page(sort=sort, count=60, cursor=before.preceding)
    assert len(back.calls) == 60
    assert all("SEARCH calls USING INDEX" in plan and "FOR ORDER BY" not in plan for plan in plans(many))


@pytest.mark.parametrize(
    ("search", "index"),
    [
        (CallSearch(id="0001"), "sqlite_autoindex_calls_1.*calls_by_sip_id"),
        (CallSearch(route="desk"), r"calls_by_route \(route=\?\)"),
        (CallSearch(since=BEGAN_AT + 9000), r"calls_by_start \(started_at>\?\)"),
        (CallSearch(since=BEGAN_AT + 9000, until=BEGAN_AT + 9100), r"calls_by_start \(started_at>\? AND "),
        (CallSearch(failed=True), "calls_by_start"),
        (CallSearch(least_s=590.0), "calls_by_start"),
        (CallSearch(caller="49000"), "calls_by_start"),
    ],
    ids=lambda one: next(iter(one), "") if isinstance(one, tuple) else "",
)
async def test_what_is_searched_is_found_by_an_index_in_the_order_wanted(
    many: Stores, search: CallSearch, index: str
) -> None:
    many.asked = []
    await many.page(search, count=50)
    told = plans(many)
    assert len(told) <= 2
    assert re.search(index, told[-1]), told[-1]


async def test_a_count_is_one_query_more_and_ends_at_ten_thousand(many: Stores) -> None:
    many.asked = []
    page = await many.page(count=20, counted=True)  # a page of calls that have not ended
    assert (page.found, page.found_more, len(many.asked)) == (MANY, False, 1 + 1)
    assert "COVERING INDEX" in plans(many)[-1]
    assert (await many.page(CallSearch(route="desk"), counted=True)).found == MANY // 50
    many.registry.enter(
        CallRow(call_id="one-more", payload=MANY, route="r", caller="a", called="b", source="c")
    )
    page = await many.page(count=20, counted=True)
    assert (page.found, page.found_more) == (MANY, True)


async def test_on_postgresql_pages_are_read_by_the_same_indexes(postgresql: str) -> None:
    stores = Stores(postgresql)
    emptied(stores.registry)
    filled(stores.registry)
    with stores.registry.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE calls")
    for sort in SORTS:
        first = await stores.page(sort=sort, count=20)
        stores.asked = []
        await stores.page(sort=sort, count=20, cursor=first.following)
        told = [plan for plan in plans(stores) if "calls_" in plan]
        assert len(told) == 1
        assert re.search("|".join(INDEXES[sort]), told[0]), told[0]
    emptied(stores.registry)
    stores.registry.close()


async def test_redis_is_asked_once_for_a_page(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await Sessions.open(valkey.url)
    stores = Stores(f"sqlite:///{tmp_path / 'calls.db'}")
    for number in range(50):
        stores.enter(number, BEGAN_AT + number, ended=number >= 5)
    sessions.session("c001").opened(caller="bob")
    sessions.session("c003").opened(caller="eve")
    sessions.session("c003").ended("hung up")
    await sessions.writer.flush()
    asked: list[int] = []
    of_redis = type(sessions.redis.pipeline(transaction=False))
    execute = of_redis.execute

    async def counted(pipe: Any, *args: Any, **more: Any) -> Any:
        asked.append(len(pipe.command_stack))
        return await execute(pipe, *args, **more)

    async def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a command of its own")

    monkeypatch.setattr(of_redis, "execute", counted)
    monkeypatch.setattr(Redis, "execute_command", refused)
    page = await CallList(stores.registry, sessions).page(CallsWanted(count=20))
    assert asked == [20 + 5]
    states = {call["call_id"]: call["state"] for call in page.calls if call["call_id"] < "c005"}
    assert states == {
        "c004": "unknown", "c003": "ended", "c002": "unknown", "c001": "ringing", "c000": "unknown"
    }  # fmt: skip
    monkeypatch.undo()
    await sessions.close()
