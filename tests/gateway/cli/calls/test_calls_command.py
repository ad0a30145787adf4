"""`voicegate calls`: the registry's calls, whether the gateway runs or not, and what Redis adds."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import subprocess
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from gateway.cli.calls.call_course import head
from gateway.cli.calls.call_table import COLUMNS, REFUSED_COLUMNS
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.run import redis_server
from gateway.store.call_events import Turn
from gateway.store.call_headers import CallHeaders
from gateway.store.call_tables import CALLS
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey, short_folder

pytestmark = pytest.mark.usefixtures("own_house")

NUMBERS = itertools.count(1)
HOUR_S = 3600.0


def voicegate(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv)


def entered(*calls: dict[str, object]) -> None:
    """Enters calls in the registry of the settings in force; those with `how` have ended 10 s later."""
    registry = Registry.open(load().sql)
    for given in calls:
        number = next(NUMBERS)
        row = CallRow(
            call_id=f"c{number}", payload=number, route="demo", caller="sip:bob@10.0.0.9",
            called="sip:demo@gw", source="10.0.0.9",
        )  # fmt: skip
        row = registry.enter(replace(row, **given))  # type: ignore[arg-type]
        if row.how is not None:
            assert row.started_at is not None
            registry.close_call(row.call_id, row.how, row.started_at + 10)
    registry.close()


def listed(*argv: str) -> list[str]:
    """Ids of the calls that are listed, in their order."""
    result = voicegate("calls", *argv)
    assert result.exit_code == 0, result.output
    return [line.split()[0] for line in result.stdout.splitlines() if line.startswith(("c", "call-"))]


def refused(*argv: str) -> str:
    result = voicegate("calls", *argv)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr.strip().splitlines()[-1]


# ── without a gateway ────────────────────────────────────────────────────────────────────────────────


def test_with_no_gateway_and_no_data_the_directory_is_named_and_not_made(own_house: Path) -> None:
    assert f"no calls yet in the data directory {own_house} (VOICEGATE_DATA_DIR)" in voicegate("calls").output
    said = refused("show", "c1")
    assert f"no call c1 in the data directory {own_house}" in said
    assert not own_house.exists()


def test_what_an_older_gateway_wrote_is_listed_with_the_gateway_down() -> None:
    days_ago = time.time() - 40 * 24 * HOUR_S
    entered({"call_id": "c-old", "started_at": days_ago, "how": "caller hung up"}, {"call_id": "c-new"})
    result = voicegate("calls")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["c-new", "c-old"]
    assert " unknown " in lines[0], "nobody says that it lives"
    assert " ended " in lines[1]
    assert f"{datetime.fromtimestamp(days_ago):%Y-%m-%d %H:%M:%S}" in lines[1]
    assert lines[1].endswith("caller hung up")
    assert "Redis does not answer" in result.stderr
    told = json.loads(voicegate("calls", "--json").stdout)
    states = [(call["call_id"], call["state"]) for call in told["calls"]]
    assert (states, told["more"]) == ([("c-new", "unknown"), ("c-old", "ended")], False)
    shown = voicegate("calls", "show", "c-old").output
    assert "caller hung up after 10 s" in shown


def test_another_database_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOICEGATE_SQL_URL", f"sqlite:///{tmp_path}/other.db")
    assert f"in the database sqlite:///{tmp_path}/other.db (VOICEGATE_SQL_URL)" in voicegate("calls").output
    monkeypatch.setenv("VOICEGATE_SQL_URL", "postgresql://vg:hush@127.0.0.1:1/x")
    said = refused()
    assert said.startswith("Error: VOICEGATE_SQL_URL: the call registry cannot be read: ")
    assert "hush" not in said


def test_on_postgresql_too(monkeypatch: pytest.MonkeyPatch, postgresql: str) -> None:
    monkeypatch.setenv("VOICEGATE_SQL_URL", postgresql)
    assert voicegate("calls", "--caller", "nobody at all").exit_code == 0  # there may be no table yet
    entered({"call_id": "c-pg", "caller": "sip:+49-30-555@pg", "how": "failed: x", "payload": 1 << 40})
    assert listed("--caller", "+4930 555", "--failed") == ["c-pg"]
    assert listed("--caller", "555", "--until", "2h") == []


def test_a_directory_that_cannot_be_written_can_be_read(
    own_house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the data may be on a medium where SQLite cannot put its side files."""
    entered({"call_id": "c1", "how": "hung up"})
    before = sorted(path.name for path in own_house.iterdir())
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere else
    assert listed() == ["c1"]
    assert sorted(path.name for path in own_house.iterdir()) == before
    database = own_house / "voicegate.db"
    database.write_bytes(b"no database at all" * 100)
    assert refused().startswith(f"Error: {database}: the call registry cannot be read: ")


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("0123", ["c1", "c2"]),
        ("30 01-23", ["c1", "c2"]),
        ("+49 30", ["c1", "c2"]),
        ("(030) 0123", []),
        ("10", []),  # of an address, not of a number
        ("@10.0.0.7", ["c3"]),
        ("BOB", ["c3"]),
        ("b_b", []),
        ("%", []),
        ("'; DROP TABLE calls; --", []),
        ("Ünal", ["c4"]),
    ],
)
def test_a_part_of_a_number_finds_its_calls(part: str, found: list[str]) -> None:
    entered(
        {"call_id": "c1", "caller": "sip:+49-30-0123@10.0.0.1", "started_at": 4e8},
        {"call_id": "c2", "caller": "sip:+49300123@10.0.0.2", "started_at": 3e8},
        {"call_id": "c3", "caller": "sip:Bob@10.0.0.7", "started_at": 2e8},
        {"call_id": "c4", "caller": "sip:Ünal@x", "started_at": 1e8},
    )
    assert listed("--caller", part) == found


