"""How the house is, on a terminal: what the API tells, tame, and a status that a script can go by."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.house.house_client import HouseClient
from gateway.cli.main import cli
from gateway.front.calls.house_report import HouseShown, ProcessShown, ReceiverShown
from gateway.store.refused_calls import RefusedFor
from tests.gateway.front.http.test_app import HOUSE


def told(shown: HouseShown) -> dict[str, Any]:
    """As it comes over HTTP."""
    return dict(json.loads(json.dumps(asdict(shown))))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("VOICEGATE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(HouseClient, "house", lambda _: told(HOUSE))


def test_a_house_that_takes_calls_says_so_and_how_its_parts_are() -> None:
    shown = CliRunner().invoke(cli, ["house"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[:3] == [
        "takes calls", "1 calls now, free places: 23 of 24 telephones, 8 of 8 browsers",
        "version 0.2.0 , plan 0123456789ab, engine embedded",
    ]  # fmt: skip
    assert "certificate: the house's, signed by itself, until 1970-01-01" in shown.output
    assert "crm: 3 events wait for it, 0 it is never told" in shown.output
    assert "refused in the last hour: 2 times 503, busy" in shown.output


def test_one_that_takes_none_says_why_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    ill = replace(
        HOUSE, ready=False, why=("engine: down",), alarms={"mark failed": 2}, refused=None, disk=None,
        processes=(
            ProcessShown("engine", "failing", None, 3, None, "no memory was left\x1b[2J for it"),
            ProcessShown("zygote", "up", None, None, 5_000_000),
        ),
        receivers=(ReceiverShown("cdr files", 0, 0),),
    )  # fmt: skip
    monkeypatch.setattr(HouseClient, "house", lambda _: told(ill))
    shown = CliRunner().invoke(cli, ["house"])
    assert shown.exit_code == 1
    lines = shown.output.splitlines()
    assert lines[:2] == ["takes no calls", "  engine: down"]
    assert "engine: dies again and again, restarts: 3 (no memory was left\\x1b[2J for it)" in lines
    assert "zygote: up, 5 MB" in lines
    assert "refused calls: the database does not say" in lines
    assert "cdr files" not in shown.output


def test_what_strangers_wrote_is_tame_and_a_program_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = replace(HOUSE, refused=(RefusedFor(404, "no route\n\x1b]0;owned\x07", 1, 1.0),))
    monkeypatch.setattr(HouseClient, "house", lambda _: told(evil))
    shown = CliRunner().invoke(cli, ["house"])
    assert "\x1b" not in shown.output
    assert json.loads(CliRunner().invoke(cli, ["house", "--json"]).output) == told(evil)
