"""`voicegate calls why`: what was wrong with a call, from what its stores have."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.house.house_client import HouseClient
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey

pytestmark = pytest.mark.usefixtures("own_house")


def voicegate(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv)


NUMBERS = itertools.count(1)


def entered(call_id: str, how: str) -> None:
    """Enters a call that is over in the registry of the settings in force."""
    registry = Registry.open(load().sql)
    row = CallRow(
        call_id=call_id, payload=next(NUMBERS), route="demo", caller="a", called="b", source="c"
    )  # fmt: skip
    registry.enter(row)
    registry.close_call(call_id, how, time.time())
    registry.close()


async def test_the_first_cause_is_told_with_its_evidence_and_what_to_do(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_REDIS_URL", valkey.url)
    sessions = await Sessions.open(valkey.url)
    for call_id in ("c-bad", "c-sound"):
        entered(call_id, "hung up")
        call = sessions.session(call_id)
        call.opened(caller="bob", called="demo", route="demo")
        call.state("answered")
        call.note(packets=990, lost=0, mos=4.39, far_sent=900, far_lost=0, far_mos=4.3)
        if call_id == "c-bad":
            call.event("mark_failed", error="too loud \x1b[2J")
            call.event("transfer_failed", target="office", status=486, why="Busy Here")
        call.ended("hung up", spoken_s=9.0, underruns=0)
    await sessions.close()

    said = (await asyncio.to_thread(voicegate, "calls", "why", "c-bad")).stdout.splitlines()
    assert said[0] == "call c-bad: frames could not be marked and went out as silence"
    assert said[1].startswith("  mark_failed at ")
    assert said[1].endswith("1 frames; too loud \\x1b[2J")
    assert said[2].startswith("  do: read the log's lines of this call_id (mark.failed)")
    assert said[3].startswith("  then: the target did not take the caller (transfer_failed at ")
    assert said[3].endswith("486 Busy Here)")
    told = json.loads((await asyncio.to_thread(voicegate, "calls", "why", "c-bad", "--json")).stdout)
    assert [cause["name"] for cause in told["causes"]] == ["not marked", "transfer failed"]
    shown = (await asyncio.to_thread(voicegate, "calls", "show", "c-bad")).stdout
    assert "wrong: frames could not be marked" in shown

    said = (await asyncio.to_thread(voicegate, "calls", "why", "c-sound")).stdout.splitlines()
    assert said[0] == "call c-sound: nothing was wrong"
    assert "MOS 4.4 from the caller, MOS 4.3 to the caller" in said[1]
    assert "nothing was wrong" in (await asyncio.to_thread(voicegate, "calls", "show", "c-sound")).stdout


def test_without_redis_how_it_ended_is_all_that_is_known() -> None:
    entered("c-died", "failed: its hall died")
    entered("c-fine", "caller hung up")
    said = voicegate("calls", "why", "c-died").stdout
    assert said.startswith("call c-died: the process that led the call died")
    assert "not known: what happened in it" in said
    assert "nothing was wrong, as far as is known" in voicegate("calls", "why", "c-fine").stdout


def test_a_call_that_was_not_taken_says_so_by_either_id() -> None:
    registry = Registry.open(load().sql)
    refused = RefusedCall(
        call_id="c-no", caller="sip:bob@h", called="sip:nowhere@gw", source="192.0.2.9", transport="udp",
        status=404, reason="no route takes it", started_at=time.time(), sip_call_id="x@y",
    )  # fmt: skip
    RefusedCalls(registry).note([refused])
    registry.close()
    for call_id in ("c-no", "x@y"):
        said = voicegate("calls", "why", call_id).stdout
        assert "the call was not taken" in said
        assert "404 no route takes it" in said


def test_a_call_that_nobody_knows_is_an_error(own_house: Path) -> None:
    result = voicegate("calls", "why", "c\x1b[2J")
    assert result.exit_code == 1
    assert "no call c\\x1b[2J in the data directory" in result.stderr
    assert not own_house.exists()


def test_a_gateway_elsewhere_is_asked_by_its_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o600)
    call = {"call_id": "c-far", "how": "failed: its line died", "started_at": 1.0, "answered_at": 2.0}
    asked = []

    def answer(_: HouseClient, call_id: str) -> dict[str, object]:
        asked.append(call_id)
        return {**call, "ended_at": 9.0, "packets": 100, "events": []}

    monkeypatch.setattr(HouseClient, "call", answer)
    there = ("--url", "https://gate.example:8443", "--token-from", str(tmp_path / "token"))
    said = voicegate(*there, "calls", "why", "c-far")
    assert said.stdout.startswith("call c-far: the process that had the call's sound died"), said.output
    assert "wrong: the process that had the call's sound died" in voicegate(
        *there, "calls", "show", "c-far"
    ).stdout  # fmt: skip
    assert asked == ["c-far"] * 2
