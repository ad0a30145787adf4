"""Recordings as files and as measured sound: read with care, judged for whether a voice can be made of them.

A file comes from anybody: its size, form and length are checked before it is read, and what its header
promises is never believed. Inside, sound is float32 mono in [-1, 1] at 24 kHz.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import wave
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from consent.errors import SoundError
from consent.silero.network import open_network
from watermark.pcm import bytes_from_float, float_from_bytes

Floats = NDArray[np.float32]

RATE_HZ: Final = 24_000
MAX_BYTES: Final = 32 << 20
MAX_S: Final = 120.0
RATES_HZ: Final = (8_000, 96_000)
KEPT: Final = np.float32(32_767 / 32_768)
"""The level at which int16 is kept and hashed: 1.0 is 32767 there. Signed records hold hashes of recordings
and voices in this form: at another level no registered voice would be the one that was consented to."""
VAD_HZ: Final = 16_000
VAD_WINDOW: Final = 512
VAD_CONTEXT: Final = 64
SPEECH: Final = 0.5
"""Silero's probability above which a 32 ms window counts as speech."""


@dataclass(frozen=True)
class Recording:
    """A recording: `pcm` float32 `(n,)` mono at 24 kHz, `source_hz` the rate it came with."""

    name: str
    pcm: Floats
    source_hz: int
    file_sha256: str

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return len(self.pcm) / RATE_HZ

    @cached_property
    def sha256(self) -> str:
        """Of the sound itself: int16 little-endian at 24 kHz."""
        return hashlib.sha256(pcm16(self.pcm)).hexdigest()

    @cached_property
    def at_16k(self) -> Floats:
        """The same sound at 16 kHz, float32 mono."""
        return np.asarray(soxr.resample(self.pcm, RATE_HZ, VAD_HZ), np.float32)

    @cached_property
    def speech(self) -> NDArray[np.bool_]:
        """Which 32 ms windows hold speech, bool `(n,)`."""
        return voice_activity(self.at_16k) > SPEECH

    @cached_property
    def speech_16k(self) -> Floats:
        """The speech alone, float32 at 16 kHz, pauses cut out."""
        usable = self.at_16k[: len(self.speech) * VAD_WINDOW]
        near = self.speech.copy()  # a window beside speech belongs to it: soft onsets, word ends
        near[1:] |= self.speech[:-1]
        near[:-1] |= self.speech[1:]
        return usable[np.repeat(near, VAD_WINDOW)]


def pcm16(pcm: Floats) -> bytes:
    """float32 -> int16 little-endian, as the vault keeps a recording and as its hash is made."""
    return bytes_from_float(pcm * KEPT)


def from_pcm16(raw: bytes) -> Floats:
    """What `pcm16` made, as float32."""
    return float_from_bytes(raw) / KEPT


def wav_bytes(pcm: Floats, rate_hz: int = RATE_HZ) -> bytes:
    """A WAV file of 16 bits."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm16(pcm))
    return out.getvalue()


def read(path: Path) -> Recording:
    """A recording from a WAV file. Raises `SoundError`."""
    return decode(read_file(path), path.name)


def read_file(path: Path) -> bytes:
    """What a recording's file holds, which is not looked at. Raises `SoundError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe shall not keep us waiting
        with os.fdopen(fd, "rb") as file:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise SoundError(f"{path} is not a file")
            if state.st_size > MAX_BYTES:
                raise SoundError(f"{path} has {state.st_size >> 20} MB; at most {MAX_BYTES >> 20} are taken")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror}") from None


def decode(content: bytes, name: str) -> Recording:
    """A recording from a WAV file's bytes. Raises `SoundError`."""
    if len(content) > MAX_BYTES:
        raise SoundError(f"{name} has more than {MAX_BYTES >> 20} MB")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise SoundError(f"{name} is not a WAV file; convert it, for example: ffmpeg -i in.m4a -ac 1 out.wav")
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                raise SoundError(f"{name} has {rate_hz} Hz; 8 to 96 kHz are taken")
            if channels not in (1, 2) or width not in (2, 3, 4):
                raise SoundError(
                    f"{name} has {channels} channels of {8 * width} bit; 1 or 2 of 16 to 32 are taken"
                )
            raw = file.readframes(int(MAX_S * rate_hz) + rate_hz)
    except (wave.Error, EOFError, ValueError) as error:
        raise SoundError(f"{name} is not a WAV file of plain PCM ({error})") from None
    frames = len(raw) // (channels * width)
    if frames > MAX_S * rate_hz:
        raise SoundError(f"{name} is longer than {MAX_S:.0f} s")
    if frames < rate_hz // 10:
        raise SoundError(f"{name} holds no sound")
    sides = _samples(raw[: frames * channels * width], width).reshape(frames, channels)
    pcm = sides.mean(axis=1)
    if rate_hz != RATE_HZ:
        pcm = np.asarray(soxr.resample(pcm, rate_hz, RATE_HZ), np.float32)
    return Recording(name, pcm.astype(np.float32), rate_hz, hashlib.sha256(content).hexdigest())


