"""What becomes of statements that machines read, judged by what was heard, and by the sound beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from benchmarks.consent_speakers import over_g711
from benchmarks.read_statements import CHANGES, StatementVoice, ToRead, sounds, to_read
from benchmarks.remembered_hearing import RememberingRecogniser
from consent.checks.sound import Floats
from consent.checks.words import WordsUnknown
from consent.statements.comparison import NEAR, HeardText, Near, match
from consent.statements.heard_place import NEVER

LINES: Final = ("16 kHz", "G.711")
VERDICTS: Final = ("passed", "held", "refused")
JUDGES: Final = ("heard", "weighed")
"""By what was heard alone; and with the sound asked about what was not."""
NOWHERE: Final = Near(-np.inf, -np.inf, -np.inf)
ANYWHERE: Final = Near(np.inf, np.inf, np.inf)
ALIKE: Final = ("alike name", "alike company")
"""Changes that no ear tells from a slip of the recogniser: people may be asked about them."""
TRIED: Final = {"words": np.arange(0.0, 24.5, 1.0), "digits": np.arange(0.0, 6.5, 0.5),
                "drawn": np.arange(0.0, 14.5, 1.0)}  # fmt: skip

Verdict = Literal["passed", "held", "refused"]


@dataclass(frozen=True)
class ReadStatement:
    """One statement as it was read, heard and judged."""

    voice: StatementVoice
    line: str
    reading: ToRead
    heard: HeardText
    unknown: str
    """why the recogniser could not tell; empty where it could"""
    verdicts: dict[str, tuple[Verdict, str]]
    """with the reason, by `JUDGES`"""
    seconds: float
    cpu_s: float


@cache
def recogniser() -> RememberingRecogniser:
    return RememberingRecogniser()


def readings(voice: StatementVoice, count: int, changes: int, speakers: Path | None) -> list[ReadStatement]:
    """One voice's statements, heard and judged."""
    made = list(to_read(voice, count, changes))
    out = []
    for reading, wide in zip(made, sounds(voice, [one.text for one in made], speakers), strict=True):
        for line, sound in (("16 kHz", wide), *(() if reading.change else (("G.711", over_g711(wide)),))):
            began = time.process_time()
            heard, unknown = HeardText(""), ""
            try:
                heard = recogniser().transcribe(sound, voice.language)
            except WordsUnknown as error:
                unknown = str(error)
            verdicts: dict[str, tuple[Verdict, str]] = {
                judge: ("held", unknown) if unknown else judged(voice, sound, reading, heard, near)
                for judge, near in zip(JUDGES, (NOWHERE, NEAR), strict=True)
            }  # fmt: skip
            seconds = len(sound) / 16_000
            out.append(ReadStatement(
                voice, line, reading, heard, unknown, verdicts, seconds, time.process_time() - began
            ))  # fmt: skip
    return out


def judged(
    voice: StatementVoice, sound: Floats, reading: ToRead, heard: HeardText, near: Near
) -> tuple[Verdict, str]:
    """The check's verdict, and why."""
    weigh = partial(recogniser().log_likelihoods, sound, voice.language)
    found = match(reading.wanted, heard, weigh, near)
    return "refused" if not found.said else "held" if found.doubt else "passed", found.why or found.doubt


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────


def shares(found: Sequence[ReadStatement], judge: str) -> str:
    count = Counter(one.verdicts[judge][0] for one in found)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS)


def report(found: Sequence[ReadStatement]) -> Iterator[str]:
    """Each voice, each half, and each kind of change, by both judges."""
    yield from _rows("voice", found, lambda one: f"{one.voice.half}: {one.voice}")
    plain = [one for one in found if one.voice.synthesizer != "espeak-ng"]
    yield from _rows("without espeak-ng", plain, lambda one: one.voice.half)
    yield from _rows("all", found, lambda one: "all")
    for half in ("tuning", "kept"):
        for change in CHANGES:
            changed = [one for one in found if one.reading.change == change and one.voice.half == half]
            yield f"{half}, {change}: " + "; ".join(f"{judge}: {shares(changed, judge)}" for judge in JUDGES)
    cpu = sum(one.cpu_s for one in found) / sum(one.seconds for one in found)
    yield f"CPU {cpu:.3f} s per second of statement, where it was not heard before"


