"""The list of calls, page by page, from both stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from gateway.front.calls.call_list import CallList
from gateway.ipc.ending import CallEnding, End
from gateway.store.call_search import CallSearch
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import CallRow, Registry


class Redis:
    """What Redis says of calls."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.ladders: dict[str, list[dict[str, Any]]] = {}

    async def heads(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        return {call_id: self.facts[call_id] for call_id in ids if call_id in self.facts}

    async def show(self, call_id: str) -> dict[str, Any] | None:
        return self.facts.get(call_id)

    async def sound(self, _: str) -> dict[str, Any]:
        return {"parts": []}

    async def ladder(self, call_id: str) -> list[dict[str, Any]]:
        return self.ladders.get(call_id, [])

    async def log(self, _: str) -> list[dict[str, Any]]:
        return []

    async def living(self) -> set[str]:
        return {call_id for call_id, facts in self.facts.items() if facts["state"] != "ended"}


class Stores:
    def __init__(self, folder: Path) -> None:
        self.registry = Registry.open(f"sqlite:///{folder / 'calls.db'}")
        self.redis = Redis()
        self.list = CallList(self.registry, self.redis)  # type: ignore[arg-type]
        self.queries = 0
        event.listen(self.registry.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.queries += 1

    def enter(self, number: int, at: float, *, ended: bool = True) -> str:
        call_id = f"c{number:03d}"
        self.registry.enter(
            CallRow(
                call_id=call_id, payload=number, route="demo", caller=f"sip:+4930{number:03d}@x",
                called="sip:demo@y", source="z", started_at=at, plan="0123456789ab",
            )
        )  # fmt: skip
        if ended:
            self.registry.close_call(call_id, CallEnding(End.CALLER), at + 10)
        return call_id

    async def pages(self, search: CallSearch, count: int) -> list[list[str]]:
        found: list[list[str]] = []
        cursor = None
        while True:
            calls, cursor = await self.list.page(search, count, cursor)
            found.append([call["call_id"] for call in calls])
            if cursor is None:
                return found


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    opened = Stores(tmp_path)
    yield opened
    opened.registry.close()


async def test_what_has_not_ended_comes_first_and_each_call_once(stores: Stores) -> None:
    for number in range(12):
        # four began in the same second each
        stores.enter(number, 1_800_000_000.25 + number // 4, ended=number not in (2, 7))
    order = ["c007", "c002", "c008", "c009", "c010", "c011", "c004", "c005", "c006", "c000", "c001", "c003"]
    for count in (1, 2, 3, 5, 12, 100):
        pages = await stores.pages(CallSearch(), count)
        assert [call for page in pages for call in page] == order
        assert all(len(page) == count for page in pages[:-1])
    assert await stores.pages(CallSearch(ended=False), 1) == [["c007"], ["c002"]]
    assert await stores.pages(CallSearch(ended=True, caller="30004"), 5) == [["c004"]]


async def test_a_call_is_shown_as_both_stores_have_it(stores: Stores) -> None:
    stores.enter(1, 1_800_000_000.0, ended=False)
    stores.enter(2, 1_800_000_001.0, ended=False)
    stores.redis.facts["c001"] = {"state": "listening", "turns": 3}
    unknown, live = (await stores.list.page(CallSearch(), 10, None))[0]
    assert (live["state"], live["turns"], live["plan"]) == ("listening", 3, "0123456789ab")
    assert unknown["state"] == "unknown"
    assert live["payload"] == "000000000001"
    assert "ended_at" not in live


async def test_a_page_of_many_costs_as_many_queries_as_one_of_few(stores: Stores) -> None:
    for number in range(300):
        stores.enter(number, 1_800_000_000.0 + number, ended=number % 50 > 0)
    stores.queries = 0
    _, cursor = await stores.list.page(CallSearch(), 20, None)
    assert stores.queries <= 2
    for _ in range(3):
        stores.queries = 0
        _, cursor = await stores.list.page(CallSearch(), 100, cursor)
        assert stores.queries <= 2


@pytest.mark.parametrize(
    "cursor", ["", "o", "o~1.0", "x~1.0~c1", "o~nan~c1", "e~1.0~c1; drop table", "o~1~c1"]
)
async def test_what_is_no_cursor_is_refused(stores: Stores, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await stores.list.page(CallSearch(), 1, cursor)


async def test_a_course_says_what_was_wrong_and_what_is_forgotten(stores: Stores) -> None:
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


async def test_a_course_of_a_call_that_was_not_taken(stores: Stores) -> None:
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
