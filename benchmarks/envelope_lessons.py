"""Lessons for the envelope layer's network: marked speech through what telephones do, measured, with the
truth.

    python -m benchmarks.envelope_lessons FOLDER --count 300      # FOLDER: see benchmarks/envelope_voices.py

A lesson is a minute of speech, marked by the envelope layer and the carrier over it, through one channel:
the powers that the network's inputs are made of, the chips, and the frame in which each chip's cell is
centred. Those that are there already are not made again; a lesson's number is its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import pi
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from benchmarks.envelope_voices import stream
from benchmarks.watermark import channels as watermark_channels
from benchmarks.watermark import codec_libraries as watermark_codecs
from benchmarks.watermark import warps as watermark_warps
from benchmarks.watermark.channels import Channel, chain
from watermark import sound
from watermark.envelope.cells import BANDS, CELL_HOPS, CELL_S, EDGES_HZ, HALF_CELL_HOPS
from watermark.envelope.loudness import HOP, RATE_HZ, power
from watermark.keys import MarkKey
from watermark.mark import MarkerBank

SPEECH_HZ: Final = 16_000
LESSON_S: Final = 60.0
DELTA_DB: Final = (2.0, 5.0)
"""Louder than the mark is, so that a minute teaches more: what it teaches goes with the square, and the
network's output with the mark, which scores forgive."""
CARRIER: Final = (0.0, 0.8, 0.8, 1.0)
MUSIC: Final = Path("/usr/share/asterisk/moh")
"""Debian's asterisk-moh-opsound-wav"""


