"""What a thief without the key does to a marked recording: to its time, its levels, its phases; what ffmpeg
has at hand; and what the detector's own network, which is public, says about it.

Each is a function of sound, rate and chance. `THEFTS` and `FILTERS` name those that
`benchmarks/watermark/thief.py` tries.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Final

import numpy as np
import soxr
from scipy.signal import butter, sosfiltfilt

from benchmarks.watermark.attacks import mark_calls
from benchmarks.watermark.host_speech import ffmpeg
from benchmarks.watermark.warps import bent, wobble
from watermark.envelope import chip_network
from watermark.envelope.cells import BANDS, CELL_HOPS, EDGES_HZ, HALF_CELL_HOPS
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.whiten import NARROW_HZ

Theft = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""Sound float32 `(n,)`, its rate, and chance -> what the thief makes of it, at the same rate."""

STEP_S: Final = 0.005
"""Between the values of a band's gain."""
QUIET_DB: Final = 45.0
"""A band so far below its loudest is taken to be no softer."""


# time


def crooked(samples: np.ndarray, rate_hz: int, delay_s: np.ndarray) -> np.ndarray:
    """Heard later by `delay_s`, in seconds for each sample."""
    return bent(samples, rate_hz, np.arange(len(samples)) / rate_hz - delay_s)


def random_walk(rms_s: float, top_hz: float) -> Theft:
    """A delay that walks at random, without what is faster than `top_hz`."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        knots = len(samples) * 100 // rate_hz + 2
        walk = np.cumsum(rng.standard_normal(knots))
        walk = sosfiltfilt(butter(4, [0.2, top_hz], "bandpass", fs=100, output="sos"), walk)
        walk *= rms_s / np.sqrt(np.mean(walk**2))
        return crooked(
            samples, rate_hz, np.interp(np.arange(len(samples)) * 100 / rate_hz, range(knots), walk)
        )

    return theft


def swung(peak_s: float, hz: float) -> Theft:
    """A delay that swings by `peak_s` to either side, so often a second."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        return wobble(peak_s, hz)(samples, rate_hz)[0]

    return theft


def pieces(most: float, shortest_s: float, longest_s: float) -> Theft:
    """Another speed, up to `most` off, in each piece of a length drawn by chance."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        speeds = np.empty(len(samples))
        at = 0
        while at < len(samples):
            end = at + round(rate_hz * rng.uniform(shortest_s, longest_s))
            speeds[at:end] = rng.uniform(-most, most)
            at = end
        return crooked(samples, rate_hz, np.cumsum(speeds) / rate_hz)

    return theft


def there_and_back(most: float) -> Theft:
    """Slower and slower, then faster and faster: the speed goes from `-most` to `most` and back."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        turn = np.abs(np.linspace(-1, 1, len(samples)))
        return crooked(samples, rate_hz, np.cumsum(most * (2 * turn - 1)) / rate_hz)

    return theft


def dropped_and_doubled(a_second: float) -> Theft:
    """As many samples of 8 kHz a second are dropped or said twice, as chance has it."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        narrow = soxr.resample(samples, rate_hz, NARROW_HZ)
        steps = np.ones(len(narrow), np.int64)
        chosen = rng.random(len(narrow)) < a_second / NARROW_HZ
        steps[chosen] = rng.choice((0, 2), int(chosen.sum()))
        heard = narrow[np.clip(np.cumsum(steps) - 1, 0, len(narrow) - 1)]
        return np.asarray(soxr.resample(heard, NARROW_HZ, rate_hz), np.float32)[: len(samples)]

    return theft


# levels


def bands_of(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """The layer's eight bands and what lies outside, `(9, n)`, which add up to the sound."""
    hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    edges = np.array(EDGES_HZ, float)
    rises = np.clip((hz - edges[:, None] * 0.95) / (edges[:, None] * 0.1), 0, 1)
    masks = rises[:-1] - rises[1:]
    spectrum = np.fft.rfft(samples)
    whole = np.concatenate((masks, 1 - masks.sum(axis=0, keepdims=True)))
    return np.asarray(np.fft.irfft(whole * spectrum, len(samples)), np.float32)


def levelled(bands: np.ndarray, rate_hz: int, gains_db: np.ndarray, step_s: float = STEP_S) -> np.ndarray:
    """`bands_of`'s, each with its gain: `gains_db` `(8, k)`, a value each `step_s`."""
    at = np.arange(bands.shape[1]) / (rate_hz * step_s)
    out = bands[BANDS].copy()
    for band, gain in zip(bands[:BANDS], gains_db, strict=True):
        out += band * (10 ** (np.interp(at, np.arange(len(gain)), gain) / 20)).astype(np.float32)
    return out