def test_by_who_was_called_by_time_and_by_failure() -> None:
    now = time.time()
    entered(
        {"call_id": "c1", "called": "sip:100@gw", "started_at": now - 10 * HOUR_S, "how": "caller hung up"},
        {
            "call_id": "c2",
            "called": "sip:200@gw",
            "started_at": now - 5 * HOUR_S,
            "how": "failed: its line died",
        },
        {"call_id": "c3", "called": "sip:200@gw", "started_at": now - 1 * HOUR_S, "how": "hung up"},
    )
    assert listed() == ["c3", "c2", "c1"]
    assert listed("--called", "200") == ["c3", "c2"]
    assert listed("--failed") == ["c2"]
    assert listed("--since", "6h") == ["c3", "c2"]
    assert listed("--since", "360m", "--until", "120m") == ["c2"]
    assert listed("--until", "0.4d") == ["c1"]
    assert listed("--since", datetime.fromtimestamp(now - 6 * HOUR_S).isoformat()) == ["c3", "c2"]
    assert listed("--since", "2000-01-01", "--called", "200", "--failed") == ["c2"]
    assert listed("--count", "1") == ["c3"]
    assert "no such call in the data directory" in voicegate("calls", "--called", "300").output


def test_a_date_is_meant_with_its_whole_day() -> None:
    noon = datetime(2026, 3, 2, 12).timestamp()
    last = datetime(2026, 3, 2, 23, 59, 59).timestamp()
    entered({"call_id": "c1", "started_at": noon}, {"call_id": "c2", "started_at": last})
    assert listed("--since", "2026-03-02", "--until", "2026-03-02") == ["c2", "c1"]
    assert listed("--since", "2026-03-03") == []
    assert listed("--until", "2026-03-01") == []
    assert listed("--until", "2026-03-02 12:00:01") == ["c1"]


@pytest.mark.parametrize(
    "text",
    ["", "5x", "-2h", "2026-02-30", "12:00", "yesteryear", "99999999w", "nan", "1e3s", "2026-03-02T25:00"],
)  # fmt: skip
@pytest.mark.parametrize("option", ["--since", "--until"])
def test_what_is_no_time_is_said_with_what_can_be_written(option: str, text: str) -> None:
    assert f"Invalid value for '{option}': {text!r} is not a time; write how long ago" in refused(
        option, text
    )


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize("option", ["--since", "--until"])
def test_the_ends_of_the_calendar_are_no_crash(option: str, day: str) -> None:
    entered({"call_id": "c1"})
    result = voicegate("calls", option, day)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--since", "2h", "--until", "3h"), "--since is not before --until"),
        (("--caller", " +"), "holds nothing to look for"),
        (("--called", ""), "holds nothing to look for"),
        (("--caller", "a\x1b[31m"), "is not part of a number"),
        (("--caller", "\udcff"), "is not part of a number"),
        (("--count", "0"), "0 is not in the range x>=1"),
        (("--csv", "--json"), "give --csv or --json, not both"),
    ],
)
def test_bad_input_is_one_clear_line(argv: tuple[str, ...], said: str) -> None:
    assert said in refused(*argv)


