"""Refused calls are kept, in few rows: whoever is refused may ask again a thousand times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.store import refused_calls as module
from gateway.store.refused_calls import REFUSED, RefusedCall, RefusedCalls
from gateway.store.registry import Registry, RegistryError

NOW = float(int(time.time()))


def call(**more: Any) -> RefusedCall:
    facts = {
        "call_id": "c1", "sip_call_id": "a84b4c76", "caller": "sip:bob@x", "called": "sip:nobody@y",
        "source": "192.0.2.7", "transport": "udp", "status": 404, "reason": "no route", "started_at": NOW,
    }  # fmt: skip
    return RefusedCall(**(facts | more))


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    opened = Registry.open(url)
    REFUSED.drop(opened.engine, checkfirst=True)
    yield opened
    opened.close()


@pytest.fixture
def refused(registry: Registry) -> RefusedCalls:
    table = RefusedCalls(registry)
    table.open()
    table.open()  # at every start
    return table


def test_a_refused_call_is_listed_with_all_that_is_known_of_it(refused: RefusedCalls) -> None:
    refused.note([call()])
    assert refused.listed() == [call(first_at=NOW)]


def test_the_newest_come_first_and_can_be_searched(refused: RefusedCalls) -> None:
    for number in range(5):
        refused.note([call(call_id=f"c{number}", called=f"sip:{number}@y", started_at=NOW + number)])
    assert [one.call_id for one in refused.listed(count=2)] == ["c4", "c3"]
    assert [one.call_id for one in refused.listed(REFUSED.c.called == "sip:2@y")] == ["c2"]
    assert [one.call_id for one in refused.listed(REFUSED.c.started_at >= NOW + 3)] == ["c4", "c3"]


def test_calls_that_are_alike_are_one_row_that_counts(refused: RefusedCalls) -> None:
    refused.note([call(call_id=f"c{n}", sip_call_id=f"s{n}", started_at=NOW + n) for n in range(100)])
    (one,) = refused.listed()
    assert (one.count, one.first_at, one.started_at) == (100, NOW, NOW + 99)
    assert (one.call_id, one.sip_call_id) == ("c99", "s99"), "the newest, which the log has most likely still"


@pytest.mark.parametrize(
    "other",
    [
        {"source": "192.0.2.8"},
        {"status": 503},
        {"reason": "busy"},
        {"caller": "sip:al@x"},
        {"called": "z"},
    ],
)
def test_calls_that_differ_are_not_added_up(refused: RefusedCalls, other: dict[str, Any]) -> None:
    refused.note([call(), call(**other)])
    assert [one.count for one in refused.listed()] == [1, 1]


def test_a_call_like_one_of_long_ago_is_another(refused: RefusedCalls) -> None:
    refused.note([call()])
    refused.note([call(started_at=NOW + module.ALIKE_FOR_S + 1)])
    assert [one.count for one in refused.listed()] == [1, 1]


def test_a_source_that_asks_for_everybody_keeps_its_newest_rows_and_no_others(refused: RefusedCalls) -> None:
    refused.note([call(source="192.0.2.9", called="sip:patient@y")])
    for first in range(0, 300, 50):
        refused.note([call(called=f"sip:{n}@y", started_at=NOW + n) for n in range(first, first + 50)])
    mine = refused.listed(REFUSED.c.source == "192.0.2.7")
    assert [one.called for one in mine] == [f"sip:{n}@y" for n in range(299, 279, -1)]
    assert len(refused.listed()) == module.ROWS_OF_SOURCE + 1, "others' rows are not touched"


def test_a_thousand_sources_fill_no_disk(refused: RefusedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 30)
    refused.note([call(source=f"192.0.2.{n}", started_at=NOW + n) for n in range(200)])
    assert [one.source for one in refused.listed()] == [f"192.0.2.{n}" for n in range(199, 169, -1)]


def test_what_a_stranger_wrote_is_cut_to_its_column(refused: RefusedCalls) -> None:
    long = call(
        caller="ä" * 5000, called="a\0b\ud800", reason="'; DROP TABLE calls; --" * 50, sip_call_id="i" * 999
    )
    refused.note([long, replace(long, started_at=NOW + 1)])
    (one,) = refused.listed()
    assert (len(one.caller), len(one.reason), len(one.sip_call_id), one.count) == (256, 200, 128, 2)
    assert one.called == "a\ufffdb?"


def test_a_registry_of_an_older_version_has_none(registry: Registry) -> None:
    assert RefusedCalls(registry).listed() == []


def test_a_database_that_is_away_is_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="were not noted"):
        RefusedCalls(registry).note([call()])


def test_why_calls_were_refused_of_late_the_most_frequent_first(refused: RefusedCalls) -> None:
    refused.note([call(), call(), call(source="192.0.2.8", started_at=NOW + 5)])
    refused.note([call(status=503, reason="busy", started_at=NOW - 100), call(reason="'; --")])
    refused.note([call(status=486, reason="old", started_at=NOW - 5000)])
    found = [(one.status, one.reason, one.count, one.last_at) for one in refused.reasons(NOW - 3600, 10)]
    assert found == [(404, "no route", 3, NOW + 5), (404, "'; --", 1, NOW), (503, "busy", 1, NOW - 100)]
    assert len(refused.reasons(NOW - 3600, 1)) == 1


def test_reasons_of_a_database_that_is_away_are_an_error_of_ours(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path / 'calls.db'}")
    try:
        REFUSED.drop(registry.engine)
        with pytest.raises(RegistryError, match="the refused calls cannot be read"):
            RefusedCalls(registry).reasons(NOW, 1)
    finally:
        registry.close()
