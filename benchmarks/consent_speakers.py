"""How well the speaker check tells people apart: equal error rates on human voices, and at our thresholds.

    python -m benchmarks.consent_speakers [--seconds 10] [--utterances 16]

Voices: Debian's asterisk-core-sounds-{en,es,fr,it,ru}-g722 (CC-BY-SA 3.0, never committed). Of the five,
English and Spanish are one woman (pairs between them are left out). Needs ffmpeg for G.722, and the
speaker model (voicegate models get speaker).
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import soxr

from consent.checks.checklist import TWO_SPEAKERS, halves_alike
from consent.checks.sound import RATE_HZ, Floats, of_call
from consent.checks.speaker import GE2E, voiceprint
from gateway.config.paths import model_files_dir
from gateway.config.settings import load as load_settings
from watermark.pcm import float_from_bytes

SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
ONE_WOMAN = {"en_US_f_Allison", "es_MX_f_Allison"}


def load(path: Path) -> Floats:
    """A prompt's G.722 at 16 kHz, as float32."""
    argv = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "g722",
        "-i",
        str(path),
        "-ar",
        "16000",
        "-ac",
        "1",
        "-f",
        "s16le",
        "-",
    ]
    raw = subprocess.run(argv, check=True, capture_output=True).stdout
    return float_from_bytes(raw)


def over_g711(at_16k: Floats) -> Floats:
    """To 8 kHz, through mu-law, and back."""
    narrow = np.clip(soxr.resample(at_16k, 16_000, 8_000), -1, 1)
    squeezed = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    wide = np.sign(squeezed) * (256 ** np.abs(squeezed) - 1) / 255
    return np.asarray(soxr.resample(wide, 8_000, 16_000), np.float32)


def utterances(voice: str, seconds: float, count: int) -> list[Floats]:
    """Different prompts joined to utterances of that length, at 16 kHz."""
    files = [path for path in sorted((SOUNDS / voice).glob("*.g722")) if path.stat().st_size > 12_000]
    random.Random(voice).shuffle(files)
    made: list[Floats] = []
    pieces: list[Floats] = []
    for path in files:
        pieces.append(load(path))
        if sum(map(len, pieces)) >= seconds * 16_000:
            made.append(np.concatenate(pieces)[: round(seconds * 16_000)])
            pieces = []
        if len(made) == count:
            break
    return made


def voiceprints(model: GE2E, sounds: list[Floats]) -> Floats:
    out = []
    for sound in sounds:
        whole = of_call("u", np.asarray(soxr.resample(sound, 16_000, RATE_HZ), np.float32), 16_000)
        out.append(voiceprint(model.windows(whole.speech_16k)))
    return np.stack(out)


def equal_error(same: Floats, other: Floats) -> tuple[float, float]:
    """The rate, and the threshold at which it is."""
    steps = np.unique(np.concatenate((same, other)))
    missed = np.searchsorted(np.sort(same), steps) / len(same)
    passed = 1 - np.searchsorted(np.sort(other), steps) / len(other)
    at = int(np.abs(missed - passed).argmin())
    return float((missed[at] + passed[at]) / 2), float(steps[at])


def trials(one: dict[str, Floats], two: dict[str, Floats], *, mirrored: bool) -> tuple[Floats, Floats]:
    """Likenesses of pairs by one person, and of pairs by two."""
    same, other = [], []
    for a, b in itertools.product(one, two):
        likeness = one[a] @ two[b].T
        if a == b:
            rows, columns = np.triu_indices(len(likeness), 1)
            same += likeness[rows, columns].tolist()
            if not mirrored:
                same += likeness[columns, rows].tolist()
        elif {a, b} != ONE_WOMAN and (not mirrored or a < b):
            other += likeness.ravel().tolist()
    return np.array(same, np.float32), np.array(other, np.float32)


