"""What happens to a call between us and a recording: codecs by ffmpeg and sox, and the rest by numpy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr

from benchmarks.watermark.host_speech import ffmpeg
from watermark.pcm import bytes_from_float, float_from_bytes, float_from_int16, int16_from_float

Channel = Callable[[np.ndarray, int], tuple[np.ndarray, int]]
AMR_MODES = {"4.75": "0", "7.4": "4", "12.2": "7"}


@dataclass(frozen=True)
class Attack:
    """`seconds`: lengths of the excerpts examined. `goals`: (length, share of blind detections wanted)."""

    name: str
    channel: Channel
    seconds: tuple[int, ...]
    goals: tuple[tuple[int, float], ...]


def codec(rate: int, encode: list[str], decode: list[str], rate_out: int | None = None) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        at = soxr.resample(samples, rate_hz, rate).astype("<f4")
        raw = ["-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
        coded = ffmpeg([*raw, *encode, "-"], at.tobytes())
        plain = ffmpeg([*decode, "-i", "-", "-f", "f32le", "-ac", "1", "-"], coded)
        return np.frombuffer(plain, "<f4").copy(), rate_out or rate

    return channel


def law(name: str) -> Channel:
    return codec(8_000, ["-f", name], ["-f", name, "-ar", "8000", "-ac", "1"])


def opus(kbit: int) -> Channel:
    rate = 16_000 if kbit >= 12 else 8_000
    encode = ["-c:a", "libopus", "-b:a", f"{kbit}k", "-application", "voip", "-f", "ogg"]
    return codec(rate, encode, ["-f", "ogg"], 48_000)


def amr(mode: str) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        narrow = soxr.resample(samples, rate_hz, 8_000)
        pcm = bytes_from_float(narrow)
        raw = ["-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1"]
        coded = subprocess.run(
            ["sox", *raw, "-", "-C", AMR_MODES[mode], "-t", "amr-nb", "-"],
            input=pcm,
            capture_output=True,
            check=True,
        ).stdout
        plain = subprocess.run(
            ["sox", "-t", "amr-nb", "-", *raw, "-"], input=coded, capture_output=True, check=True
        ).stdout
        return float_from_bytes(plain), 8_000

    return channel


def rate(to_hz: int) -> Channel:
    return lambda samples, rate_hz: (soxr.resample(samples, rate_hz, to_hz), to_hz)


def gain(db: float) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        return float_from_int16(int16_from_float(samples * 10 ** (db / 20))), rate_hz

    return channel


def band(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(6, (300, 3_400), "bandpass", fs=rate_hz, output="sos"), samples).astype(
        np.float32
    ), rate_hz


def noise(db: float) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng(len(samples))
        level = np.sqrt(np.mean(np.square(samples))) * 10 ** (-db / 20)
        return samples + (level * rng.standard_normal(len(samples))).astype(np.float32), rate_hz

    return channel


def reverb(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """RT60 .3 s, direct to reverberant 6 dB."""
    from scipy.signal import fftconvolve

    rng = np.random.default_rng(2)
    time_s = np.arange(int(0.3 * rate_hz)) / rate_hz
    response = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / 0.3)
    response *= 0.5 / np.sqrt(np.sum(response**2))
    response[0] += 1.0
    return fftconvolve(samples, response)[: len(samples)].astype(np.float32), rate_hz


def clock(ppm: float) -> Channel:
    return lambda samples, rate_hz: (soxr.resample(samples, 1e6, 1e6 + ppm), rate_hz)


def loss(share: float) -> Channel:
    """20 ms packets of G.711 lost at random, and concealed by the one before, fading."""

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        narrow, _ = law("mulaw")(samples, rate_hz)
        rng = np.random.default_rng(len(samples))
        packets = narrow[: len(narrow) // 160 * 160].reshape(-1, 160).copy()
        for at in np.flatnonzero(rng.random(len(packets)) < share):
            if at:
                packets[at] = packets[at - 1] * 0.7
        return packets.ravel(), 8_000

    return channel


def own_chance(samples: np.ndarray) -> np.random.Generator:
    """Chance that is the same for the same excerpt, and another for another."""
    return np.random.default_rng(int(1e6 * abs(samples[:1_000]).sum()))


def splices(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """A jitter buffer that takes out or repeats 5 to 12 ms every .3 to .6 s, on G.711."""
    narrow, _ = law("mulaw")(samples, rate_hz)
    rng = own_chance(samples)
    parts, at = [], 0
    while at < len(narrow):
        length = int(rng.uniform(0.3, 0.6) * 8_000)
        parts.append(narrow[at : at + length])
        at += length + int(rng.choice([-1, 1]) * rng.uniform(0.005, 0.012) * 8_000)
    return np.concatenate(parts)[: len(narrow)], 8_000


def speed(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """Played up to 1 % too fast or too slow, on G.711."""
    narrow, _ = law("mulaw")(samples, rate_hz)
    change = own_chance(samples).uniform(-0.01, 0.01)
    return soxr.resample(narrow, 8_000, 8_000 * (1 + change)), 8_000


def music(db: float) -> Channel:
    """Chords of a synthetic organ, `db` below the speech."""

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng(7)
        time_s = np.arange(len(samples)) / rate_hz
        played = np.zeros(len(samples))
        for begin in np.arange(0, time_s[-1], 0.6):
            inside = (time_s >= begin) & (time_s < begin + 0.6)
            fade = np.sin(np.pi * (time_s[inside] - begin) / 0.6) ** 0.5
            for note in rng.choice([0, 3, 5, 7, 10, 12, 15, 19], 3, replace=False):
                hz = 196 * 2 ** (note / 12)
                for harmonic in range(1, 9):
                    played[inside] += fade * np.sin(2 * np.pi * hz * harmonic * time_s[inside]) / harmonic
        played *= np.sqrt(np.mean(samples**2) / np.mean(played**2)) * 10 ** (-db / 20)
        return (samples + played).astype(np.float32), rate_hz

    return channel


def codec2(mode: str) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        narrow = soxr.resample(samples, rate_hz, 8_000)
        pcm = bytes_from_float(narrow)
        coded = subprocess.run(["c2enc", mode, "-", "-"], input=pcm, capture_output=True, check=True).stdout
        plain = subprocess.run(["c2dec", mode, "-", "-"], input=coded, capture_output=True, check=True).stdout
        return float_from_bytes(plain), 8_000

    return channel


def griffin_lim(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """80 mel bands every 12.5 ms, and 32 rounds of Griffin and Lim: what a vocoder of spectrograms keeps."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    heard = soxr.resample(samples, rate_hz, 16_000)
    transform = ShortTimeFFT(hann(800, sym=False), 200, 16_000, fft_mode="onesided", mfft=1_024)
    magnitude = np.abs(transform.stft(heard))
    mel = np.linspace(0, 2595 * np.log10(1 + 8_000 / 700), 82)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bands = np.stack(
        [np.interp(transform.f, edges[at : at + 3], (0.0, 1.0, 0.0), left=0.0, right=0.0) for at in range(80)]
    )
    magnitude = np.maximum(np.linalg.pinv(bands) @ (bands @ magnitude), 0.0)
    phase = np.exp(2j * np.pi * np.random.default_rng(3).random(magnitude.shape))
    for _ in range(32):
        again = transform.stft(transform.istft(magnitude * phase, k1=len(heard)))
        phase = again / np.maximum(np.abs(again), 1e-9)
    return transform.istft(magnitude * phase, k1=len(heard)).astype(np.float32), 16_000


