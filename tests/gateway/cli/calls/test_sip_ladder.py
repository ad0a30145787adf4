"""`voicegate calls show --sip` and `--log`: a call's messages and lines of the log, on a terminal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.calls.sip_ladder import ladder, log_lines
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.ipc.wire_message import WireMessage
from gateway.store.call_trails import LogLine
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey

pytestmark = pytest.mark.usefixtures("own_house")


def voicegate(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv)


def message(first: str, way: tuple[str, str], at: float = 0.5, text: str = "") -> WireMessage:
    return WireMessage(at, *way, "udp", first, text or f"{first}\nFrom: x\n\nv=0")


@pytest.fixture
def kept(own_house: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call with two messages and a line."""
    registry = Registry.open(load().sql)
    registry.enter(
        CallRow(call_id="c1", payload=1, route="demo", caller="sip:b@x", called="sip:d@y", source="x")
    )
    registry.enter(
        CallRow(call_id="c2", payload=2, route="demo", caller="sip:b@x", called="sip:d@y", source="x")
    )
    registry.close()
    monkeypatch.setenv("VOICEGATE_REDIS_URL", valkey.url)

    async def write() -> None:
        sessions = await Sessions.open(valkey.url)
        pen = sessions.ladders()
        pen.message("c1", message("INVITE sip:demo@x SIP/2.0", ("caller", "us")))
        pen.message("c1", message("SIP/2.0 200 O\x1b[31mK", ("us", "caller"), 1.25))
        sessions.logs().line("c1", LogLine(0.75, "hall0", "warning", "call.odd", {"why": "x"}))
        await sessions.writer.flush()
        await sessions.close()

    asyncio.run(write())


@pytest.mark.usefixtures("kept")
def test_the_ladder_is_one_line_a_message() -> None:
    result = voicegate("calls", "show", "c1", "--sip")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.endswith("caller ──▶ us  udp  INVITE sip:demo@x SIP/2.0")
    assert second.endswith("caller ◀── us  udp  SIP/2.0 200 O\\x1b[31mK"), "what a caller wrote is tame"


@pytest.mark.usefixtures("kept")
def test_whole_messages_lines_of_the_log_and_json() -> None:
    whole = voicegate("calls", "show", "c1", "--sip", "--whole").stdout.splitlines()
    assert whole[1:4] == ["      From: x", "", "      v=0"]
    (line,) = voicegate("calls", "show", "c1", "--log").stdout.splitlines()
    assert line.endswith("hall0    WARNING call.odd  why=x")
    both = json.loads(voicegate("calls", "show", "c1", "--sip", "--log", "--json").stdout)
    assert [len(both["sip"]), len(both["log"])] == [2, 1]
    assert both["call_id"] == "c1"


@pytest.mark.usefixtures("kept")
def test_of_an_unknown_call_nothing_is_shown_and_it_says_so() -> None:
    result = voicegate("calls", "show", "c2", "--sip")
    assert result.exit_code != 0
    assert "no messages of the call c2 in the data directory" in result.stderr
    assert "no call c3" in voicegate("calls", "show", "c3", "--sip").stderr
    assert "goes with --sip" in voicegate("calls", "show", "c1", "--whole").stderr


def test_what_was_left_out_is_said_and_trunks_have_their_place() -> None:
    entry = {"at": 1.0, "from": "us", "to": "carrier", "protocol": "tls", "first": "BYE", "text": "BYE"}
    caller = {**entry, "from": "caller", "to": "us", "left_out": 7}
    lines = list(ladder([entry, caller], whole=False))
    assert lines[0].endswith("  carrier ◀── us  tls  BYE")
    assert lines[1] == "  … 7 more were not kept"
    assert lines[2].endswith("  caller  ──▶ us  tls  BYE")
    assert list(ladder([], whole=True)) == list(log_lines([])) == []