def spread(one: dict[str, Floats], two: dict[str, Floats], *, mirrored: bool) -> tuple[float, float]:
    """95 % of equal error rates when utterances are drawn anew."""
    draw = np.random.default_rng(1)
    rates = []
    for _ in range(200):
        picks = {voice: draw.integers(0, len(one[voice]), len(one[voice])) for voice in one}
        first = {voice: one[voice][picks[voice]] for voice in one}
        second = {voice: two[voice][picks[voice]] for voice in two}
        same, other = trials(first, second, mirrored=mirrored)
        rates.append(equal_error(same[same < 0.9999], other)[0])  # an utterance drawn twice is no trial
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


@click.command()
@click.option("--seconds", default=10.0, help="Length of an utterance.")
@click.option("--utterances", "count", default=16, help="Utterances of each voice.")
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, count: int, as_json: bool) -> None:
    """Reports equal error rates and what happens at the thresholds in force."""
    model = GE2E.load(model_files_dir(load_settings()))
    wide_sounds = {voice: utterances(voice, seconds, count) for voice in VOICES}
    wide = {voice: voiceprints(model, sounds) for voice, sounds in wide_sounds.items()}
    narrow = {
        voice: voiceprints(model, [over_g711(s) for s in sounds]) for voice, sounds in wide_sounds.items()
    }
    report: list[dict[str, Any]] = []
    for name, one, two in (("16 kHz", wide, wide), ("G.711", narrow, narrow), ("across", wide, narrow)):
        mirrored = one is two
        same, other = trials(one, two, mirrored=mirrored)
        rate, at = equal_error(same, other)
        low, high = spread(one, two, mirrored=mirrored)
        report.append({
            "condition": name, "seconds": seconds, "same": len(same), "other": len(other), "eer": rate,
            "eer_95": [low, high], "eer_threshold": at,
            "same_refused": float((same < model.other).mean()),
            "same_held": float(((same >= model.other) & (same < model.same)).mean()),
            "other_passed": float((other >= model.same).mean()),
            "other_held": float(((other >= model.other) & (other < model.same)).mean()),
            "least_same": float(same.min()), "most_other": float(other.max()),
        })  # fmt: skip
    halves = two_voices(model, wide_sounds)
    if as_json:
        click.echo(json.dumps({"trials": report, "two_voices": halves}))
        return
    click.echo(f"thresholds: same at {model.same}, other below {model.other}; utterances of {seconds:g} s")
    for row in report:
        click.echo(
            f"{row['condition']:<7} EER {row['eer']:.1%} "
            f"(95 %: {row['eer_95'][0]:.1%} to {row['eer_95'][1]:.1%}) "
            f"at {row['eer_threshold']:.3f}; {row['same']} same, {row['other']} other pairs\n"
            f"        same person: {row['same_refused']:.1%} refused, {row['same_held']:.1%} held; "
            f"another: {row['other_passed']:.1%} passed, {row['other_held']:.1%} held; "
            f"least same {row['least_same']:.3f}, most other {row['most_other']:.3f}"
        )
    click.echo(f"two voices in one recording, thresholds {TWO_SPEAKERS}: {halves}")


def two_voices(model: GE2E, sounds: dict[str, list[Floats]]) -> dict[str, list[float]]:
    """Likeness of a recording's halves, for one voice and for two joined: least, median, most."""

    def alike(sound: Floats) -> float:
        whole = of_call("u", np.asarray(soxr.resample(sound, 16_000, RATE_HZ), np.float32), 16_000)
        return halves_alike(model.windows(whole.speech_16k))

    alone = [alike(np.concatenate(pair)) for made in sounds.values() for pair in itertools.pairwise(made[:6])]
    joined = [
        alike(np.concatenate((sounds[a][k], sounds[b][k])))
        for a, b in itertools.combinations(VOICES, 2)
        if {a, b} != ONE_WOMAN
        for k in range(3)
    ]
    return {
        name: [round(float(value), 3) for value in np.quantile(found, [0, 0.05, 0.5, 0.95, 1])]
        for name, found in (("one voice", alone), ("two voices", joined))
    }


if __name__ == "__main__":
    main()