def levels_db(bands: np.ndarray, rate_hz: int) -> np.ndarray:
    """How loud each of the eight bands is, each `STEP_S`, over 20 ms: `(8, k)`."""
    hop = round(STEP_S * rate_hz)
    power = np.square(bands[:BANDS]).astype(np.float64)
    power = np.pad(power, ((0, 0), (2 * hop, 2 * hop + hop)))
    sums = np.cumsum(power, axis=1)[:, ::hop]
    mean = (sums[:, 4:] - sums[:, :-4]) / (4 * hop)
    loudest = mean.max(axis=1, keepdims=True) + 1e-12
    return 10 * np.log10(np.maximum(mean, loudest * 10 ** (-QUIET_DB / 10)))


def random_gains(most_db: float, low_hz: float, high_hz: float) -> Theft:
    """Each band louder and softer by chance, up to `most_db`."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        count = int(len(samples) / (rate_hz * STEP_S)) + 2
        shape = butter(2, [low_hz, high_hz], "bandpass", fs=1 / STEP_S, output="sos")
        gains = sosfiltfilt(shape, rng.standard_normal((BANDS, count)), axis=1)
        gains *= most_db / np.quantile(np.abs(gains), 0.95)
        return levelled(bands_of(samples, rate_hz), rate_hz, np.clip(gains, -most_db, most_db))

    return theft


def flattened(most_db: float, low_hz: float, high_hz: float) -> Theft:
    """What each band's level does between these rates is undone, by `most_db` at most."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        bands = bands_of(samples, rate_hz)
        shape = butter(2, [low_hz, high_hz], "bandpass", fs=1 / STEP_S, output="sos")
        moved = sosfiltfilt(shape, levels_db(bands, rate_hz), axis=1)
        return levelled(bands, rate_hz, np.clip(-moved, -most_db, most_db))

    return theft


def unlearnt(depth_db: float, rounds: int) -> Theft:
    """The detector's own network, which is public and knows no key, says which chip it hears in each cell;
    that swell is turned back, by `depth_db` where it is sure; so often. Where cells begin it says too: there
    it is surest."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(rounds):
            narrow = np.asarray(soxr.resample(samples, rate_hz, NARROW_HZ), np.float32)
            believed = np.tanh(chip_network.soft(narrow))
            sure = [sum(float(np.square(believed[b, _centres(believed, b, at)]).sum()) for b in range(BANDS))
                    for at in range(CELL_HOPS)]  # fmt: skip
            begins = int(np.argmax(sure))
            per_hop = 4
            gains = np.zeros((BANDS, believed.shape[1] * per_hop))
            cell = np.sin(2 * pi * (np.arange(CELL_HOPS * per_hop)) / (CELL_HOPS * per_hop))
            for band in range(BANDS):
                for centre in _centres(believed, band, begins):
                    first = (centre - HALF_CELL_HOPS) * per_hop
                    part = gains[band, max(0, first) : first + len(cell)]
                    part -= depth_db * believed[band, centre] * cell[len(cell) - len(part) :][: len(part)]
            samples = levelled(bands_of(samples, rate_hz), rate_hz, gains, 0.01 / per_hop)
        return samples

    return theft


def _centres(believed: np.ndarray, band: int, begins: int) -> range:
    """Frames in which the band's cells are centred, if the first begins at `begins`, odd bands half a cell
    later."""
    first = (begins + HALF_CELL_HOPS * (1 + band % 2)) % CELL_HOPS
    return range(first + CELL_HOPS, believed.shape[1] - CELL_HOPS, CELL_HOPS)


def marked_again(times: int) -> Theft:
    """Both layers of so many other keys over it, at the most that a key may have."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(times):
            key = MarkKey("wm-0bad", 0x0BAD, rng.bytes(32), BOTH_LAYERS, 2.0)
            payload = key.gateway << 48 | int(rng.integers(1 << 48))
            samples = mark_calls(key, [payload], samples, int(rng.integers(90_000)))[0]
        return samples

    return theft


# phases


