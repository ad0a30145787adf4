"""`voicegate call`, from the wav files that it reads to what it prints."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gateway.cli.caller.call_command import call
from gateway.cli.caller.call_reports import CallReport, describe
from gateway.cli.caller.caller_sound import check_writable, read_wav
from gateway.cli.caller.doorbell import Doorbell, local_address
from gateway.cli.caller.testphone import place_call, place_calls
from gateway.errors import CallerError
from gateway.phone.phone_plan import PhonePlan, TurnReport
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S


def wav(path: Path, frames: bytes, *, width: int = 2, channels: int = 1, rate_hz: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(frames)
    return path


# ── wav files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("width", "frames"),
    [
        (1, bytes([128, 192, 64])),
        (2, struct.pack("<3h", 0, 1 << 14, -(1 << 14))),
        (3, b"\0\0\0" + (1 << 22).to_bytes(3, "little") + (-(1 << 22)).to_bytes(3, "little", signed=True)),
        (4, struct.pack("<3i", 0, 1 << 30, -(1 << 30))),
    ],
)
def test_samples_of_any_width_are_read(tmp_path: Path, width: int, frames: bytes) -> None:
    read = read_wav(wav(tmp_path / "a.wav", frames, width=width), 8000)
    assert read.dtype == np.int16
    assert read.tolist() == [0, 16384, -16384]


def test_channels_become_one_and_rates_the_wanted_one(tmp_path: Path) -> None:
    second = np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)).astype("<i2")
    stereo = np.stack([second, np.zeros_like(second)], axis=1)
    read = read_wav(wav(tmp_path / "a.wav", stereo.tobytes(), channels=2, rate_hz=44_100), 16_000)
    assert len(read) == pytest.approx(16_000, abs=2)
    spectrum = np.abs(np.fft.rfft(read[:16_000]))
    assert np.argmax(spectrum) == 440
    assert np.max(np.abs(read)) == pytest.approx(4000, rel=0.05), "half of it, as the other side was silent"


def test_a_frame_that_is_cut_short_is_left_out(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", struct.pack("<4h", 1, 2, 3, 4))
    path.write_bytes(path.read_bytes()[:-1])
    assert read_wav(path, 8000).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"a\.wav does not exist"),
        (b"", r"is not a PCM wav file \(it is cut short\); try: ffmpeg -i a\.wav out\.wav"),
        (b"RIFF", r"is not a PCM wav file"),
        (b"ID3" + bytes(100), r"is not a PCM wav file \(file does not start with RIFF id\)"),
        (
            b"RIFF" + struct.pack("<I4s4sIHHIIHH", 36, b"WAVE", b"fmt ", 16, 3, 1, 8000, 32_000, 4, 32),
            r"is not a PCM wav file \(unknown format: 3\)",
        ),
    ],
)
def test_what_is_no_wav_is_an_error_that_says_what_to_do(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CallerError, match=why):
        read_wav(path, 8000)


def test_a_wav_without_sound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="has no sound in it"):
        read_wav(wav(tmp_path / "a.wav", b""), 8000)


def test_a_directory_is_no_wav(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="is not a PCM wav file"):
        read_wav(tmp_path, 8000)


# ── what cannot be tried ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("uri", ["", "demo", "sip:", "sip:a b@127.0.0.1", "tel:+49301234", "sip:a@b@c"])
def test_what_is_no_sip_uri_is_an_error_with_an_example(uri: str) -> None:
    with pytest.raises(CallerError, match="one looks like sip:demo@127"):
        local_address(uri)


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_what_is_no_port_is_an_error(port: str) -> None:
    with pytest.raises(CallerError, match=f"{port} is not a port"):
        local_address(f"sip:demo@127.0.0.1:{port}")


def test_the_address_to_call_from_is_the_one_that_leads_there() -> None:
    assert local_address("sip:demo@127.0.0.1:5070;transport=tcp") == "127.0.0.1"


def test_a_codec_the_phone_has_not_is_an_error() -> None:
    with pytest.raises(CallerError, match="'opus' is not a codec of the phone: pcmu, pcma, g722"):
        place_calls([], codec="opus")


def test_keys_that_no_telephone_has_are_an_error() -> None:
    with pytest.raises(CallerError, match="'12x' are not keys of a telephone"):
        place_call("sip:demo@127.0.0.1:5070", script=["12x"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--play", "missing.wav", "sip:demo@127.0.0.1"], "Error: missing.wav does not exist"),
        (["--dtmf", "1,x", "sip:demo@127.0.0.1"], "Error: 'x' are not keys of a telephone"),
        (["demo"], "Error: 'demo' is not a SIP URI"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(arguments: list[str], why: str) -> None:
    said = CliRunner().invoke(call, arguments)
    assert said.exit_code == 1
    assert said.output.startswith(why)
    assert said.output.count("\n") == 1


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_command_ends_with_1_when_nobody_answers() -> None:
    callee = await RawPhone().open()
    uri = f"sip:raw@127.0.0.1:{callee.sip_port}"
    calling = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, call, [uri, "--json"]))
    callee.answer(await callee.request("INVITE", 10), "486 Busy Here")
    said = await calling
    callee.close()
    assert said.exit_code == 1
    report = json.loads(said.output)
    assert (report["answered"], report["status"], report["uri"]) == (False, 486, uri)


async def test_a_call_is_recorded_at_the_rate_of_its_codec(tmp_path: Path) -> None:
    callee = await RawPhone(codec="G722").open()
    uri, record = f"sip:raw@127.0.0.1:{callee.sip_port}", tmp_path / "heard.wav"
    calling = asyncio.create_task(
        asyncio.to_thread(place_call, uri, codec="g722", record=record, duration_s=0.3)
    )
    callee.answer(await callee.request("INVITE", 10), body=callee.offer())
    report = await calling
    callee.close()
    assert (report.answered, report.codec, report.record) == (True, "G722", str(record))
    with wave.open(str(record)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.getnframes() / 16_000 == pytest.approx(0.3, abs=0.2)


def test_a_report_reads_as_a_line_a_turn() -> None:
    assert (
        describe(CallReport(uri="sip:a@b", ended="486 Busy Here")) == "sip:a@b: not answered: 486 Busy Here"
    )
    report = CallReport(
        uri="sip:a@b", answered=True, answered_after_s=0.1, codec="PCMU", first_audio_s=0.25, duration_s=9.04,
        turns=(TurnReport("speech", 1.0, 2.5, 0.75), TurnReport("digits", 4.0, 4.1, None)),
        ended="we hung up", packets=450, lost=1, jitter_ms=0.25, record="heard.wav",
    )  # fmt: skip
    assert describe(report).splitlines() == [
        "sip:a@b: answered after 100 ms, PCMU",
        "first audio 250 ms after the 200 OK",
        "turn 1: spoke at 1.00 s, ended at 2.50 s, answered after 750 ms",
        "turn 2: pressed keys at 4.00 s, ended at 4.10 s, no answer",
        "ended after 9.0 s: we hung up; 450 packets received, 1 lost, jitter 0.2 ms",
        "recorded to heard.wav",
    ]


def test_a_recording_that_cannot_be_kept_is_said_before_anybody_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[object] = []
    monkeypatch.setattr("gateway.cli.caller.testphone._start", lambda *given: dialled.append(given))
    for record, why in (
        (tmp_path / "no" / "x.wav", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        result = CliRunner().invoke(call, ["--record", str(record), "sip:demo@127.0.0.1:9"])
        assert result.exit_code == 1
        assert result.output == f"Error: cannot write {record}: {why}; nobody was called\n"
    assert dialled == []
    kept = tmp_path / "kept.wav"
    check_writable(kept)
    assert not kept.exists(), "what was only tried is not left"
    kept.write_bytes(b"an older recording")
    check_writable(kept)
    assert kept.read_bytes() == b"an older recording"


def test_a_full_disk_under_a_recording_is_one_line() -> None:
    script = (
        "from pathlib import Path; from gateway.cli.caller.caller_sound import write_wav\n"
        "try: write_wav(Path('/dev/full'), bytes(100_000), 8000)\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "cannot write /dev/full: No space left on device\n"
    assert done.stderr == ""


def test_a_closed_port_is_said_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    before = time.monotonic()
    with pytest.raises(
        CallerError, match=rf"nothing listens at 127\.0\.0\.1:{port} \(UDP\): connection refused"
    ):
        place_call(f"sip:demo@127.0.0.1:{port}")
    assert (
        time.monotonic() - before
        < PhonePlan(
            (),
        ).answer_s
    ), "not after the wait for an answer"


def test_a_port_that_opens_late_is_not_closed() -> None:
    """A front that is started again has its port closed for a moment."""
    with socket.socket(type=socket.SOCK_DGRAM) as late:
        late.bind(("127.0.0.1", 0))
        port = late.getsockname()[1]
        bell = Doorbell(f"sip:demo@127.0.0.1:{port}")
        phone = subprocess.Popen([sys.executable, "-c", "print('over', end='')"], stdout=subprocess.PIPE)
        assert bell.wait_for(phone) == b"over"
        phone.wait()
        bell.close()
        late.settimeout(HANGS_S)
        assert late.recv(100) == b"\r\n\r\n", "what SIP takes for a keep-alive"
