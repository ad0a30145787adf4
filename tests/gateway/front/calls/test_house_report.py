"""How the house is, in one answer: processes that die, engines, secrets in URLs, databases that are away."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config.certificate import Certificate
from gateway.config.own_certificate import own_certificate
from gateway.config.settings import Settings
from gateway.front.calls.house_report import STEADY_S, engine_shown, place_of, processes_shown
from gateway.front.house.process_starts import own_start
from gateway.front.http.house_shapes import HouseTold
from gateway.ipc.front_messages import HouseState
from gateway.ipc.process_lives import ProcessLife, note_lives
from gateway.store.refused_calls import REFUSED, RefusedCall, RefusedCalls, RefusedFor
from tests.gateway.front.calls.test_web_places import Switch, switch
from tests.needs import HANGS_S

__all__ = ["switch"]


def life(pid: int, restarts: int = 0, *, hopeless: bool = False) -> ProcessLife:
    return ProcessLife(pid, restarts, hopeless, "why" if restarts else "")


def test_each_process_says_how_it_fares() -> None:
    now = own_start()
    shown = processes_shown(
        {
            "front": life(7),
            "hall0": life(8, 1),
            "redis": life(0, 2, hopeless=True),
            "sip0": life(9, 3, hopeless=True),
            "web0": life(10, 3, hopeless=True),
        },
        {"front": now - 100, "redis": now - 100, "sip0": now - 1, "web0": now - STEADY_S - 100},
        {"front": 50, "zygote": 60},
    )
    assert [(one.name, one.state, one.restarts) for one in shown] == [
        ("front", "up", 0), ("hall0", "down", 1), ("redis", "failing", 2), ("sip0", "failing", 3),
        ("web0", "up", 3), ("zygote", "up", None),
    ]  # fmt: skip
    front, zygote = shown[0], shown[-1]
    assert front.since is not None
    assert abs(time.time() - 100 - front.since) < 10
    assert (front.memory_bytes, zygote.memory_bytes, zygote.since) == (50, 60, None)
    assert shown[1].error == "why"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@collector.example:4318/v1/secret?token=x", "https://collector.example:4318"),
        ("http://[::1]:4318", "http://[::1]:4318"),
        ("wss://engine.example/abc", "wss://engine.example"),
        ("http://[::1", "an address that cannot be read"),
        ("http://a:99999999", "an address that cannot be read"),
    ],
)
def test_of_an_address_nothing_is_told_that_may_be_secret(url: str, shown: str) -> None:
    assert place_of(url) == shown


def test_the_engine_is_named_as_the_settings_name_it() -> None:
    cascade = Settings(engine="cascade", llm_url="https://me:pw@chat.example/v1", llm_model="local")
    told = engine_shown(cascade, "ready")
    assert (told.kind, told.model, told.at) == ("cascade", "local", ("https://chat.example",))
    assert engine_shown(Settings(), "down").model == ""
    assert engine_shown(Settings(engine="chroma", chroma="/models/chroma"), "ready").model == "chroma"
    assert engine_shown(Settings(engine="chroma", chroma="maker/Chroma"), "ready").model == "maker/Chroma"


async def test_all_of_it_has_the_shape_that_is_described(switch: Switch) -> None:
    front = switch.front
    note_lives(front.runtime.lives, {"front": life(7)})
    table = RefusedCalls(front.registry)
    table.open()
    refused = RefusedCall(
        call_id="c1", caller="a", called="b", source="192.0.2.7", transport="udp", status=503,
        reason="<b>busy</b>", started_at=time.time(),
    )  # fmt: skip
    await asyncio.to_thread(table.note, [refused, refused, refused])
    front.metrics.alarm("mark failed")
    state = HouseState(False, {"hall": "ready", "engine": "slow"}, busy="hall0: 8 calls")
    told = asdict(await front._report.shown(state))
    house = HouseTold.model_validate(told, strict=False)
    assert house.why == ["engine: slow", "no time for one more call: hall0: 8 calls"]
    assert (house.places["browsers"].all, house.places["browsers"].free) == (8, 8)
    assert house.refused is not None
    assert [(one.status, one.reason, one.count) for one in house.refused] == [(503, "<b>busy</b>", 3)]
    assert house.alarms == {"mark failed": 1}
    assert [one.name for one in house.processes] == ["front"]
    assert house.plan == switch.desk.routing.dialplan.version
    assert house.disk is not None
    assert told.keys() == HouseTold.model_fields.keys(), "what is told is described"


async def test_a_database_or_a_disk_that_is_away_takes_nothing_else_along(
    switch: Switch, tmp_path: Path
) -> None:
    REFUSED.drop(switch.desk.registry.engine)
    (tmp_path / "data").rename(tmp_path / "gone")
    told = await switch.front._report.shown(HouseState(True))
    assert (told.refused, told.disk, told.ready) == (None, None, True)


async def test_a_database_that_hangs_is_asked_once_and_keeps_nothing_from_being_told(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, asked = threading.Event(), 0

    def hangs(*_: object) -> list[RefusedFor]:
        nonlocal asked
        asked += 1
        goes_on.wait(HANGS_S)
        return [RefusedFor(503, "busy", 1, 1.0)]

    monkeypatch.setattr(RefusedCalls, "reasons", hangs)
    monkeypatch.setattr(switch.front._report._refused, "_answer_s", 0.01)
    try:
        for _ in range(3):
            told = await switch.front._report.shown(HouseState(True))
            assert (told.refused, told.ready) == (None, True)
        assert asked <= 1
    finally:
        goes_on.set()
    async with asyncio.timeout(HANGS_S):
        while told.refused is None:
            told = await switch.front._report.shown(HouseState(True))
    assert told.refused == (RefusedFor(503, "busy", 1, 1.0),)


async def test_certificates_that_end_are_told_the_houses_and_trunks_alike(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = switch.front
    at = datetime(2026, 3, 2, tzinfo=UTC)
    monkeypatch.setattr(front.edge.trunks, "ends", lambda: [("carrier", "authority", at)])
    chain, key = tmp_certificate(front.settings)
    monkeypatch.setattr(front.certificate, "certificate", Certificate(chain, key))
    house, trunk = (await front._report.shown(HouseState(True))).certificates
    assert house.what == "the house's, signed by itself"
    assert house.ends_at is not None
    assert 700 * 86_400 < house.ends_at - time.time() < 740 * 86_400, "for two years"
    assert len(house.sha256) == 95
    assert (trunk.what, trunk.sha256, trunk.ends_at) == ("the authority of trunk carrier", "", at.timestamp())


def tmp_certificate(settings: Settings) -> tuple[Path, Path]:
    """Such as the gateway signs itself."""
    chain, key = settings.data_dir / "tls.pem", settings.data_dir / "tls-key.pem"
    own_certificate(settings, chain, key)
    return chain, key