def test_a_hundred_thousand_calls_are_searched_by_sql_and_few_are_read(own_house: Path) -> None:
    registry = Registry.open(load().sql)
    rows = [
        {
            "call_id": f"c{n}", "payload": n, "gateway": "", "dialplan": "", "route": "demo",
            "caller": f"sip:+49{n:07}@h", "called": "sip:d@h", "source": "", "started_at": 1e9 + n,
            "ended_at": 1e9 + n + 1, "how": "hung up",
        }
        for n in range(100_000)
    ]  # fmt: skip
    with registry._engine.begin() as connection:
        connection.execute(insert(CALLS), rows)
        plans = [
            " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
            for query in (
                "SELECT * FROM calls WHERE started_at >= '2026' ORDER BY started_at DESC LIMIT 20",
                "SELECT * FROM calls WHERE ended_at IS NULL ORDER BY started_at DESC LIMIT 20",
            )
        ]
    registry.close()
    assert "calls_by_start" in plans[0], plans
    assert "calls_open" in plans[1], plans
    assert listed("--count", "2") == ["c99999", "c99998"]
    assert listed("--caller", "49 000 0017") == ["c17"]


def test_a_registry_of_an_older_version_is_read_and_gets_its_index_at_the_next_start() -> None:
    entered({"call_id": "c1"})
    for _ in range(2):
        registry = Registry.open(load().sql)
        with registry._engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX calls_open")  # fails if the index is not there
        registry.close()
        assert listed() == ["c1"]


# ── refused calls ────────────────────────────────────────────────────────────────────────────────────


def turned_away(*calls: dict[str, object]) -> None:
    registry = Registry.open(load().sql)
    for given in calls:
        call = RefusedCall(
            call_id=f"call-{next(NUMBERS)}", caller="sip:bob@h", called="sip:demo@gw", source="192.0.2.9",
            transport="udp", status=404, reason="no route takes it", started_at=time.time(),
        )  # fmt: skip
        RefusedCalls(registry).note([replace(call, **given)])  # type: ignore[arg-type]
    registry.close()


def test_refused_calls_are_listed_with_their_reason_and_found_like_others() -> None:
    now = time.time()
    turned_away(
        {
            "call_id": "call-a",
            "caller": "sip:+49-30-1@h",
            "started_at": now - 3 * HOUR_S,
            "sip_call_id": "x@y",
        },
        {"call_id": "call-b", "status": 503, "reason": "all lines are busy", "caller": "\x1b[2J=1"},
        {"call_id": "call-c", "caller": "web", "status": 403, "transport": "webrtc", "source": "::1"},
    )
    assert listed("--refused", "--since", "2h") == ["call-c", "call-b"]
    assert listed("--refused", "--caller", "4930") == ["call-a"]
    assert listed("--refused", "--count", "1") == ["call-c"]
    assert listed() == [], "a call that was refused never began"
    text = voicegate("calls", "--refused").stdout
    assert "403 no route takes it  web → sip:demo@gw  from ::1" in text
    assert "503 all lines are busy  \\x1b[2J=1 → " in text
    found = json.loads(voicegate("calls", "--refused", "--json").stdout)
    assert [call["status"] for call in found["refused"]] == [403, 503, 404]
    rows = list(csv.DictReader(io.StringIO(voicegate("calls", "--refused", "--csv").stdout, newline="")))
    assert tuple(rows[0]) == REFUSED_COLUMNS
    assert rows[2]["sip_call_id"] == "x@y"
    for one in ("call-a", "x@y"):
        assert "404 no route takes it" in voicegate("calls", "show", one).stdout, "by either id"


def test_calls_that_are_alike_are_one_line_with_their_number() -> None:
    turned_away(*[{"started_at": 1e9}] * 3)
    lines = voicegate("calls", "--refused").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("3 times")


def test_without_refused_calls_the_place_is_named(own_house: Path) -> None:
    assert f"no calls yet in the data directory {own_house}" in voicegate("calls", "--refused").stdout
    for option in ("--failed", "--poor", "--route=demo", "--sort=caller", "--at-least=1"):
        assert "--refused goes with --id" in refused(option, "--refused")


# ── what callers wrote ───────────────────────────────────────────────────────────────────────────────

NASTY = [
    "sip:\x1b]0;owned\x07\x1b[2J@h",
    "sip:a\r\nb@h",
    "sip:\u202egnp.exe@h",
    "sip:\x9b31m@h",
    "sip:\u2028x\x7f@h",
]


