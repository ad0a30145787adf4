"""`voicegate call`: the operator's test phone, and the tests' and benches' own.

    voicegate call --play question.wav --record answer.wav sip:demo@127.0.0.1:5060

As a library: `place_call` and `place_calls`. The call itself runs in a process of its own
(`gateway.line.phone`), four calls in each; this side reads and writes the wav files and the report.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import soxr
from numpy.typing import NDArray

from gateway.cli.doorbell import Doorbell, local_address
from gateway.errors import CallerError, VoicegateError
from gateway.ipc.codec import packed, to_json
from gateway.line.phone_plan import CODEC_IDS, CallPlan, PhoneOutcome, PhonePlan, ScriptStep, TurnReport
from watermark.pcm import float_from_bytes, int16_from_float

CALLS_PER_PHONE: Final = 4
CODECS: Final = tuple(CODEC_IDS)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call to place. The script is played in turn: a wav file is said, a text of digits is pressed."""

    uri: str
    script: Sequence[Path | str] = ()
    """wav files (any rate, mono or stereo) and digits (0-9, *, #, A-D)."""
    record: Path | None = None
    """wav of what was heard, from the answer on: mono, 8 kHz, or 16 kHz with G.722."""
    duration_s: float | None = None
    """Hang up this long after the answer; None: when everything is said and answered."""
    at_s: float | None = None
    """Say the first thing this long after the answer, whoever is speaking; None: in turn."""
    after_s: float = 0.0
    """Dial this long after the others that are placed with it."""
    user: str | None = None
    password: str | None = None
    caller: str = "voicegate"
    """User part of From, when there is no `user`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the INVITE."""
    sip_call_id: str = ""
    """SIP Call-ID to use; empty: a random one."""


