"""What telephone networks do to sound, by the programs that do it (ffmpeg, sox)."""

import shutil
import subprocess

import numpy as np
import pytest
import soxr


def run(command: list[str], data: bytes) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install {command[0]}")
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def ffmpeg(samples: np.ndarray, rate_hz: int, encode: list[str], decode: list[str]) -> np.ndarray:
    """float32 at `rate_hz` -> encoded and decoded, float32."""
    common = ["ffmpeg", "-v", "error", "-nostdin"]
    raw = ["-f", "f32le", "-ar", str(rate_hz), "-ac", "1", "-i", "-"]
    coded = run([*common, *raw, *encode, "-"], samples.astype("<f4").tobytes())
    plain = run([*common, *decode, "-i", "-", "-f", "f32le", "-ac", "1", "-"], coded)
    return np.frombuffer(plain, "<f4").copy()


def through(samples: np.ndarray, rate_hz: int, channel: str) -> tuple[np.ndarray, int]:
    """`samples` after `channel`, and their rate."""

    def at(rate: int) -> np.ndarray:
        return soxr.resample(samples, rate_hz, rate)

    match channel:
        case "clean":
            return samples, rate_hz
        case "G.711 mu":
            law = ["-f", "mulaw", "-ar", "8000", "-ac", "1"]
            return ffmpeg(at(8_000), 8_000, ["-f", "mulaw"], law), 8_000
        case "G.711 A":
            law = ["-f", "alaw", "-ar", "8000", "-ac", "1"]
            return ffmpeg(at(8_000), 8_000, ["-f", "alaw"], law), 8_000
        case "G.722":
            return ffmpeg(at(16_000), 16_000, ["-c:a", "g722", "-f", "g722"], ["-f", "g722"]), 16_000
        case "Opus 16k":
            opus = ["-c:a", "libopus", "-b:a", "16k", "-application", "voip", "-f", "ogg"]
            return ffmpeg(at(16_000), 16_000, opus, ["-f", "ogg"]), 48_000
        case "GSM":
            return ffmpeg(at(8_000), 8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"]), 8_000
        case "AMR 12.2":
            pcm = (np.clip(at(8_000), -1, 1) * 32767).astype("<i2").tobytes()
            raw = ["-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1"]
            coded = run(["sox", *raw, "-", "-C", "7", "-t", "amr-nb", "-"], pcm)
            plain = run(["sox", "-t", "amr-nb", "-", *raw, "-"], coded)
            return np.frombuffer(plain, "<i2").astype(np.float32) / 32768, 8_000
        case "44.1 kHz":
            return at(44_100), 44_100
        case "+12 dB":
            return samples * 4, rate_hz
        case "-12 dB":
            return samples / 4, rate_hz
        case "+100 ppm":
            return soxr.resample(samples, 10_000, 10_001), rate_hz
        case "300-3400 Hz":
            from scipy.signal import butter, sosfilt

            band = butter(6, (300, 3_400), "bandpass", fs=rate_hz, output="sos")
            return sosfilt(band, samples).astype(np.float32), rate_hz
        case "below 1500 Hz":
            from scipy.signal import butter, sosfiltfilt

            low = butter(8, 1_500, "lowpass", fs=rate_hz, output="sos")
            return through(sosfiltfilt(low, samples).astype(np.float32), rate_hz, "G.711 mu")
        case "20 dB noise":
            noise = np.random.default_rng(1).standard_normal(len(samples))
            return samples + (0.1 * np.sqrt(np.mean(samples**2)) * noise).astype(np.float32), rate_hz
    raise AssertionError(channel)