def _rows(title: str, found: Sequence[ReadStatement], group: Callable[[ReadStatement], str]) -> Iterator[str]:
    for name in dict.fromkeys(map(group, found)):
        mine = [one for one in found if group(one) == name]
        for judge in JUDGES:
            true = [[one for one in mine if not one.reading.change and one.line == line] for line in LINES]
            changed = [one for one in mine if one.reading.change]
            yield (
                f"{title}, {name}, {judge}: true, 16 kHz: {shares(true[0], judge)}; "
                f"true, G.711: {shares(true[1], judge)}; changed: {shares(changed, judge)}"
            )


# ── the bounds ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Tried:
    """What a bound does on one half."""

    bound: float
    true_refused: int
    changed_held: int
    """of the changes that an ear tells, those that the bound takes from refused to held"""


@dataclass(frozen=True)
class Weighings:
    """Readings that bounds could save, with what the sound said of each text that it was asked about."""

    found: tuple[tuple[ReadStatement, dict[tuple[int, str], float]], ...]

    def tried(self, near: Near, bound: float) -> Tried:
        refused = held = 0
        for one, told in self.found:
            weigh = partial(_remembered, told)
            said = match(one.reading.wanted, one.heard, weigh, near).said
            refused += not one.reading.change and not said
            held += bool(one.reading.change) and one.reading.change not in ALIKE and said
        return Tried(bound, refused, held)


def _remembered(told: dict[tuple[int, str], float], piece: int, texts: Sequence[str]) -> list[float]:
    return [told.get((piece, text), NEVER) for text in texts]


def weighed(
    voice: StatementVoice, count: int, changes: int, speakers: Path | None
) -> list[tuple[ReadStatement, dict[tuple[int, str], float]]]:
    """One voice's refused readings that bounds could save, and what the sound said of each place."""
    made = {one.text: one for one in to_read(voice, count, changes)}
    wide = dict(zip(made, sounds(voice, list(made), speakers), strict=True))
    out = []
    for one in readings(voice, count, changes, speakers):
        if one.verdicts["heard"][0] != "refused":
            continue
        sound = wide[one.reading.text] if one.line == "16 kHz" else over_g711(wide[one.reading.text])
        told: dict[tuple[int, str], float] = {}
        ask = partial(recogniser().log_likelihoods, sound, voice.language)

        def weigh(
            piece: int, texts: Sequence[str],
            told: dict[tuple[int, str], float] = told, ask: Callable[..., list[float]] = ask,
        ) -> list[float]:  # fmt: skip
            told |= {(piece, text): value for text, value in zip(texts, ask(piece, texts), strict=True)}
            return [told[piece, text] for text in texts]

        said = [match(one.reading.wanted, one.heard, weigh, near).said for near in (NOWHERE, ANYWHERE)]
        if said[1]:  # what stays refused under any bounds is known
            out.append((one, told))
    return out


def fitted(tuning: Weighings) -> Iterator[str]:
    """Each bound's curve, and the bound that is chosen: the middle of those that do best."""
    near = NOWHERE
    for name in ("words", "drawn", "digits"):
        tried = [tuning.tried(replace(near, **{name: float(bound)}), float(bound)) for bound in TRIED[name]]
        yield from (
            f"{name} {one.bound:.1f}: {one.true_refused} true refused, {one.changed_held} changed held"
            for at, one in enumerate(tried)
            if at == 0 or _outcome(one) != _outcome(tried[at - 1])
        )
        good = [one for one in tried if one.changed_held == tuning.tried(near, 0.0).changed_held]
        best = [one for one in good if one.true_refused == min(each.true_refused for each in good)]
        chosen = round((best[0].bound + best[-1].bound) / 2, 2)
        near = replace(near, **{name: chosen})
        yield f"{name}: {chosen} of {best[0].bound:.1f} to {best[-1].bound:.1f}"
    yield f"{near}; in force: {NEAR}"


def _outcome(one: Tried) -> tuple[int, int]:
    return one.true_refused, one.changed_held
