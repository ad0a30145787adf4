"""The fuzzer of the edge: a short run is sound, and what it is for is found."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import edge_fuzz
from gateway.edge.proxy.callers import CallersSide
from gateway.edge.proxy.switchboard import Switchboard


def test_a_few_thousand_datagrams_do_no_harm() -> None:
    found = edge_fuzz.fuzz(1500, seed=random.randrange(1 << 30))
    assert found.fell == []
    assert set(found.kept) == {found.kept[0]}
    assert found.pings == 30
    assert found.datagrams >= 30 * (edge_fuzz.BATCH - edge_fuzz.REGISTERS - 1)
    assert found.registered > 5
    assert found.targets[200] > 0
    assert {"INVITE", "OPTIONS", "REGISTER"} <= set(found.left)
    assert found.line_took["INVITE"] > 3
    assert json.loads(json.dumps(found.as_json()))["statuses"]["400"] == found.statuses["400"] > 0


def test_an_error_of_ours_is_a_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    take = CallersSide.take

    def careless(self: CallersSide, message: object, *args: object) -> None:
        if b"Max-Forwards: 70" not in bytes(message):  # type: ignore[call-overload]
            raise KeyError("Max-Forwards")
        take(self, message, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(CallersSide, "take", careless)
    found = edge_fuzz.fuzz(500, seed=1)
    assert "KeyError" in found.fell[0]
    assert not found.sound


def test_what_the_edge_keeps_is_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    hoard: list[bytes] = []
    refuse = Switchboard.turn_away

    def hoarding(self: Switchboard, request: object, *args: object) -> None:
        hoard.extend(bytes([n]) * 40 for n in range(100))
        refuse(self, request, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Switchboard, "turn_away", hoarding)
    found = edge_fuzz.fuzz(1000, seed=1)
    assert found.growth > edge_fuzz.GROWTH
    assert not found.sound
