"""The registry on SQLite and on a real PostgreSQL: the same promises."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.errors import StartError
from gateway.store import registry as module
from gateway.store.call_search import CallSearch
from gateway.store.call_tables import LATER_COLUMNS, LATER_INDEXES, LEAVES
from gateway.store.registry import CallRow, PayloadTaken, Registry, RegistryError
from tests.full_disk import full_disk
from tests.needs import HANGS_S

NUMBERS = itertools.count(1)


def row(**given: object) -> CallRow:
    number = next(NUMBERS)
    call = CallRow(
        call_id=f"call-{number}",
        payload=number,
        payload_whole=(0xFFFF << 48) | number,
        gateway="gw1",
        dialplan="10-demo.toml:9",
        route="demo",
        caller="sip:bob@192.0.2.1",
        called="sip:demo@192.0.2.2",
        source="192.0.2.1",
        grant_jti="jti-1",
        voice="heart",
        voice_hash="ab" * 32,
    )
    return replace(call, **given)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sub/calls.db"
    return str(request.getfixturevalue("postgresql"))


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    opened = Registry.open(url)
    yield opened
    opened.close()


def test_a_call_is_entered_and_found_by_its_payload(registry: Registry) -> None:
    before = time.time()
    entered = registry.enter(row(payload=(1 << 48) - 1, payload_whole=(1 << 64) - 1))
    found = registry.by_payload((1 << 48) - 1)
    assert found == registry.get(entered.call_id)
    assert found is not None
    assert (found.payload, found.payload_whole) == ((1 << 48) - 1, (1 << 64) - 1)
    assert found.started_at is not None
    assert before - 0.01 <= found.started_at <= time.time() + 0.01
    assert registry.by_payload(12345678) is None


def test_a_payload_is_given_once(registry: Registry) -> None:
    first = registry.enter(row())
    with pytest.raises(PayloadTaken):
        registry.enter(row(payload=first.payload))
    with pytest.raises(PayloadTaken):
        registry.enter(row(call_id=first.call_id))
    assert registry.by_payload(first.payload) == registry.get(first.call_id)


def test_a_payload_out_of_range_is_a_mistake_of_ours(registry: Registry) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        registry.enter(row(payload=1 << 48))


def test_the_end_of_a_call_is_noted_once(registry: Registry) -> None:
    call = registry.enter(row())
    registry.close_call(call.call_id, "caller hung up", ended_at=1_800_000_000.25)
    registry.close_call(call.call_id, "failed: later news")
    closed = registry.get(call.call_id)
    assert closed is not None
    assert (closed.how, closed.ended_at) == ("caller hung up", 1_800_000_000.25)


def test_what_a_dead_gateway_left_open_is_closed(registry: Registry) -> None:
    gone, other = registry.enter(row(gateway="gone")), registry.enter(row(gateway="lives"))
    later = time.time() + 60
    assert registry.open_calls(["gone"], later) == [(gone.call_id, pytest.approx(gone.started_at))]
    assert registry.open_calls(["gone"], gone.started_at - 60) == []
    assert registry.close_call(gone.call_id, "failed: the gateway died") == "failed: the gateway died"
    assert registry.close_call(gone.call_id, "hung up") == "failed: the gateway died", "the first stays"
    assert registry.open_calls(["gone", "lives"], later) == [(other.call_id, pytest.approx(other.started_at))]
    assert registry.closed_among([gone.call_id, other.call_id, "nobody"], later) == {
        gone.call_id: "failed: the gateway died"
    }
    closed, living = registry.get(gone.call_id), registry.get(other.call_id)
    assert closed is not None
    assert closed.how == "failed: the gateway died"
    assert living is not None
    assert living.ended_at is None


def test_the_newest_calls_come_first(registry: Registry) -> None:
    calls = [registry.enter(row(started_at=1_800_000_000.0 + n)) for n in (2, 0, 1)]
    newest = registry.newest(2)
    assert newest == [(calls[0].call_id, "gw1"), (calls[2].call_id, "gw1")]


def test_what_a_caller_wrote_is_cut_and_stays_text(registry: Registry) -> None:
    nasty = "sip:'; DROP TABLE calls; --" + "x" * 500
    call = registry.enter(row(caller=nasty))
    found = registry.get(call.call_id)
    assert found is not None
    assert found.caller == nasty[:256]


def test_many_threads_enter_and_only_one_gets_a_payload(registry: Registry) -> None:
    taken = next(NUMBERS)
    won: list[str] = []

    def enter() -> None:
        for _ in range(5):
            registry.enter(row())
        with contextlib.suppress(PayloadTaken):
            won.append(registry.enter(row(payload=taken)).call_id)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_two_gateways_open_one_database(url: str) -> None:
    first, second = Registry.open(url), Registry.open(url)
    call = first.enter(row())
    assert second.get(call.call_id) is not None
    with pytest.raises(PayloadTaken):
        second.enter(row(payload=call.payload))
    first.close()
    second.close()


def test_a_row_is_on_disk_when_enter_returns(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path}/calls.db")
    if (pid := os.fork()) == 0:
        registry.enter(row(call_id="before-the-crash"))
        os._exit(9)  # no close, no checkpoint
    os.waitpid(pid, 0)
    with sqlite3.connect(tmp_path / "calls.db") as plain:
        assert plain.execute("SELECT call_id FROM calls").fetchall() == [("before-the-crash",)]
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    registry.close()


def test_a_database_that_goes_away_is_an_error_without_sql(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path}/calls.db")
    with sqlite3.connect(tmp_path / "calls.db") as plain:
        plain.execute("DROP TABLE calls")
    with pytest.raises(RegistryError) as caught:
        registry.enter(row(caller="sip:secret@x"))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    registry.close()


def test_a_disk_that_takes_no_row_is_no_registry_that_is_ready(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path}/calls.db")
    registry.enter(row(call_id="before"))
    with full_disk():
        with pytest.raises(RegistryError, match="was not entered: disk I/O error"):
            registry.enter(row(call_id="meanwhile"))
        assert not registry.ready(), "it can be read, and takes nothing"
        assert registry.count() == 1
        assert not registry.ready()
    assert registry.ready(), "it is tried, so nobody need call before it is ready again"
    registry.enter(row(call_id="after"))
    with registry.engine.connect() as plain:
        leaves = plain.execute(select(LEAVES.c.call_id).order_by(LEAVES.c.leaf_id)).scalars().all()
    assert leaves == ["before", "after"], "nothing is left of what was tried"
    registry.close()


def test_a_row_that_is_refused_for_its_own_sake_is_no_fault_of_the_database(registry: Registry) -> None:
    call = row()
    registry.enter(call)
    with pytest.raises(PayloadTaken):
        registry.enter(call)
    assert not registry._refused


def test_a_write_waits_for_one_that_hangs_no_longer_than_for_another_process(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITER_WAITS_S", 0.05)
    hangs = registry.writing()
    hangs.__enter__()
    with ThreadPoolExecutor(1) as pool, pytest.raises(RegistryError, match="not taken an earlier write"):
        pool.submit(registry.enter, row()).result()
    hangs.__exit__(None, None, None)
    registry.enter(row())
    assert registry.ready()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("nonsense", "not an SQLAlchemy URL"),
        ("mysql://x/y", "neither sqlite nor postgresql"),
        ("sqlite://", "name a file"),
        ("sqlite:////proc/no/such/place.db", "cannot be opened"),
        ("postgresql://vg@127.0.0.1:1/x", "cannot be opened"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_clear_line(bad: str, says: str) -> None:
    with pytest.raises(StartError, match=says) as caught:
        Registry.open(bad)
    assert "\n" not in str(caught.value)


def test_several_may_open_a_new_registry_at_once(tmp_path: Path) -> None:
    """A gateway's processes do, and gateways that share a database."""
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    together = threading.Barrier(4)

    def opened() -> list[str]:
        together.wait(HANGS_S)
        registry = Registry.open(url)
        found = [row.call_id for row in registry.find(CallSearch())]
        registry.close()
        return found

    with ThreadPoolExecutor(4) as threads:
        opening = [threads.submit(opened) for _ in range(4)]
        assert [one.result(HANGS_S) for one in opening] == [[]] * 4


