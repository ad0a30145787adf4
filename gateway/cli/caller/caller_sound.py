"""What callers say and what is behind them: wav files, words, noise."""

from __future__ import annotations

import functools
import io
import wave
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr
from numpy.typing import NDArray

from gateway.errors import CallerError
from watermark.pcm import Floats, float_from_bytes, int16_from_float

SYNTHESIZED_HZ: Final = 24_000
SPOKEN_HZ: Final = 8_000
"""Rate of words that are synthesized."""
LOWER: Final = 0.88
"""Times the pitch of the bot's voice: a caller in its very voice would be taken for its echo."""
NOISE_S: Final = 10.0
"""Noise of our own repeats after so long."""
PINK_FROM_HZ: Final = 20.0
QUIET: Final = 0.01
"""RMS of a frame (of full scale) from which it counts toward a caller's level."""
LEVEL_DB: Final = -26.0
"""A caller's level, in dBFS, where nothing is said (ITU-T P.56 speaks of active levels near it)."""


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
    """Raises `CallerError` for a file that nothing could be written to; leaves none behind."""
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise CallerError(f"cannot write {path}: {error.strerror}; nobody was called") from None


@functools.cache
def _synthesizer() -> Any:
    from hibari import Hibari  # half a second of imports, only where words are said

    return Hibari(threads=1)


def spoken(words: str) -> Floats:
    """A synthetic caller, nobody's voice, who says these English words: float32 `(n,)` at `SPOKEN_HZ`.

    Raises `CallerError` for a text with nothing to say in it.
    """
    if not any(letter.isalnum() for letter in words):
        raise CallerError(f"there is nothing to say in {words!r}")
    sound = np.asarray(_synthesizer()(words, speed=1 / LOWER, seed=0), np.float32)
    narrow = soxr.resample(sound, SYNTHESIZED_HZ, SPOKEN_HZ)
    return np.asarray(soxr.resample(narrow, SPOKEN_HZ, SPOKEN_HZ / LOWER), np.float32)


def pink(level_db: float, seed: int, seconds: float, rate_hz: int) -> Floats:
    """Pink noise of that level in dBFS: float32 `(n,)` at `rate_hz`."""
    chance, count = np.random.default_rng(seed), round(seconds * rate_hz)
    spectrum = np.fft.rfft(chance.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / rate_hz), PINK_FROM_HZ))
    return at_level(np.fft.irfft(spectrum, count), level_db)


def at_level(sound: NDArray[np.floating[Any]], level_db: float) -> Floats:
    """A sound, not silent, brought to that level in dBFS: float32 of its shape."""
    rms = np.sqrt(np.mean(sound**2))
    return np.asarray(sound * (10 ** (level_db / 20) / rms), np.float32)


def active_level_db(sounds: list[Floats], rate_hz: int) -> float:
    """Level in dBFS of what is said in `sounds`, each float32 `(n,)`; pauses do not count.

    `LEVEL_DB` when nothing is said.
    """
    size = rate_hz // 50
    frames = [sound[: len(sound) // size * size].reshape(-1, size) for sound in sounds]
    power = np.concatenate([np.zeros(0), *((each.astype(np.float64) ** 2).mean(axis=1) for each in frames)])
    said = power[power > QUIET**2]
    return LEVEL_DB if not len(said) else float(10 * np.log10(said.mean()))


def background(noise: Path | None, snr_db: float, speech_db: float, seed: int, rate_hz: int) -> Floats:
    """What is behind a caller who speaks at `speech_db`: a wav file or, with None, pink noise.

    Raises `CallerError` for a file that cannot be used.
    """
    level_db = speech_db - snr_db
    if noise is None:
        return pink(level_db, seed, NOISE_S, rate_hz)
    sound = float_from_bytes(read_wav(noise, rate_hz).tobytes())
    if not sound.any():
        raise CallerError(f"{noise} is silent: it cannot be brought to a level")
    return at_level(sound, level_db)