def redrawn(below_db: float) -> Theft:
    """Phases drawn anew wherever a bin lies so far below the loudest within 150 Hz: where the carrier is."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        frame = round(0.032 * rate_hz)
        hop = frame // 4
        window = np.sin(pi * (np.arange(frame) + 0.5) / frame)
        padded = np.pad(samples, (frame, 2 * frame))
        views = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
        spectrum = np.fft.rfft(views * window, axis=1)
        size = np.abs(spectrum)
        near = max(1, round(150 * frame / rate_hz))
        around = np.lib.stride_tricks.sliding_window_view(
            np.pad(size, ((0, 0), (near, near))), 2 * near + 1, 1
        )
        valley = size < around.max(axis=2) * 10 ** (-below_db / 20)
        turned = np.exp(2j * pi * rng.random(size.shape))
        parts = np.fft.irfft(np.where(valley, size * turned, spectrum), frame, axis=1) * window / 2
        out = np.zeros(len(padded))
        for at, part in enumerate(parts):
            out[at * hop : at * hop + frame] += part
        return out[frame : frame + len(samples)].astype(np.float32)

    return theft


# what ffmpeg has at hand


def filtered(graph: str) -> Theft:
    """One of ffmpeg's filters, or some."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        raw = ["-f", "f32le", "-ar", str(rate_hz), "-ac", "1"]
        changed = ffmpeg([*raw, "-i", "-", "-af", graph, *raw, "-"], samples.astype("<f4").tobytes())
        return np.frombuffer(changed, "<f4").copy()

    return theft


def both(*thefts: Theft) -> Theft:
    """One after the other."""

    def theft(samples: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
        for each in thefts:
            samples = each(samples, rate_hz, rng)
        return samples

    return theft


THEFTS: Final[dict[str, Theft]] = {
    "nothing": lambda samples, rate_hz, rng: samples,
    "walk below 2 Hz, 1 ms": random_walk(0.001, 2.0),
    "walk below 2 Hz, 3 ms": random_walk(0.003, 2.0),
    "wobble of 1 ms at 3 Hz": swung(0.001, 3.0),
    "speed +-2 % in pieces of .3 to 1 s": pieces(0.02, 0.3, 1.0),
    "speed from -2 % to 2 % and back": there_and_back(0.02),
    "10 samples a second dropped or doubled": dropped_and_doubled(10),
    "40 samples a second dropped or doubled": dropped_and_doubled(40),
    "band gains +-2 dB, 5 to 20 Hz": random_gains(2.0, 5.0, 20.0),
    "band gains +-4 dB, 5 to 20 Hz": random_gains(4.0, 5.0, 20.0),
    "envelopes flattened by up to 3 dB": flattened(3.0, 2.0, 30.0),
    "envelopes without 12 to 20 Hz": flattened(6.0, 12.0, 20.0),
    "another mark": marked_again(1),
    "three other marks": marked_again(3),
    "valleys' phases redrawn, 6 dB down": redrawn(6.0),
    "valleys' phases redrawn, 12 dB down": redrawn(12.0),
    "chips that the network hears undone": unlearnt(4.0, 1),
    "chips that the network hears undone, 4 times": unlearnt(4.0, 4),
    "undone, and valleys redrawn, 12 dB down": both(unlearnt(4.0, 1), redrawn(12.0)),
    "undone, and walk below 2 Hz of 3 ms": both(unlearnt(4.0, 1), random_walk(0.003, 2.0)),
    "spectrum shifted by 12 Hz": filtered("afreqshift=shift=12"),
    "undone, and spectrum shifted by 12 Hz": both(unlearnt(4.0, 1), filtered("afreqshift=shift=12")),
    "tempo 6 % slower, pitch kept": filtered("atempo=0.94"),
    "undone, and .5 ms of wobble at 5 Hz": both(unlearnt(4.0, 1), swung(0.0005, 5.0)),
    "undone, and 1 ms of wobble at 3 Hz": both(unlearnt(4.0, 1), swung(0.001, 3.0)),
}  # fmt: skip
FILTERS: Final[tuple[str, ...]] = (
    "atempo=1.03", "atempo=0.94", "atempo=1.08", "rubberband=tempo=1.06", "rubberband=pitch=1.04",
    "vibrato=f=5:d=0.1", "vibrato=f=3:d=0.3", "flanger", "flanger=depth=1:speed=0.3",
    "chorus=.6:.9:50:.4:.25:2",
    "dynaudnorm=f=50:g=3", "compand=attacks=.005:decays=.05:points=-80/-80|-40/-25|0/-10",
    "agate=threshold=.02:ratio=4", "afftdn=nr=20", "afftdn=nr=40:nf=-30", "anlmdn=s=.001", "speechnorm=e=12",
    "aecho=.8:.6:30|47:.4|.3", "asetrate=25200,aresample=24000", "aphaser", "aphaseshift=shift=.5",
    "afreqshift=shift=8", "tremolo=f=16:d=.3", "apulsator=hz=2:mode=sine", "acrusher=bits=7:mix=1",
    "crystalizer", "adeclick", "loudnorm",
)  # fmt: skip


def all_thefts() -> dict[str, Theft]:
    return THEFTS | {f"filter {graph}": filtered(graph) for graph in FILTERS}