def _samples(raw: bytes, width: int) -> Floats:
    if width == 2:
        return float_from_bytes(raw)
    if width == 4:
        return np.frombuffer(raw, "<i4").astype(np.float32) / np.float32(1 << 31)
    bytes3 = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    padded = np.zeros((len(bytes3), 4), np.uint8)
    padded[:, 1:] = bytes3
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)


def of_call(name: str, pcm: Floats, source_hz: int) -> Recording:
    """A recording from a call's sound, float32 at 24 kHz; `source_hz` as the line had it.

    Raises `SoundError`.
    """
    if len(pcm) > MAX_S * RATE_HZ:
        raise SoundError(f"{name} is longer than {MAX_S:.0f} s")
    if not np.isfinite(pcm).all():
        raise SoundError(f"{name} holds what is not a sound")
    return Recording(name, pcm.astype(np.float32), source_hz, hashlib.sha256(pcm16(pcm)).hexdigest())


# ── is there speech, and how good is it? ─────────────────────────────────────────────────────────────────


_silero = lru_cache(maxsize=1)(lambda: open_network(VAD_HZ))


def voice_activity(at_16k: Floats) -> Floats:
    """Probability of speech in each 32 ms window, float32 `(len // 512,)`; Silero VAD v6 at 16 kHz."""
    network = _silero()
    count = len(at_16k) // VAD_WINDOW
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(VAD_CONTEXT, np.float32)
    out = np.zeros(count, np.float32)
    for at in range(count):
        window = at_16k[at * VAD_WINDOW : (at + 1) * VAD_WINDOW]
        heard = np.concatenate((context, window))[None]
        answer, state = network.judge(heard, state)
        out[at] = answer[0]
        context = window[-VAD_CONTEXT:]
    return out


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured of one recording.

    `snr_db`: mean level of the windows with speech over the lower quartile of the others; `bandwidth_hz`:
    upper edge of the speech, in steps of 187.5 Hz, at most 12 kHz; `clipped`: share of samples at full scale.
    """

    seconds: float
    speech_s: float
    snr_db: float
    clipped: float
    bandwidth_hz: float


def measure(recording: Recording) -> Quality:
    """The figures of a recording; silence has no speech, 0 dB and 0 Hz."""
    speech = recording.speech
    sound = recording.at_16k[: len(speech) * VAD_WINDOW].reshape(-1, VAD_WINDOW)
    power = (sound.astype(np.float64) ** 2).mean(axis=1) + 1e-12
    speech_s = float(speech.sum()) * VAD_WINDOW / VAD_HZ
    if not speech.any():
        return Quality(recording.seconds, 0.0, 0.0, _clipped(recording.pcm), 0.0)
    level = power[speech].mean()
    # pauses tell the noise; where there are none, the quietest windows of speech do (an upper bound)
    quiet = power[~speech] if (~speech).sum() >= 5 else power
    noise = np.quantile(quiet, 0.25)
    return Quality(
        recording.seconds, speech_s, float(10 * np.log10(level / noise)), _clipped(recording.pcm),
        _bandwidth(recording),
    )  # fmt: skip


def _clipped(pcm: Floats) -> float:
    peak = float(np.abs(pcm).max(initial=0.0))
    if peak < 0.5:
        return 0.0
    return float((np.abs(pcm) >= max(0.985, 0.999 * peak) if peak >= 0.985 else np.zeros(1)).mean())


def _bandwidth(recording: Recording) -> float:
    """The upper edge of the highest 187.5 Hz band within 45 dB of the strongest, in windows with speech."""
    size = 1024
    count = len(recording.pcm) // size
    frames = recording.pcm[: count * size].reshape(-1, size)
    at = (np.arange(count) * size * VAD_HZ // RATE_HZ // VAD_WINDOW).clip(0, len(recording.speech) - 1)
    frames = frames[recording.speech[at]]
    if not len(frames):
        return 0.0
    spectrum = (np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2).mean(axis=0)
    bands = spectrum[1:].reshape(-1, 8).mean(axis=1)  # 8 bins of 23.4 Hz: 187.5 Hz
    loud = np.flatnonzero(bands > bands.max() * 10**-4.5)
    return float((loud[-1] + 1) * 8 * RATE_HZ / size)
