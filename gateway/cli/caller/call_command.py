"""`voicegate call`: the operator's test phone, one of them or many.

    voicegate call --play question.wav --record answer.wav sip:demo@127.0.0.1:5060
    voicegate call --script caller.txt --calls 20 --over 60 --report calls.json sip:demo@127.0.0.1
    voicegate call --trunk carrier --play question.wav +493012345

It ends with 0 only if every call was answered.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gateway.cli.caller.call_reports import as_json, describe, describe_many
from gateway.cli.caller.call_request import CODECS, Behind, CallRequest, arrivals
from gateway.cli.caller.call_script import load_script
from gateway.cli.caller.caller_sound import check_writable
from gateway.cli.caller.testphone import place_calls
from gateway.cli.caller.trunk_call import TrunkCall
from gateway.config.settings import load
from gateway.errors import CallerError, VoicegateError
from gateway.phone.rough_line import RoughLine

FILE = click.Path(path_type=Path)


@click.command("call")
@click.argument("uri")
@click.option("--play", multiple=True, type=FILE, help="wav to say; again for more turns")
@click.option("--record", type=FILE, help="wav for what is heard; of many calls: NAME-1.wav, NAME-2.wav, …")
@click.option("--dtmf", default="", help="keys to press, a comma between turns: 1,2")
@click.option("--script", type=FILE, help="what to do, a line each; instead of --play and --dtmf")
@click.option("--calls", type=click.IntRange(1, 1000), default=1, help="so many calls")
@click.option("--over", type=click.FloatRange(0, 86400), default=0.0, help="seconds in which they begin")
@click.option("--duration", type=click.FloatRange(0.1, 86400), help="seconds; default: until all is answered")
@click.option("--at", type=click.FloatRange(0), help="say the first thing so many seconds after the answer")
@click.option("--trunk", help="call the number URI through this trunk of trunks.toml")
@click.option("--called-agrees", is_flag=True, help="who is called by the trunk agrees to be recorded")
@click.option("--user", help="digest user")
@click.option("--password", help="digest password", envvar="VOICEGATE_CALL_PASSWORD")
@click.option("--codec", type=click.Choice(CODECS), help="offer only this one; default: pcmu, pcma")
@click.option("--snr", type=click.FloatRange(-20, 60), help="noise behind the caller: dB below its voice")
@click.option("--noise", type=FILE, help="wav of that noise; default: pink noise")
@click.option("--loss", type=float, default=0.0, help="% of the caller's packets that are lost")
@click.option("--burst", type=int, default=1, help="packets that are lost together")
@click.option("--jitter", type=float, default=0.0, help="ms by which the caller's packets are late, at most")
@click.option("--reorder", type=float, default=0.0, help="% of its packets that the next one overtakes")
@click.option("--heard-loss", type=float, default=0.0, help="% of the packets to the caller that are lost")
@click.option("--seed", type=int, default=1, help="which packets, and which noise")
@click.option("--mark-keys", type=FILE, help="look for the mark of these keys in what is heard")
@click.option("--report", type=FILE, help="write the report of every call here, as JSON")
@click.option("--json", "printed", is_flag=True, help="print the report as JSON")
def call(
    uri: str,
    play: tuple[Path, ...],
    record: Path | None,
    dtmf: str,
    script: Path | None,
    calls: int,
    over: float,
    duration: float | None,
    at: float | None,
    trunk: str | None,
    called_agrees: bool,
    user: str | None,
    password: str | None,
    codec: str | None,
    snr: float | None,
    noise: Path | None,
    loss: float,
    burst: int,
    jitter: float,
    reorder: float,
    heard_loss: float,
    seed: int,
    mark_keys: Path | None,
    report: Path | None,
    printed: bool,
) -> None:
    """Place a call, or many, and say what happened. Ends with 0 only if all were answered."""
    keys = [group.strip() for group in dtmf.split(",") if group.strip()]
    try:
        if script is not None and (play or keys):
            raise CallerError("--script says all that is done: write --play and --dtmf as lines of it")
        if noise is not None and snr is None:
            raise CallerError("how loud is the noise? add --snr 10, for one that is 10 dB below the caller")
        request = CallRequest(
            uri,
            [*play, *keys] if script is None else load_script(script),
            duration_s=duration,
            at_s=at,
            user=user,
            password=password,
            codec=codec,
            behind=None if snr is None else Behind(snr, noise, seed),
            line=_rough(loss, burst, jitter, reorder, seed, heard_loss),
            mark_keys=mark_keys,
        )
        if report is not None:
            check_writable(report)
        requests = [
            replace(one, record=_recorded(record, number, calls))
            for number, one in enumerate(arrivals(request, calls, over), 1)
        ]
        if trunk is None:
            reports = place_calls(requests)
        else:
            reports = TrunkCall(load(), trunk, printed).place(requests, called_agrees)
        if report is not None:
            _write(report, json.dumps(as_json(reports), indent=1))
    except VoicegateError as error:
        raise click.ClickException(str(error)) from None
    if printed:
        click.echo(json.dumps(reports[0].as_json() if calls == 1 else as_json(reports)))
    else:
        click.echo(describe(reports[0]) if calls == 1 else describe_many(reports))
    sys.exit(0 if all(one.answered for one in reports) else 1)


def _rough(*given: Any) -> RoughLine:
    try:
        return RoughLine(*given)
    except ValueError as error:
        raise CallerError(f"--{error}") from None


def _recorded(record: Path | None, number: int, calls: int) -> Path | None:
    if record is None or calls == 1:
        return record
    return record.with_name(f"{record.stem}-{number}{record.suffix}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CallerError(f"cannot write {path}: {error.strerror}") from None
