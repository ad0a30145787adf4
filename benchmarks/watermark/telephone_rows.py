"""The rows of the telephone-codec benchmark: what a marked call goes through before its mark is sought.

Each row is a channel from 24 kHz sound to what is examined; its goals are shares for verifying and for blind
detection by length. A row whose encoder is missing says what to install.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from benchmarks.envelope_lessons import mixed, room
from benchmarks.watermark import chromium_calls
from benchmarks.watermark.channels import Channel, amr, attacks, chain, codec, law, opus, own_chance
from benchmarks.watermark.codec_libraries import MISSING, amr_wb, g729
from benchmarks.watermark.hosts import HostSpeech, babble
from benchmarks.watermark.jitter_buffer import stood_in
from benchmarks.watermark.warps import Warp, random_wobble, speed, stretched, wobble

Goals = dict[int, tuple[int, int]]
"""Length in s -> per cent verified, and found blind."""

TIME: Final[Goals] = {10: (98, 95), 20: (99, 99)}
CHANGING: Final[Goals] = {10: (90, 80), 20: (98, 95)}
CELP: Final[Goals] = {10: (90, 85), 20: (99, 98)}
LOW: Final[Goals] = {10: (80, 75), 20: (98, 95)}
WIRE: Final[Goals] = {10: (65, 45), 20: (90, 90)}
AIR: Final[Goals] = {10: (85, 60), 20: (95, 80)}
CONTROL: Final = "no mark"
TODAY: Final = "as it was"
"""The group of rows that the mark survived before it had two layers."""


@dataclass(frozen=True)
class TelephoneRow:
    """`through`: what a host's marked sound becomes, or None where that was not recorded. `missing`: why it
    cannot be tried, and the remedy.
    `among`: also sought among the registry's calls."""

    name: str
    group: str
    goals: Goals
    through: Callable[[HostSpeech, np.ndarray, int], tuple[np.ndarray, int] | None]
    missing: str | None = None
    among: bool = False