def chain(*channels: Channel) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        for each in channels:
            samples, rate_hz = each(samples, rate_hz)
        return samples, rate_hz

    return channel


def clean(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    return samples, rate_hz


def attacks() -> list[Attack]:
    mu = law("mulaw")
    easy = {
        "clean": clean,
        "8 kHz": rate(8_000),
        "16 kHz": rate(16_000),
        "44.1 kHz": rate(44_100),
        "48 kHz": rate(48_000),
        "G.711 mu": mu,
        "G.711 A": law("alaw"),
        "G.722": codec(16_000, ["-c:a", "g722", "-f", "g722"], ["-f", "g722"]),
        "Opus 16k": opus(16),
        "MP3 32k": codec(24_000, ["-c:a", "libmp3lame", "-b:a", "32k", "-f", "mp3"], ["-f", "mp3"]),
        "+12 dB, clipped": gain(12),
        "-12 dB": gain(-12),
        "300-3400 Hz": band,
        "+100 ppm": clock(100),
        "-100 ppm": clock(-100),
        "10 % loss": loss(0.1),
    }
    middle = {
        "GSM-FR": codec(8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"]),
        "AMR 12.2": amr("12.2"),
        "Opus 12k": opus(12),
        "20 dB noise": noise(20),
        "reverb .3 s": reverb,
        "mu-AMR 12.2-mu": chain(mu, amr("12.2"), mu),
    }
    remade: dict[str, Channel] = {"mel, Griffin-Lim": griffin_lim}
    if shutil.which("c2enc"):  # Debian's package codec2
        remade |= {f"Codec2 {mode}": codec2(mode) for mode in ("3200", "1200")}
    gsm = codec(8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"])
    gsm_chain = chain(mu, gsm, mu, noise(20), clock(50))
    return [
        *(Attack(name, each, (5, 10), ((5, 0.95), (10, 0.999))) for name, each in middle.items()),
        Attack("AMR 7.4", amr("7.4"), (10, 20), ((10, 0.80), (20, 0.99))),
        Attack("mu-GSM-mu, noise, 50 ppm", gsm_chain, (10, 30), ((10, 0.5), (30, 0.95))),
        Attack("AMR 4.75", amr("4.75"), (10, 30), ((10, 0.5), (30, 0.95))),
        Attack("splices", splices, (10,), ((10, 0.99),)),
        *(Attack(name, each, (5,), ((5, 0.999),)) for name, each in easy.items()),
        Attack("speed +-1 %", speed, (10,), ((10, 0.99),)),
        Attack("music, 10 dB", music(10), (5, 10), ()),
        *(Attack(name, each, (10,), ()) for name, each in remade.items()),
    ]