@dataclass
class CallReport(PhoneOutcome):
    """What became of a call (times in seconds; see `gateway.line.phone.PhoneOutcome`)."""

    uri: str = ""
    record: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def read_wav(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """The file's sound as mono int16 at `rate_hz`, shape (N,). Raises `CallerError` saying what is wrong."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, source_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise CallerError(f"{path} does not exist") from None
    except (wave.Error, EOFError, OSError) as error:
        why = str(error) or "it is cut short"
        raise CallerError(
            f"{path} is not a PCM wav file ({why}); try: ffmpeg -i {path.name} out.wav"
        ) from None
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if not raw:
        raise CallerError(f"{path} has no sound in it")
    samples: NDArray[np.float32]
    if width == 1:
        samples = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif width == 3:
        wide = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        samples = (np.pad(wide, ((0, 0), (1, 0))).copy().view("<i4")[:, 0] / 2**31).astype(np.float32)
    elif width == 4:
        samples = (np.frombuffer(raw, "<i4") / 2**31).astype(np.float32)
    else:
        samples = float_from_bytes(raw)
    mono = samples.reshape(-1, channels).mean(axis=1)
    if source_hz != rate_hz:
        mono = np.asarray(soxr.resample(mono, source_hz, rate_hz))
    return int16_from_float(mono)


def write_wav(path: Path, pcm: bytes, rate_hz: int) -> None:
    """Writes `pcm`, int16 mono, to a file. Raises `CallerError`."""
    whole = io.BytesIO()  # a `wave` that cannot write to its file complains once more when it is forgotten
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    try:
        path.write_bytes(whole.getvalue())
    except OSError as error:
        raise CallerError(f"cannot write {path}: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Raises `CallerError` for a file that a recording could not be written to; leaves none behind."""
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise CallerError(f"cannot write {path}: {error.strerror}; nobody was called") from None


def _start(requests: Sequence[CallRequest], folder: Path, codec: str | None) -> subprocess.Popen[bytes]:
    rate_hz = 16000 if codec == "g722" else 8000
    calls = []
    for number, request in enumerate(requests):
        steps = []
        for at, step in enumerate(request.script):
            if isinstance(step, Path):
                raw = folder / f"play-{number}-{at}"
                raw.write_bytes(read_wav(step, rate_hz).tobytes())
                steps.append(ScriptStep(pcm=str(raw)))
            elif re.fullmatch(r"[0-9A-D*#]+", step):
                steps.append(ScriptStep(digits=step))
            else:
                raise CallerError(f"{step!r} are not keys of a telephone: 0-9, *, #, A-D")
        if steps:
            steps[0].at_s = request.at_s
        calls.append(
            CallPlan(
                uri=request.uri,
                steps=tuple(steps),
                record=str(folder / f"heard-{number}"),
                duration_s=request.duration_s,
                user=request.user or "",
                password=request.password or "",
                caller=request.caller,
                headers=dict(request.headers),
                sip_call_id=request.sip_call_id,
                after_s=request.after_s,
            )
        )
    address = local_address(requests[0].uri)
    offered = tuple(known for known in CODEC_IDS if known == codec) if codec else ("pcmu", "pcma")
    plan = PhonePlan(tuple(calls), rate_hz, offered, address)
    phone = subprocess.Popen(
        [sys.executable, "-m", "gateway.line.phone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert phone.stdin is not None  # noqa: S101  # for mypy: stdin=PIPE above
    phone.stdin.write(packed(to_json(PhonePlan, plan)))
    phone.stdin.close()
    return phone


def _finish(
    phone: subprocess.Popen[bytes],
    requests: Sequence[CallRequest],
    folder: Path,
    codec: str | None,
    said: bytes,
) -> list[CallReport]:
    if phone.wait() or not said:
        raise CallerError(f"the phone's process died with status {phone.returncode}")
    answer = json.loads(said)
    if "error" in answer:
        raise CallerError(f"the phone cannot start: {answer['error']}")
    reports = []
    for number, (request, outcome) in enumerate(zip(requests, answer["outcomes"], strict=True)):
        turns = [TurnReport(**turn) for turn in outcome.pop("turns")]
        report = CallReport(**outcome, turns=turns, uri=request.uri)
        if request.record is not None and report.answered:
            heard = (folder / f"heard-{number}").read_bytes()
            write_wav(request.record, heard, 16000 if codec == "g722" else 8000)
            report.record = str(request.record)
        reports.append(report)
    return reports


def place_calls(requests: Sequence[CallRequest], *, codec: str | None = None) -> list[CallReport]:
    """Places all calls at once, four to a process, and waits until they are over.

    `codec` is one of `CODECS`; None offers PCMU and PCMA. Blocking; use a thread beside asyncio. Raises
    `CallerError` for what cannot be tried; a call that is refused is a report, no error.
    """
    if codec is not None and codec not in CODECS:
        raise CallerError(f"{codec!r} is not a codec of the phone: {', '.join(CODECS)}")
    for request in requests:
        if request.record is not None:
            check_writable(request.record)
    groups = [requests[at : at + CALLS_PER_PHONE] for at in range(0, len(requests), CALLS_PER_PHONE)]
    with tempfile.TemporaryDirectory(prefix="voicegate-call-") as name:
        folders = [Path(name, str(n)) for n in range(len(groups))]
        phones: list[subprocess.Popen[bytes]] = []
        bells: list[Doorbell] = []
        try:
            for group, folder in zip(groups, folders, strict=True):
                folder.mkdir()
                phones.append(_start(group, folder, codec))
                bells.append(Doorbell(group[0].uri))
            reports: list[CallReport] = []
            for phone, bell, group, folder in zip(phones, bells, groups, folders, strict=True):
                reports += _finish(phone, group, folder, codec, bell.wait_for(phone))
            return reports
        finally:
            for bell in bells:
                bell.close()
            for phone in phones:
                if phone.poll() is None:
                    phone.kill()
                    phone.wait()


def place_call(
    uri: str,
    *,
    script: Sequence[Path | str] = (),
    record: Path | None = None,
    duration_s: float | None = None,
    user: str | None = None,
    password: str | None = None,
    codec: str | None = None,
    at_s: float | None = None,
) -> CallReport:
    """Places one call and waits until it is over; see `CallRequest` and `place_calls`."""
    request = CallRequest(uri, script, record, duration_s, at_s, user=user, password=password)
    return place_calls([request], codec=codec)[0]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value * 1000:.0f} ms"


def describe(report: CallReport) -> str:
    """The report as an operator reads it."""
    if not report.answered:
        return f"{report.uri}: not answered: {report.ended}"
    lines = [
        f"{report.uri}: answered after {_seconds(report.answered_after_s)}, {report.codec}",
        f"first audio {_seconds(report.first_audio_s)} after the 200 OK",
    ]
    for number, turn in enumerate(report.turns, 1):
        what = "spoke" if turn.kind == "speech" else "pressed keys"
        answer = "no answer" if turn.latency_s is None else f"answered after {_seconds(turn.latency_s)}"
        lines.append(f"turn {number}: {what} at {turn.start_s:.2f} s, ended at {turn.end_s:.2f} s, {answer}")
    lines.append(
        f"ended after {report.duration_s:.1f} s: {report.ended}; "
        f"{report.packets} packets received, {report.lost} lost, jitter {report.jitter_ms:.1f} ms"
    )
    if report.record:
        lines.append(f"recorded to {report.record}")
    return "\n".join(lines)


@click.command("call")
@click.argument("uri")
@click.option(
    "--play", multiple=True, type=click.Path(path_type=Path), help="wav to say; again for more turns"
)
@click.option("--record", type=click.Path(path_type=Path), help="wav for what is heard")
@click.option("--dtmf", default="", help="keys to press, a comma between turns: 1,2")
@click.option("--duration", type=click.FloatRange(0.1, 86400), help="seconds; default: until all is answered")
@click.option("--at", type=click.FloatRange(0), help="say the first thing so many seconds after the answer")
@click.option("--user", help="digest user")
@click.option("--password", help="digest password", envvar="VOICEGATE_CALL_PASSWORD")
@click.option("--codec", type=click.Choice(CODECS), help="offer only this one; default: pcmu, pcma")
@click.option("--json", "as_json", is_flag=True, help="the report as JSON")
def call(
    uri: str,
    play: tuple[Path, ...],
    record: Path | None,
    dtmf: str,
    duration: float | None,
    at: float | None,
    user: str | None,
    password: str | None,
    codec: str | None,
    as_json: bool,
) -> None:
    """Place a call and say what happened. Ends with 0 only if it was answered."""
    keys = [group.strip() for group in dtmf.split(",") if group.strip()]
    try:
        report = place_call(
            uri,
            script=[*play, *keys],
            record=record,
            duration_s=duration,
            user=user,
            password=password,
            codec=codec,
            at_s=at,
        )
    except VoicegateError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(report.as_json()) if as_json else describe(report))
    sys.exit(0 if report.answered else 1)


if __name__ == "__main__":
    call()