@cache
def encoders() -> dict[str, str]:
    """Encoder -> what a row says that needs it and does not find it."""
    absent = dict(MISSING)
    if shutil.which("ffmpeg") is None:
        return absent | dict.fromkeys(("G.711", "GSM", "Opus"), "not tried: apt-get install ffmpeg")
    listed = subprocess.run(
        ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    for name, encoder in (("GSM", "libgsm"), ("Opus", "libopus")):
        if f" {encoder} " not in listed.stdout:
            absent[name] = (
                f"{name} is not tried: this ffmpeg has no {encoder}; Debian's has (apt-get install ffmpeg)"
            )
    heard = (
        subprocess.run(["sox", "-h"], capture_output=True, text=True, check=False)
        if shutil.which("sox")
        else None
    )
    if heard is None or "amr-nb" not in heard.stdout:
        absent["AMR"] = "AMR is not tried: apt-get install sox libsox-fmt-base libopencore-amrnb0"
    return absent


def pitched(change: float) -> Channel:
    """As long as it was, higher by this share."""

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        faster, _ = speed(change)(samples, rate_hz)
        return stretched(lambda _: 1 / (1 + change))(faster, rate_hz)[0], rate_hz

    return channel


def warped(warp: Warp) -> Channel:
    return lambda samples, rate_hz: (warp(samples, rate_hz)[0], rate_hz)


def wandering(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """.7 ms rms, nothing above 3 Hz, another course for each excerpt."""
    seed = int(own_chance(samples).integers(1 << 30))
    return random_wobble(0.7e-3, 3, seed)(samples, rate_hz)[0], rate_hz


def restless(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """WSOLA by 3 % up or down, drawn anew each second."""
    tempi = own_chance(samples).choice([0.97, 1.03], 60)
    return stretched(lambda second: float(tempi[second % 60]))(samples, rate_hz)[0], rate_hz


def rows(kept_speech: Path) -> list[TelephoneRow]:
    """All rows, in the order of their worth; babble is made of what lies in `kept_speech`."""
    mu, gsm = law("mulaw"), codec(8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"])

    def microphone(host: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([host.number, *host.voice.encode()])
        heard, _ = room(rng)(samples, rate_hz)
        others = babble(len(samples) / rate_hz + 0.1, rng, kept_speech, host.voice)
        others = np.asarray(soxr.resample(others, 24_000, rate_hz), np.float32)[: len(heard)]
        return mu(mixed(heard, others, 15), rate_hz)

    def played(_: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int] | None:
        return chromium_calls.recorded(samples, rate_hz, kept_speech.parent)

    return [
        *(_row(f"wobble {name}", "time", TIME, chain(warped(warp), mu)) for name, warp in WOBBLES.items()),
        TelephoneRow("NetEq (Chromium)", "changing time", CHANGING, played, _recordings(kept_speech.parent)),
        _row("NetEq (stand-in)", "changing time", CHANGING, chain(mu, stood_in)),
        _row("random wobble .7 ms", "changing time", CHANGING, chain(wandering, mu)),
        _row("WSOLA +-3 %, each second", "changing time", CHANGING, chain(restless, mu)),
        _row("G.729", "CELP", CELP, g729, among=True),
        _row("mu > G.729 > mu", "CELP", CELP, chain(mu, g729, mu)),
        _row("GSM > G.729", "lowest rates", LOW, chain(gsm, g729)),
        *(_row(f"AMR {mode}", "CELP", CELP, amr(mode)) for mode in ("12.2", "7.4")),
        _row("AMR 4.75", "lowest rates", LOW, amr("4.75")),
        _row("AMR-WB 6.6", "lowest rates", LOW, amr_wb("6.6")),
        _row("AMR-WB 12.65 > AMR 12.2", "CELP", CELP, chain(amr_wb("12.65"), amr("12.2"))),
        _row("Opus 6k", "lowest rates", WIRE, opus(6)),
        TelephoneRow("loudspeaker, room, babble 15 dB", "air", AIR, microphone, _missing("G.711")),
        *(_row(f"pitch {change:+.0%}", "time", TIME, chain(pitched(change), mu)) for change in (0.02, -0.02)),
        *(
            _row(f"tempo {change:+.0%}", "time", TIME, chain(warped(stretched(_steadily(1 + change))), mu))
            for change in (0.03, -0.03)
        ),
        *(
            _row(f"speed {change:+.0%}", "time", TIME, chain(warped(speed(change)), mu))
            for change in (0.03, -0.03)
        ),
        *(_row(each.name, TODAY, {}, each.channel) for each in attacks() if each.name not in OURS),
        _control("not marked, G.711", mu),
        _control("not marked, AMR 12.2", amr("12.2")),
    ]


OURS: Final = ("AMR 12.2", "AMR 7.4", "AMR 4.75")
"""Rows of the table before this one that stand above."""
WOBBLES: Final = {
    ".5 ms 2 Hz": wobble(0.5e-3, 2),
    "1 ms 1 Hz": wobble(1e-3, 1),
    "2 ms 1 Hz": wobble(2e-3, 1),
}


def _steadily(tempo: float) -> Callable[[int], float]:
    return lambda _: tempo


def _control(name: str, channel: Channel) -> TelephoneRow:
    """The same speech without any mark: what is found there is a false alarm."""

    def through(host: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        return channel(host.speech[: len(samples)], rate_hz)

    return TelephoneRow(name, CONTROL, {}, through, _missing(name))


def _recordings(out: Path) -> str | None:
    if any((out / chromium_calls.FOLDER).glob("*.npz")):
        return None
    return "NetEq (Chromium) is not tried: record it first, python -m benchmarks.watermark.chromium_calls"


def _missing(name: str) -> str | None:
    """What is missing for a row, by the codecs that its name or way holds."""
    wanted = [codec for codec in ("AMR-WB", "G.729", "GSM", "Opus", "G.711") if codec in name]
    if "AMR " in name:
        wanted.append("AMR")
    return next((encoders()[each] for each in wanted if each in encoders()), None)


def _row(name: str, group: str, goals: Goals, channel: Channel, among: bool = False) -> TelephoneRow:
    def through(_: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        return channel(samples, rate_hz)

    through_mu = "" if any(each in name for each in ("G.729", "AMR", "Opus", "GSM")) else " G.711"
    return TelephoneRow(name, group, goals, through, _missing(name + through_mu), among)
