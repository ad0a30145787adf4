"""What the envelope layer alone finds, through what telephones do, of voices that its network did not learn
from.

    python -m benchmarks.envelope_table FOLDER --excerpts 32 --db 2     # FOLDER: see
    benchmarks/envelope_voices.py

An excerpt is 20 s of one voice, marked by both layers; of 5, 10 and 20 s of it z of the line's and of the
call's half is printed (median, least), and how many have p < 1e-6 for a verification anywhere in 15 minutes
(v), blind and nobody's by the line's half (b), and as one of 100,000 calls anywhere (c). "Linear" is a
matched filter in place of the network, the line's half, 10 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr

from benchmarks.envelope_lessons import GSM, MU, WIDE, babble, mixed, music, narrow, room
from benchmarks.synthetic_corpus import Corpus
from benchmarks.watermark import warps as watermark_warps
from benchmarks.watermark.channels import Channel, amr, chain, opus, own_chance
from benchmarks.watermark.codec_libraries import MISSING, amr_wb, g729
from watermark.envelope import chip_network, loudness
from watermark.envelope import search as searching
from watermark.envelope.cells import BANDS, CELL_HOPS, Cells
from watermark.envelope.search import ANY, LINE_HOPS, LinePlace, Tempi, search
from watermark.judge import NAMED
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import MarkerBank
from watermark.whereabouts import PLACES

RATE_HZ: Final = 24_000
EXCERPT_S: Final = 20
LENGTHS_S: Final = (5, 10, 20)
TESTED: Final = {
    "hibari": 4,
    "Asterisk": 2,
    "flite": 1,
    "festival HTS": 1,
    "festival diphones": 1,
    "espeak-ng": 1,
}
"""Family -> excerpts of each of its voices."""
SOME: Final = {
    "espeak-ng": ("de", "en-us", "en-gb+f2"),
    "festival diphones": ("czech_dita", "kal_diphone", "ked_diphone", "lp_diphone"),
}
"""Only some voices of these families take part."""
SURE: Final = log(1e-6)
PLAYED: Final = ("tempo", "speed", "pitch", "stretch")
"""Channels in which far tempi are looked at; they count in the bound of all."""
RIGHT_HOPS: Final = 80
"""How far from where it is a place may lie and still be the right one: 3 % of 20 s are 30 hops in its
middle, and codecs are late."""


@dataclass
class ChannelScores:
    """What became of the excerpts in a channel: z of the line's half and of the call's, and the bound's
    logarithm without places, by length."""

    z: dict[int, list[float]] = field(default_factory=lambda: {length: [] for length in LENGTHS_S})
    own: dict[int, list[float]] = field(default_factory=lambda: {length: [] for length in LENGTHS_S})
    tries: dict[int, list[float]] = field(default_factory=lambda: {length: [] for length in LENGTHS_S})
    linear: list[float] = field(default_factory=list)

    def add(self, length: int, place: LinePlace | None, own: float) -> None:
        self.z[length].append(place.z if place else 0.0)
        self.own[length].append(own)
        self.tries[length].append(ANY.ln_tries(round(place.tempo / ANY.step)) if place else 0.0)

    def found(self, length: int, what: str, espeak: np.ndarray) -> str:
        """How many, and those of espeak-ng among them; as `whereabouts` counts, at `PLACES` places."""
        line, own = np.array(self.z[length]), np.array(self.own[length])
        tries = np.array(self.tries[length])
        ln_places, calls = TRIED[what]
        if not calls:
            sure = ln_places + tries - line**2 / 2 < SURE
        else:
            alone = log(PLACES * calls) - np.maximum(own, 0.0) ** 2 / 2
            both = log(calls) + ln_places + tries - np.maximum(line + own, 0.0) ** 2 / 4
            sure = (log(2) + np.minimum(alone, both) < SURE) & (alone < log(NAMED))
        return f"{int(sure[~espeak].sum())}+{int(sure[espeak].sum())}"

    def told(self, length: int, espeak: np.ndarray) -> str:
        halves = (f"{np.median(z[length]):.1f} ({min(z[length]):.1f})" for z in (self.z, self.own))
        return f"{', '.join(halves)}; " + " ".join(
            f"{what} {self.found(length, what, espeak)}" for what in TRIED
        )


TRIED: Final = {"v": (log(15 * 6_000), 1), "b": (log(LINE_HOPS), 0), "c": (log(LINE_HOPS), 100_000)}
"""Places, and calls that are asked for."""


def excerpts(folder: Path, count: int) -> list[tuple[str, np.ndarray]]:
    """Voices and 20 s of each, float32 at 24 kHz; the first of each voice before the second of any."""
    by_voice: dict[tuple[str, str], list[np.ndarray]] = {}
    for clip in Corpus(folder).clips():
        if clip.family in TESTED and clip.person in SOME.get(clip.family, (clip.person,)):
            by_voice.setdefault((clip.family, clip.person), []).append(clip.sound)
    found: list[tuple[int, str, np.ndarray]] = []
    for (family, person), clips in by_voice.items():
        whole = np.concatenate([clip / (np.sqrt(np.mean(np.square(clip))) + 1e-6) * 0.06 for clip in clips])
        whole = np.asarray(soxr.resample(whole, 16_000, RATE_HZ), np.float32)
        for number in range(TESTED[family]):
            part = whole[number * EXCERPT_S * RATE_HZ : (number + 1) * EXCERPT_S * RATE_HZ]
            if len(part) == EXCERPT_S * RATE_HZ:
                found.append((number, f"{family} {person}", part))
    found.sort(key=lambda each: each[0])
    return [(name, part) for _, name, part in found[:count]]


def warped(warp: watermark_warps.Warp, then: Channel = MU) -> Channel:
    return lambda samples, rate_hz: then(warp(samples, rate_hz)[0], rate_hz)


def pitched(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """2 % higher, as long as it was."""
    faster, _ = watermark_warps.speed(0.02)(samples, rate_hz)
    return MU(watermark_warps.stretched(lambda _: 1 / 1.02)(faster, rate_hz)[0], rate_hz)


def suppressed(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    from pywebrtc_audio import AudioProcessor

    at = np.asarray(soxr.resample(samples, rate_hz, 16_000), np.float32)
    both = AudioProcessor(16_000, 1, noise_suppression=True, auto_gain_control=True, ns_level=3)
    frames = at[: len(at) // 160 * 160].reshape(-1, 160)
    return np.concatenate([both.process(frame) for frame in frames]), 16_000


def channels(folder: Path) -> dict[str, Channel]:
    """The study's rows."""

    def with_music(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        return music(own_chance(samples), 0)(samples, rate_hz)

    def microphone(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        rng = own_chance(samples)
        heard, _ = room(rng)(samples, rate_hz)
        others = babble(folder, rng, len(samples) / rate_hz + 0.1, rate_hz)[: len(samples)]
        return MU(mixed(heard, others, 15), rate_hz)

    return {
        "mu-law": MU,
        "G.729": g729,
        "mu > G.729 > mu": chain(MU, g729, MU),
        "GSM > G.729": chain(GSM, g729),
        "AMR 12.2": amr("12.2"),
        "AMR 7.4": amr("7.4"),
        "AMR 4.75": amr("4.75"),
        "AMR-WB 6.6": amr_wb("6.6"),
        "AMR-WB 12.65 > AMR 12.2": chain(WIDE, amr("12.2")),
        "Opus 6k": opus(6),
        "wobble 1 ms 1 Hz": warped(watermark_warps.wobble(1e-3, 1.0)),
        "wobble 2 ms 1 Hz": warped(watermark_warps.wobble(2e-3, 1.0)),
        "random wobble": warped(watermark_warps.random_wobble(0.7e-3, 3, 7)),
        "pitch +2 %": pitched,
        "tempo +3 %": warped(watermark_warps.stretched(lambda _: 1.03)),
        "tempo -3 %": warped(watermark_warps.stretched(lambda _: 0.97)),
        "speed +3 %": warped(watermark_warps.speed(0.03)),
        "stretch +-3 % each second": warped(watermark_warps.stretched(lambda s: 0.97 if s % 2 else 1.03)),
        "suppressor, gain control": suppressed,
        "music 0 dB": with_music,
        "speaker, room, babble 15 dB": microphone,
    }


def linear(sound: np.ndarray) -> np.ndarray:
    """What a matched filter says in the network's place, `(8, frames)`."""
    swing = loudness.inputs(loudness.power(sound))[: 2 * BANDS].reshape(BANDS, 2, -1).mean(axis=1)
    wave = np.sin(2 * np.pi * np.arange(-3, 4) / CELL_HOPS + np.pi)
    return np.stack([np.convolve(band, wave[::-1], "same") for band in swing]).astype(np.float32)


def nearest(soft: np.ndarray, cells: Cells, begin: int, tempi: Tempi) -> LinePlace | None:
    """The clearest place within 3 minutes of where the recording begins, `begin`, if it is the right one,
    or the clearest right one after it."""
    middle = soft.shape[1] / 2
    places = search(soft, cells, begin - 9_000, 18_000, tempi)
    right = (place for place in places if abs(_around(place.line_hop(middle) - begin - middle)) < RIGHT_HOPS)
    return next(right, None)


def _around(hops: float) -> float:
    return (hops + LINE_HOPS / 2) % LINE_HOPS - LINE_HOPS / 2


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--excerpts", "count", default=32, show_default=True)
@click.option("--db", default=2.0, show_default=True, help="Depth of the envelope layer.")
@click.option("--only", multiple=True, help="Channels; without it, all.")
def main(folder: Path, count: int, db: float, only: tuple[str, ...]) -> None:
    """Prints a row for each channel."""
    material = excerpts(folder, count)
    espeak = np.array([name.startswith("espeak") for name, _ in material])
    voices = len({name for name, _ in material})
    click.echo(
        f"{len(material)} excerpts of {voices} voices at {db} dB; "
        f"behind the +, espeak-ng's, {int(espeak.sum())} of them"
    )
    marked, begins = [], []
    for number, (_, speech) in enumerate(material):
        key = MarkKey("table", 7, (number + 77).to_bytes(32), BOTH_LAYERS, db)
        bank, payload = MarkerBank(key, RATE_HZ), number * 1_234_567 + 89
        slot = np.array([bank.open(payload)], np.intp)
        bank.rest(slot, 31 * number)
        out = np.empty((1, len(speech)), np.float32)
        bank.mark_whole(slot, speech[None], out)
        marked.append((Cells(key.secret), payload, out[0]))
        begins.append(marked[-1][0].entry(payload) * CELL_HOPS + 31 * number)
    for name, channel in channels(folder).items():
        if only and name not in only:
            continue
        codec = next((codec for codec in MISSING if codec in name), None)
        if codec:
            click.echo(f"| {name} | {MISSING[codec]} |")
            continue
        row = ChannelScores()
        tempi = ANY if any(word in name for word in PLAYED) else searching.STEADY  # for time's sake
        for (cells, payload, speech), begin in zip(marked, begins, strict=True):
            heard = narrow(*channel(speech, RATE_HZ))
            for length in LENGTHS_S:
                soft = chip_network.soft(heard[: length * loudness.RATE_HZ])
                found = nearest(soft, cells, begin, tempi)
                call = np.array([payload], np.uint64)
                own = float(searching.call_scores(soft, cells, call, found)[0]) if found else 0.0
                row.add(length, found, own)
            place = nearest(linear(heard[: 10 * loudness.RATE_HZ]), cells, begin, tempi)
            row.linear.append(place.z if place else 0.0)
        cells_of = [row.told(length, espeak) for length in LENGTHS_S]
        click.echo(f"| {name} | {' | '.join(cells_of)} | {np.median(row.linear):.1f} |")


if __name__ == "__main__":
    main()
