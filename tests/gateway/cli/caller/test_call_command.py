"""`voicegate call` by a script, and many times."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.caller.call_command import call
from gateway.cli.caller.call_request import CallRequest, arrivals
from gateway.cli.caller.testphone import place_calls
from tests.gateway.line.rawphone import RawPhone

URI = "sip:demo@127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--script", "no.txt"], "cannot read the script no.txt: No such file or directory"),
        (["--script", "no.txt", "--dtmf", "1"], "--script says all that is done: write --play and --dtmf"),
        (
            ["--noise", "hum.wav"],
            "how loud is the noise? add --snr 10, for one that is 10 dB below",
        ),
        (["--snr", "10", "--noise", "no.wav"], "no.wav does not exist"),
        (["--loss", "60"], "--loss: 60 is not a percentage from 0 to 50"),
        (["--mark-keys", "no.json"], "no.json does not exist; make it with: voicegate watermark keygen"),
        (
            ["--report", "/no/where.json"],
            "cannot write /no/where.json: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments: list[str], why: str) -> None:
    said = CliRunner().invoke(call, [*arguments, URI])
    assert said.exit_code == 1
    assert said.output.startswith(f"Error: {why}")
    assert said.output.count("\n") == 1


def test_a_scripts_sound_that_cannot_be_used_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    script = tmp_path / "s.txt"
    script.write_text("listen\nplay bad.wav\n")
    said = CliRunner().invoke(call, ["--script", str(script), URI])
    assert said.exit_code == 1
    assert f"{script}, line 2: " in said.output
    assert "is not a PCM wav file" in said.output


def test_arrivals_are_spread_evenly() -> None:
    made = arrivals(CallRequest(URI, after_s=1.0), 4, 8.0)
    assert [one.after_s for one in made] == [1.0, 3.0, 5.0, 7.0]


async def test_many_calls_are_in_one_report_each_with_its_end(tmp_path: Path) -> None:
    callee = await RawPhone().open()
    uri, report = f"sip:raw@127.0.0.1:{callee.sip_port}", tmp_path / "report.json"
    arguments = [uri, "--calls", "5", "--over", "0.5", "--report", str(report)]
    calling = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, call, arguments))
    for status in ("486 Busy Here", "503 Service Unavailable", *["486 Busy Here"] * 3):
        callee.answer(await callee.request("INVITE", 10), status)
    said = await calling
    callee.close()
    assert said.exit_code == 1
    told = json.loads(report.read_text())
    assert told["summary"]["refused"] == {"486": 4, "503": 1}
    assert len(told["calls"]) == 5
    assert "0 of 5 calls answered" in said.output


async def test_reports_come_in_the_order_of_their_requests_whatever_their_codecs() -> None:
    callee = await RawPhone().open()
    uri = f"sip:raw@127.0.0.1:{callee.sip_port}"
    asked = [
        CallRequest(f"{uri};n={n}", codec=codec) for n, codec in enumerate(("g722", "pcmu", "g722", None))
    ]
    told: list[str] = []
    calling = asyncio.create_task(
        asyncio.to_thread(place_calls, asked, told=lambda report: told.append(report.uri))
    )
    for _ in asked:
        callee.answer(await callee.request("INVITE", 10), "486 Busy Here")
    reports = await calling
    callee.close()
    assert [report.uri for report in reports] == [one.uri for one in asked]
    assert sorted(told) == sorted(one.uri for one in asked)
