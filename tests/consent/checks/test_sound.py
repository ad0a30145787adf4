"""Files from anybody: what is no recording is refused before it can do harm."""

from __future__ import annotations

import hashlib
import os
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from consent.checks.fingerprint import find_copy, fingerprint
from consent.checks.sound import (
    MAX_BYTES,
    RATE_HZ,
    decode,
    from_pcm16,
    measure,
    of_call,
    pcm16,
    read,
    voice_activity,
    wav_bytes,
)
from consent.errors import SoundError
from tests.consent.conftest import prompt


def test_a_recording_comes_in_at_24_khz(tmp_path: Path) -> None:
    recording = prompt("demo-congrats")
    assert recording.source_hz == 8_000
    quality = measure(recording)
    assert 25 < quality.speech_s < 30
    assert quality.snr_db > 40
    assert 3_400 < quality.bandwidth_hz < 4_100


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_widths_and_channels_are_the_same_sound(tmp_path: Path, width: int, channels: int) -> None:
    t = np.arange(48_000) / 48_000
    sound = 0.5 * np.sin(2 * np.pi * 440 * t)
    raw = np.round(sound * (2 ** (8 * width - 1) - 1)).astype("<i8")
    one = raw.view(np.uint8).reshape(-1, 8)[:, :width]
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(48_000)
        file.writeframes(np.repeat(one[:, None], channels, axis=1).tobytes())
    pcm = read(path).pcm
    assert len(pcm) == RATE_HZ
    assert np.abs(pcm).max() == pytest.approx(0.5, abs=0.01)


def test_a_file_of_200_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.wav"
    path.write_bytes(wav_bytes(np.zeros(RATE_HZ, np.float32)))
    os.truncate(path, 200 << 20)
    with pytest.raises(SoundError, match=f"200 MB; at most {MAX_BYTES >> 20}"):
        read(path)


def test_a_zip_bomb_named_wav_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.wav"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("zeros", bytes(50 << 20))
    with pytest.raises(SoundError, match="not a WAV file"):
        read(path)


def test_a_header_that_promises_much_is_not_believed() -> None:
    content = bytearray(wav_bytes(prompt("vm-options").pcm[:RATE_HZ]))
    content[40:44] = (0x7FFFFFFF).to_bytes(4, "little")
    content[4:8] = (0x7FFFFFFF).to_bytes(4, "little")
    assert decode(bytes(content), "x").seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff", b"ID3" * 99]
)
def test_what_is_no_wav_is_refused(content: bytes) -> None:
    with pytest.raises(SoundError):
        decode(content, "x")


def test_a_pipe_a_folder_and_nothing_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, tmp_path / "none.wav", Path("/dev/zero")):
        with pytest.raises(SoundError):
            read(path)


def test_an_hour_is_refused() -> None:
    out = wav_bytes(np.zeros(8_000 * 150, np.float32), rate_hz=8_000)
    with pytest.raises(SoundError, match="longer than"):
        decode(out, "long")


def test_a_wild_rate_is_refused() -> None:
    with pytest.raises(SoundError, match="Hz"):
        decode(wav_bytes(np.zeros(9_000, np.float32), rate_hz=1_000_000), "x")


def test_sound_of_a_call_is_checked_too() -> None:
    with pytest.raises(SoundError, match="not a sound"):
        of_call("call", np.full(9_000, np.nan, np.float32), 8_000)


def test_people_speak_and_machines_hum() -> None:
    speech = prompt("demo-congrats").at_16k[: 16_000 * 8]
    hum = 0.3 * np.sin(2 * np.pi * 120 * np.arange(16_000 * 8) / 16_000).astype(np.float32)
    assert (voice_activity(speech) > 0.5).mean() > 0.8
    assert (voice_activity(hum) > 0.5).mean() < 0.05


def test_different_takes_are_no_copies() -> None:
    one, other = fingerprint(prompt("demo-congrats")), fingerprint(prompt("basic-pbx-ivr-main"))
    assert find_copy(one, other) is None
    assert find_copy(one, one) is not None


def test_a_fingerprint_of_silence_matches_nothing() -> None:
    quiet = fingerprint(of_call("q", np.zeros(10 * RATE_HZ, np.float32), 24_000))
    assert find_copy(quiet, quiet) is None


def test_what_is_kept_and_hashed_keeps_its_level_to_the_bit() -> None:
    """Records were signed over these bytes: 1.0 is 32767 in them, as nowhere else."""
    kept = np.arange(-(1 << 15), 1 << 15).astype("<i2")
    assert from_pcm16(kept.tobytes()).tobytes() == (kept.astype(np.float32) / np.float32(32767)).tobytes()
    assert pcm16(from_pcm16(kept.tobytes())) == kept.tobytes()
    sound = np.random.default_rng(7).normal(0, 0.4, 200_000).astype(np.float32)
    before = np.clip(np.rint(sound * np.float32(32767)), -32768, 32767).astype("<i2")
    assert pcm16(sound) == before.tobytes()
    whole = np.linspace(-1, 1, 1001, dtype=np.float32)
    assert hashlib.sha256(pcm16(whole)).hexdigest()[:16] == "1d5e650a3a8bb442"
