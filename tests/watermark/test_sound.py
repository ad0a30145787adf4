from pathlib import Path

import numpy as np
import pytest

from tests.watermark.channels import run
from watermark import sound
from watermark.errors import SoundError

RAMP = np.linspace(-0.9, 0.9, 2_000).astype(np.float32)
CODECS = ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw", "pcm_alaw"]


@pytest.mark.parametrize("codec", CODECS)
def test_what_ffmpeg_writes_is_read(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", "8000", "-ac", "1", "-i", "-", "-c:a", codec]
    run([*command, str(path)], RAMP.tobytes())
    recording = sound.read(path)
    assert recording.rate_hz == 8_000
    assert recording.channels.shape == (1, 2_000)
    assert np.abs(recording.channels[0] - RAMP).max() < (0.04 if codec in ("pcm_mulaw", "pcm_alaw") else 0.01)


def test_channels_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    both = np.stack((RAMP, -RAMP), axis=1)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "f32le",
        "-ar",
        "96000",
        "-ac",
        "2",
        "-i",
        "-",
        "-c:a",
        "pcm_s24le",
    ]
    run([*command, str(path)], both.astype("<f4").tobytes())
    recording = sound.read(path)
    assert recording.rate_hz == 96_000
    assert np.allclose(recording.channels, both.T, atol=1e-4)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sound.write(tmp_path / "x.wav", RAMP, 24_000)
    recording = sound.read(tmp_path / "x.wav")
    assert np.abs(recording.channels[0] - RAMP).max() < 1e-4
    assert recording.seconds == pytest.approx(2_000 / 24_000)


def test_mu_law_is_that_of_the_books() -> None:
    ours = sound.through_mu_law(RAMP)
    coded = run(
        ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", "8000", "-ac", "1", "-i", "-", "-f", "mulaw", "-"],
        RAMP.tobytes(),
    )
    assert np.mean(sound.mu_law(RAMP) == np.frombuffer(coded, np.uint8)) > 0.95  # the rest differ by rounding
    assert np.abs(ours - RAMP).max() < 0.02


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a WAV file"),
        (b"ID3" + bytes(100), "not a WAV file"),
        (b"RIFF\0\0\0\0WAVE", "no sound"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "before its format"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcd", "cut off"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x55\0\1\0\x40\x1f\0\0\0\0\0\0\0\0\x10\0", "not supported"),
    ],
)
def test_damaged_files_say_what_is_wrong(data: bytes, reason: str) -> None:
    with pytest.raises(SoundError, match=reason):
        sound.parse(data)


def test_missing_and_large_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match="does not exist"):
        sound.read(tmp_path / "no.wav")
    sound.write(tmp_path / "x.wav", RAMP, 8_000)
    with pytest.raises(SoundError, match="larger"):
        sound.read(tmp_path / "x.wav", largest_bytes=100)