def band_pass(band: int, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """The biquad of a band, peak gain 1 and no phase in its middle: RBJ's cookbook."""
    low, high = EDGES_HZ[band], EDGES_HZ[band + 1]
    middle, wide = np.sqrt(low * high), high - low
    turn = 2 * pi * middle / rate_hz
    octaves = np.log2((middle + wide / 2) / (middle - wide / 2))
    alpha = np.sin(turn) * np.sinh(np.log(2) / 2 * octaves * turn / np.sin(turn))
    return (
        np.array([alpha, 0, -alpha]) / (1 + alpha),
        np.array([1 + alpha, -2 * np.cos(turn), 1 - alpha]) / (1 + alpha),
    )


def enveloped(
    samples: np.ndarray, rate_hz: int, chips: np.ndarray, delta_db: float, begin_s: float
) -> np.ndarray:
    """`samples` with the envelope layer's mark: `chips` `(cells, 8)`, of which cell 0 begins `begin_s`
    before."""
    out = samples.copy()
    time = (np.arange(len(samples)) / rate_hz + begin_s) / CELL_S
    for odd in range(2):
        at = time - 0.5 * odd
        cell = np.floor(at).astype(np.int64)
        up = np.exp(np.log(10) / 20 * delta_db * np.sin(2 * pi * (at - cell))).astype(np.float32)
        down = 1 / up
        up -= 1
        down -= 1
        for band in range(odd, BANDS, 2):
            heard = lfilter(*(each.astype(np.float32) for each in band_pass(band, rate_hz)), samples)
            out += np.where(chips[:, band].take(cell) > 0, up, down) * heard
    return out


def centres_s(cells: int, begin_s: float) -> np.ndarray:
    """When each cell is at its middle, seconds `(cells, 8)`."""
    hops = np.arange(cells)[:, None] * CELL_HOPS + HALF_CELL_HOPS * (1 + np.arange(BANDS) % 2)
    return hops * (CELL_S / CELL_HOPS) - begin_s


def carried(samples: np.ndarray, rate_hz: int, number: int, level: float) -> np.ndarray:
    """`samples` with the carrier over them, at this share of its level."""
    bank = MarkerBank(MarkKey("lesson", number & 0xFFFF, (number + 1).to_bytes(32)), rate_hz)
    slot = np.array([bank.open(number)], np.intp)
    whole = len(samples) // (rate_hz // 100) * (rate_hz // 100)
    marked = np.empty((1, whole), np.float32)
    bank.mark_whole(slot, np.ascontiguousarray(samples[None, :whole]), marked)
    return np.asarray(samples[:whole] + level * (marked[0] - samples[:whole]), np.float32)


# ── channels ─────────────────────────────────────────────────────────────────────────────────────────────


def noise(rng: np.random.Generator, db: float) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        hiss = rng.standard_normal(len(samples))
        hiss = lfilter([1], [1, -rng.uniform(0, 0.9)], hiss)
        return mixed(samples, hiss, db), rate_hz

    return channel


def mixed(samples: np.ndarray, other: np.ndarray, db: float) -> np.ndarray:
    """`other` so many dB below `samples`."""
    size = np.sqrt(np.mean(np.square(samples)) / (np.mean(np.square(other)) + 1e-12)) * 10 ** (-db / 20)
    return np.asarray(samples + size * other, np.float32)


def babble(folder: Path, rng: np.random.Generator, seconds: float, rate_hz: int) -> np.ndarray:
    """Five voices at once."""
    several = [stream(folder, rng, seconds) for _ in range(5)]
    return np.asarray(soxr.resample(np.sum(several, axis=0), SPEECH_HZ, rate_hz), np.float32)


def beside(folder: Path, rng: np.random.Generator, db: float) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        others = babble(folder, rng, len(samples) / rate_hz + 0.1, rate_hz)[: len(samples)]
        return mixed(samples, others, db), rate_hz

    return channel


@cache
def _music() -> list[np.ndarray]:
    pieces = [sound.read(path) for path in sorted(MUSIC.glob("*.wav"))]
    return [np.asarray(soxr.resample(p.channels[0], p.rate_hz, RATE_HZ), np.float32) for p in pieces]


def music(rng: np.random.Generator, db: float) -> Channel:
    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        if not _music():
            return watermark_channels.music(db)(samples, rate_hz)
        narrow = np.asarray(soxr.resample(samples, rate_hz, RATE_HZ), np.float32)
        played = _music()[int(rng.integers(len(_music())))]
        begin = int(rng.integers(max(1, len(played) - len(narrow))))
        part = np.resize(played[begin : begin + len(narrow)], len(narrow))
        return mixed(narrow, part, db), RATE_HZ

    return channel


def suppressed(rng: np.random.Generator) -> Channel:
    """WebRTC's suppressor, at any of its strengths, on some hiss."""
    level, db = int(rng.integers(4)), rng.uniform(10, 40)

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        from pywebrtc_audio import NoiseSuppressor

        noisy, _ = noise(rng, db)(samples, rate_hz)
        at = np.asarray(soxr.resample(noisy, rate_hz, 16_000), np.float32)
        frames = at[: len(at) // 160 * 160].reshape(-1, 160)
        suppressor = NoiseSuppressor(16_000, 1, level)
        return np.concatenate([suppressor.process(frame) for frame in frames]), 16_000

    return channel


def room(rng: np.random.Generator) -> Channel:
    """A small loudspeaker, a room, a microphone."""
    decay_s, direct_db = rng.uniform(0.2, 0.5), rng.uniform(-3, 8)

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        low, high = rng.uniform(250, 450), rng.uniform(3_000, 3_800)
        small = sosfilt(butter(2, (low, high), "bandpass", fs=rate_hz, output="sos"), samples)
        small = np.tanh(small / np.abs(small).max() * 1.5)
        time_s = np.arange(int(1.3 * decay_s * rate_hz)) / rate_hz
        response = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
        response *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(response**2))
        response[0] = 1.0
        return np.asarray(fftconvolve(small, response)[: len(samples)], np.float32) * 0.3, rate_hz

    return channel


GSM: Final = watermark_channels.codec(8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"])
WIDE: Final = watermark_codecs.amr_wb("12.65")
MU: Final = watermark_channels.law("mulaw")
STEADY: Final[dict[str, tuple[float, Callable[[Path, np.random.Generator], Channel]]]] = {
    "mu-law": (0.06, lambda _, __: MU),
    "mu-law, noise": (0.04, lambda _, rng: chain(MU, noise(rng, rng.uniform(10, 30)))),
    "G.729": (0.12, lambda _, __: watermark_codecs.g729),
    "mu > G.729 > mu": (0.06, lambda _, __: chain(MU, watermark_codecs.g729, MU)),
    "GSM > G.729": (0.09, lambda _, __: chain(GSM, watermark_codecs.g729)),
    "GSM": (0.02, lambda _, __: GSM),
    "AMR 12.2": (0.04, lambda _, __: watermark_channels.amr("12.2")),
    "AMR 7.4": (0.07, lambda _, __: watermark_channels.amr("7.4")),
    "AMR 4.75": (0.11, lambda _, __: watermark_channels.amr("4.75")),
    "AMR-WB 6.6": (0.03, lambda _, __: watermark_codecs.amr_wb("6.6")),
    "AMR-WB > AMR": (0.04, lambda _, __: chain(WIDE, watermark_channels.amr("12.2"))),
    "Opus 6k": (0.12, lambda _, __: watermark_channels.opus(6)),
    "babble": (0.04, lambda folder, rng: beside(folder, rng, rng.uniform(3, 15))),
    "music": (0.05, lambda _, rng: music(rng, rng.uniform(-3, 10))),
    "denoiser": (0.03, lambda _, rng: suppressed(rng)),
    "room": (0.09, lambda folder, rng: chain(room(rng), beside(folder, rng, rng.uniform(8, 20)), MU)),
}  # fmt: skip
"""Channel -> its share of lessons, and how one is drawn."""
BENT: Final = 0.15
"""Share of lessons whose time is bent before their channel."""


def warp(rng: np.random.Generator) -> watermark_warps.Warp:
    match int(rng.integers(4)):
        case 0:
            return watermark_warps.wobble(rng.uniform(0.3e-3, 2e-3), rng.uniform(0.5, 3))
        case 1:
            return watermark_warps.random_wobble(rng.uniform(0.3e-3, 1e-3), 3, int(rng.integers(1 << 30)))
        case 2:
            return watermark_warps.speed(rng.uniform(-0.03, 0.03))
        case _:
            tempi = 1 + rng.uniform(-0.03, 0.03, 200)
            return watermark_warps.stretched(lambda second: float(tempi[second % 200]))


def late_s(before: np.ndarray, after: np.ndarray) -> float:
    """How much later `after` is than `before`, both at 8 kHz: where they are most alike within 80 ms."""
    count = min(len(before), len(after), 30 * RATE_HZ)
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.conj(np.fft.rfft(before[:count], size)) * np.fft.rfft(after[:count], size)
    alike = np.abs(np.fft.irfft(spectrum, size)[: RATE_HZ * 8 // 100])
    return float(alike.argmax()) / RATE_HZ


def narrow(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    return np.asarray(soxr.resample(samples, rate_hz, RATE_HZ) if rate_hz != RATE_HZ else samples, np.float32)


@dataclass(frozen=True)
class Lesson:
    """`powers` `(frames, 16)`; `chips` int8 and `frames` int32 `(cells, 8)`, -1 where it is not heard."""

    channel: str
    powers: np.ndarray
    chips: np.ndarray
    frames: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Lesson:
        with np.load(path) as kept:
            return cls(str(kept["channel"]), kept["powers"], kept["chips"], kept["frames"])


def made(folder: Path, number: int, learnt: bool) -> Lesson:
    rng = np.random.default_rng([number, learnt])
    name = str(rng.choice(list(STEADY), p=np.array([share for share, _ in STEADY.values()]) / sum(
        share for share, _ in STEADY.values())))  # fmt: skip
    speech = stream(folder, rng, LESSON_S, learnt)
    speech *= 10 ** (rng.uniform(-12, 6) / 20)
    cells, begin_s = int(LESSON_S / CELL_S) + 3, float(rng.uniform(CELL_S, 2 * CELL_S))
    chips = rng.choice(np.array([-1, 1], np.int8), (cells, BANDS))
    marked = enveloped(speech, SPEECH_HZ, chips, rng.uniform(*DELTA_DB), begin_s)
    level = float(rng.choice(CARRIER))
    if level:
        marked = carried(marked, SPEECH_HZ, number, level)
    times = centres_s(cells, begin_s)
    if rng.random() < BENT:
        bend = warp(rng)
        marked, moved = bend(marked, SPEECH_HZ)
        times = moved(times.ravel()).reshape(times.shape)
        name += ", bent"
    heard = narrow(*STEADY[name.removesuffix(", bent")][1](folder, rng)(marked, SPEECH_HZ))
    times = times + late_s(narrow(marked, SPEECH_HZ), heard)
    powers = power(heard)
    frames = np.rint(times * (RATE_HZ / HOP)).astype(np.int32)
    frames[(frames < 0) | (frames >= len(powers))] = -1
    return Lesson(name, powers, chips, frames)


def kept(folder: Path, learnt: bool = True) -> list[Path]:
    return sorted((folder / "lessons").glob("learnt-*.npz" if learnt else "tried-*.npz"))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=300, show_default=True, help="Lessons of a minute.")
@click.option("--tried", default=16, show_default=True, help="Lessons of voices that are not learnt from.")
@click.option("--first", default=0, show_default=True)
def main(folder: Path, count: int, tried: int, first: int) -> None:
    """Makes the lessons that are missing."""
    for codec, why in watermark_codecs.MISSING.items():
        raise SystemExit(f"the lessons need {codec}: {why}")
    (folder / "lessons").mkdir(exist_ok=True)
    for learnt, many in ((False, tried), (True, count)):
        for number in range(first if learnt else 0, many):
            path = folder / "lessons" / f"{'learnt' if learnt else 'tried'}-{number:05d}.npz"
            if path.exists():
                continue
            lesson = made(folder, number, learnt)
            unfinished = path.with_name(f"part-{path.name}")
            np.savez(unfinished, channel=lesson.channel, powers=lesson.powers, chips=lesson.chips,
                     frames=lesson.frames)  # fmt: skip
            unfinished.replace(path)
            click.echo(f"{path.stem} {lesson.channel} {len(lesson.powers)} frames")


if __name__ == "__main__":
    main()