@pytest.mark.parametrize("caller", NASTY)
@pytest.mark.parametrize("argv", [(), ("--csv",), ("--json",), ("show", "c1")])
def test_control_characters_never_reach_the_terminal(caller: str, argv: tuple[str, ...]) -> None:
    entered({"call_id": "c1", "caller": caller, "how": caller})
    output = voicegate("calls", *argv).stdout_bytes.decode()
    assert "c1" in output
    bad = {c for c in output if not c.isprintable() and c not in "\r\n"}
    assert bad <= ({"\x7f"} if "--json" in argv else set()), bad
    assert "\r" not in output.replace("\r\n", "")
    if argv != ("--csv",):
        assert "\r" not in output


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", " =1", "\t=1", "\r=1", "a;=1+1", "a,=1", "＝1",
        "x|@y",
    ],
)  # fmt: skip
def test_no_cell_is_a_formula_in_a_spreadsheet(text: str) -> None:
    entered({"call_id": "c1", "caller": text, "called": f'"{text}', "how": "hung up"})
    output = voicegate("calls", "--csv").stdout
    cells = [cell for row in list(csv.reader(io.StringIO(output)))[1:] for cell in row]
    for part in (
        part for cell in cells for part in (cell, *cell.replace("|", ";").replace(",", ";").split(";"))
    ):
        assert not part.lstrip(" ").startswith(tuple("=+-@＝")), cells