def test_a_registry_of_an_earlier_version_is_read_and_gets_its_columns_and_indexes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    opened = Registry.open(url)
    entered = opened.enter(
        CallRow(
            call_id="c1", payload=1, route="demo", caller="a", called="b", source="c", plan="0123456789ab",
            sip_call_id="x@y",
        )
    )  # fmt: skip
    opened.close()
    with sqlite3.connect(tmp_path / "calls.db") as database:
        for index in LATER_INDEXES:
            database.execute(f"DROP INDEX {index.name}")
        for column in LATER_COLUMNS:
            database.execute(f"ALTER TABLE calls DROP COLUMN {column.name}")
    reader = Registry.read(url)
    assert reader is not None
    began = pytest.approx(entered.started_at, abs=1e-6)  # a column of microseconds
    assert reader.get("c1") == replace(entered, plan=None, sip_call_id=None, started_at=began)
    for search in (CallSearch(), CallSearch(id="c")):
        assert [row.call_id for row in reader.find(search)] == ["c1"]
    assert list(reader.find(CallSearch(poor=True))) == []
    assert reader.by_sip_call_id("x@y") is None
    reader.close()
    again = Registry.open(url)
    again.enter(replace(entered, call_id="c2", payload=2))
    assert [row.plan for row in again.find(CallSearch())] == [None, "0123456789ab"]
    assert [row.call_id for row in again.find(CallSearch(id="x@"))] == ["c2"]
    again.close_call("c2", "hung up", sounded=2.5)
    assert [row.sounded for row in again.find(CallSearch(poor=True))] == [2.5]
    again.close()