def test_csv_is_rfc_4180_with_a_header_and_all_calls() -> None:
    quoted = 'sip:"a, b"@h'
    entered(*({"caller": quoted, "how": "hung up", "started_at": 1e9 + n} for n in range(30)))
    entered({"call_id": "c-number", "caller": "+49 30 123", "how": "hung up", "started_at": 5e8})
    output = voicegate("calls", "--csv").stdout_bytes.decode()
    assert output.endswith("\r\n")
    assert output.count("\r\n") == 32
    assert '"sip:""a, b""@h"' in output
    rows = list(csv.DictReader(io.StringIO(output, newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 31, "not only the newest 20"
    assert rows[0]["caller"] == quoted
    assert rows[0]["started_at"] == "2001-09-09T01:47:09.000+00:00"
    assert rows[0]["duration_s"] == "10.000"
    assert rows[-1]["caller"] == "+49 30 123", "a number is not spoilt"


# ── with Redis ───────────────────────────────────────────────────────────────────────────────────────


async def test_calls_and_one_call(valkey: Valkey, own_house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEGATE_REDIS_URL", valkey.url)
    entered({"call_id": "c1", "payload": 0xABC, "caller": "bob", "called": "demo", "voice": "heart"})
    entered({"call_id": "c2"})
    sessions = await Sessions.open(valkey.url)
    call = sessions.session("c1")
    call.opened(caller="bob", called="demo", route="demo")
    asked = time.time() + 5
    call.event("dtmf", digit="5")
    call.turn(Turn("bot", "daily", latency_ms={"whole": 512.4}), at=asked + 1.7)
    call.turn(Turn("caller", "when are you \x1b[1mopen", duration_s=1.2), at=asked)
    await sessions.writer.flush()

    async def run(*argv: str) -> Result:
        return await asyncio.to_thread(voicegate, *argv)

    lines = (await run("calls")).stdout.splitlines()
    states = {line.split()[0]: line.split()[3] for line in lines}
    assert states == {"c1": "ringing", "c2": "unknown"}, (
        "Redis says that the one lives, and nothing of the other"
    )
    assert any("bob → demo" in line for line in lines)
    call.note(
        codec="PCMU",
        srtp="AES_CM_128_HMAC_SHA1_80",
        packets=990,
        lost=10,
        jitter_ms=4.25,
        buffer_ms=24.0,
        round_trip_ms=31.4,
    )
    call.note(mos=4.21, mos_worst=2.9, far_sent=1000, far_lost=68, far_jitter_ms=9.5, far_mos=3.64)
    call.note(target_codec="PCMA", target_packets=480, target_lost=20, target_mos=3.9, target_far_sent=500)
    call.ended("caller hung up", underruns=2)
    await sessions.close()
    told = json.loads((await run("calls", "--json")).output)["calls"]
    assert [(call["call_id"], call["state"]) for call in told] == [("c2", "unknown"), ("c1", "ended")]
    assert told[1]["how"] == "caller hung up"
    shown = (await run("calls", "show", "c1")).output
    assert "payload 000000000abc" in shown
    assert "bot: daily   [whole 512 ms]" in shown
    assert (
        "PCMU, encrypted (AES_CM_128_HMAC_SHA1_80): 990 packets came, 10 were lost (1.0 %), jitter 4.2 ms"
        in shown
    )
    assert "24 ms in the buffer, round trip 31 ms, MOS 4.2" in shown
    assert "the caller missed 68 of our 1000 packets (6.8 %), jitter 9.5 ms, MOS 3.6" in shown
    assert "of the target: PCMA: 480 packets came, 20 were lost (4.0 %), MOS 3.9" in shown
    assert "of the target: the target missed 0 of our 500 packets" in shown
    assert "in its worst ten seconds, one way or the other: MOS 2.9" in shown
    assert "2 of our frames (20 ms) were not ready in time" in shown
    assert "\x1b" not in shown
    happened = [
        line.split(maxsplit=1) for line in shown.splitlines() if line[2:4].isdigit() and line[4] == ":"
    ]
    assert [what.split()[0] for _, what in happened] == ["opened", "dtmf", "ended", "caller:", "bot:"]
    assert happened[3][1] == "caller: when are you \\x1b[1mopen (1.2 s)"
    times = [time_of for time_of, _ in happened]
    assert times == sorted(times)
    assert times[3] != times[4], "each side has its own time"
    one = json.loads((await run("calls", "show", "c1", "--json")).output)
    assert one["registry"]["voice"] == "heart"
    assert one["how"] == "caller hung up"
    assert (one["mos"], one["far_mos"], one["far_lost"]) == (4.21, 3.64, 68)
    unknown = await run("calls", "show", "c3")
    assert unknown.exit_code == 1
    assert "no call c3" in unknown.output
    valkey.stop()
    assert "Redis does not answer" in (await run("calls", "show", "c1")).output  # the registry still answers


async def test_a_redis_that_does_not_know_the_calls_says_so(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_REDIS_URL", valkey.url)
    entered({"call_id": "c1"})
    result = await asyncio.to_thread(voicegate, "calls")
    assert " unknown " in result.stdout
    assert result.stderr == ""
    assert "Redis has forgotten" in (await asyncio.to_thread(voicegate, "calls", "show", "c1")).stdout


async def kept(url: str) -> None:
    sessions = await Sessions.open(url)
    sessions.session("c1").opened(caller="bob")
    sessions.session("c1").turn(Turn("caller", "when are you open"))
    await sessions.close()


def test_what_happened_in_a_call_is_told_while_the_gateway_is_down(own_house: Path) -> None:
    entered({"call_id": "c1", "how": "hung up"})
    folder = own_house / "redis"
    with short_folder() as short:
        path = short / "redis.sock"
        server = subprocess.Popen(redis_server.command(path, folder), stdout=subprocess.DEVNULL)
        redis_server.wait_until_up(path, lambda: server.poll() is None)
        asyncio.run(kept(f"unix://{path}"))
        server.terminate()
        server.wait()
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    shown = voicegate("calls", "show", "c1")
    assert "caller: when are you open" in shown.stdout
    assert "hung up" in shown.stdout
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_what_the_caller_was_told_is_shown() -> None:
    told = {"principal": "Lindens", "language": "de", "voice": "", "text": "…", "at": 0.5}
    facts = {"disclosed": [told, told | {"voice": "jane"}, "a text, as older gateways kept it"]}
    said = [line for line in head("c1", None, facts) if "told" in line]
    assert [line.partition(", whole at ")[0] for line in said] == [
        "  told that it is a machine for Lindens (de)",
        "  told that it is a machine of the voice jane for Lindens (de)",
    ]


def test_what_a_trusted_peer_said_is_shown_from_the_registry_alone_and_tame() -> None:
    entered({"call_id": "c1", "how": "caller hung up"})
    registry = Registry.open(load().sql)
    headers = {"p-asserted-identity": "<tel:+4930>", "x-note": "red \x1b[31m"}
    CallHeaders(registry).note("c1", headers)
    registry.close()
    lines = voicegate("calls", "show", "c1").stdout.splitlines()
    assert "  p-asserted-identity: <tel:+4930>" in lines
    assert any(line.startswith("  x-note: red ") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert json.loads(voicegate("calls", "show", "c1", "--json").stdout)["headers"] == headers


def test_a_name_and_a_login_are_shown() -> None:
    facts = {"name": "Bob", "user": "alice", "headers": {"privacy": "id"}}
    shown = list(head("c1", None, facts))
    assert "  the caller's name is given as Bob" in shown
    assert "  logged in as alice" in shown
    assert "  privacy: id" in shown
