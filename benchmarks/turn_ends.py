"""When callers' turns are taken to end, and what it costs them: `python -m benchmarks.turn_ends`.

Callers are Debian's recorded prompts (asterisk-core-sounds-en): sentences with the speaker's own pauses, and
telephone numbers put together from the same speaker's digits, with pauses of .3 to .8 s after every third.
Synthetic callers say the demo plan's phrases, which is what a plan answers. All of it over G.711 (mu-law),
20 ms by 20 ms through the hall's own voice activity, its `Turns` and the engine's `Listening`; words by
Whisper's tiny.en. The last rows are of an engine that hears nothing early (Chroma): the hall asks the ears,
and knows no plan (`gateway/hall/dialogue/early_words.py`). Time is the sound's: what a decode takes is the
CPU time that it took here, as on a core that waits for it.

A turn is *cut* when it is ended while the caller has more to say. The wait is from the last sound to the end
of the turn. The rows: the clock alone, as before words; then words, with several waits.

Then what is said over our voice: asides ("okay", "mm-hm") that must not cut it, and sentences that must, with
the time from the caller's first sound to the cut.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr

from consent.data_dir import default_data_dir
from consent.models.model_files import models_dir
from consent.whisper.features import RATE_HZ as WHISPER_HZ
from consent.whisper.whisper import ENGLISH as WHISPER
from consent.whisper.whisper import Whisper
from gateway.hall.calls.call_ear import APPEND_FRAMES
from gateway.hall.dialogue.early_words import told_by
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, Floats, VoiceActivity
from gateway.hall.media.turns import TurnEvent, TurnRules, Turns
from gateway.rtp.media.rate_changer import RateChanger
from model.api import EarlyHearing
from model.ears.ears_client import Ears
from model.ears.last_words import early_hearing
from model.ears.listening import Listening
from model.ears.words_heard import NO_WORDS, Words
from model.embedded.phrase_match import match
from tests.model.embedded.callers import ENGLISH, demo_phrases, espeak, hibari, telephone
from tests.needs import SOUNDS
from watermark.pcm import float_from_bytes

LEAD_S: Final = 0.5
AFTER_S: Final = 2.0
"""Line noise before and after a caller."""
ON_ITS_WAY_S: Final = 0.01
"""An answer's way from the engine to the hall."""
ASIDES: Final = ("okay", "right", "yeah", "mm hmm", "uh huh", "yes", "I see", "yeah, okay")
DIGITS: Final = tuple("0123456789")

Recognise = Callable[[Floats], tuple[Words, float]]
"""Float32 24 kHz to its words and the CPU seconds that they took."""


@dataclass(frozen=True, slots=True)
class LineUtterance:
    """One utterance on a line. `pcm` float32 24 kHz with noise around it."""

    kind: str
    name: str
    pcm: Floats


@dataclass(eq=False, slots=True)
class HeardCaller:
    """A caller as the hall hears it, before anybody waits for anything."""

    caller: LineUtterance
    frames: list[Floats]
    judged: list[float | None]
    """of each frame's end: the probability of speech, when a window was completed by it"""
    starts_s: float
    ends_s: float
    decoded: dict[int, tuple[Words, float]] = field(default_factory=dict)
    """words by the samples that they are of"""


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """What became of a caller's turn."""

    cut: bool
    wait_s: float
    """from the last sound to the end"""
    asked: int
    """decodes"""
    spoken_s: float
    """from the first sound until it counted as a turn; infinite when it never did"""


# ── callers ──────────────────────────────────────────────────────────────────────────────────────────────


def line(voice: Floats, seed: str) -> Floats:
    """float32 8 kHz to a caller on a telephone, 24 kHz."""
    sound = telephone(voice, seed)  # brings .3 s of the line before and after
    chance = np.random.default_rng(len(sound))
    noise = float(np.sqrt(np.mean(sound[: HOUSE_HZ // 5] ** 2)))
    before, after = (
        chance.normal(0, noise, round(seconds * HOUSE_HZ)).astype(np.float32) for seconds in (LEAD_S, AFTER_S)
    )
    return np.concatenate((before, sound, after))


def recorded(path: Path) -> Floats:
    """A prompt, float32 8 kHz, without the quiet around it."""
    with wave.open(str(path)) as file:
        pcm = float_from_bytes(file.readframes(file.getnframes()))
    loud = np.flatnonzero(np.abs(pcm) > 0.02 * np.max(np.abs(pcm)))
    found: Floats = pcm[loud[0] : loud[-1] + 1]
    return found


def dictated(count: int) -> Iterator[LineUtterance]:
    """Telephone numbers of seven to eleven digits."""
    said = [recorded(SOUNDS / ENGLISH / "digits" / f"{digit}.wav") for digit in DIGITS]
    for number in range(count):
        chance = np.random.default_rng(number)
        parts: list[Floats] = []
        digits = chance.integers(0, 10, chance.integers(7, 12))
        for at, digit in enumerate(digits.tolist()):
            if at:
                pause_s = chance.uniform(0.3, 0.8) if at % 3 == 0 else chance.uniform(0.03, 0.1)
                parts.append(np.zeros(round(pause_s * VAD_HZ), np.float32))
            parts.append(said[digit])
        name = "".join(map(str, digits.tolist()))
        yield LineUtterance("dictated", name, line(np.concatenate(parts), name))


def sentences(count: int) -> Iterator[LineUtterance]:
    """What a human says in whole sentences, with the pauses that it has."""
    folder = SOUNDS / ENGLISH
    paths = [
        path for path in sorted(folder.glob("*.wav")) if not re.search("beep|tone|monkey|silence", path.stem)
    ]
    good = [path for path in paths if 1.2 <= (path.stat().st_size - 44) / 2 / VAD_HZ <= 9.0]
    for path in good[:: max(1, len(good) // count)][:count]:
        yield LineUtterance("sentences", path.stem, line(recorded(path), path.stem))


def questions(count: int) -> Iterator[LineUtterance]:
    """The demo plan's phrases by synthetic callers: what a plan answers."""
    phrases = sorted(demo_phrases())
    accents = ("en-us", "en-gb", "en-us+f2", "en-us+m3")
    for at, phrase in enumerate(phrases[:: max(1, 2 * len(phrases) // count)]):
        accent = accents[at % len(accents)]
        yield LineUtterance("questions", phrase, line(espeak(phrase, accent, 150), phrase + accent))
        yield LineUtterance("questions", phrase, line(hibari(phrase), phrase))


def asides() -> Iterator[LineUtterance]:
    """What callers say to let us go on, by synthetic voices."""
    for text in ASIDES:
        for accent in ("en-us", "en-gb", "en-us+f2"):
            yield LineUtterance("asides", text, line(espeak(text, accent, 150), text + accent))
        yield LineUtterance("asides", text, line(hibari(text), text))


def heard(callers: Sequence[LineUtterance]) -> list[HeardCaller]:
    """Their frames and judgements, all at once as a hall does it."""
    frame = round(HOUSE_HZ * FRAME_S)
    longest = max(len(caller.pcm) for caller in callers) // frame + 1
    rows = np.arange(len(callers))
    activity, narrow = VoiceActivity(len(callers)), RateChanger(HOUSE_HZ, VAD_HZ, len(callers))
    block = np.stack([np.pad(c.pcm, (0, longest * frame - len(c.pcm)), mode="wrap") for c in callers])
    found = []
    for caller, sound in zip(callers, block, strict=True):
        edge = round((LEAD_S + 0.3) * HOUSE_HZ), len(caller.pcm) - round((AFTER_S + 0.3) * HOUSE_HZ)
        found.append(
            HeardCaller(caller, np.split(sound, longest), [], edge[0] / HOUSE_HZ, edge[1] / HOUSE_HZ)
        )
    for at in range(longest):
        judged = activity.judge(rows, narrow.change(rows, block[:, at * frame : (at + 1) * frame]))
        for row, one in enumerate(found):
            one.judged.append(judged.get(row))
    return found


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────


def recogniser(directory: Path) -> Recognise:
    """Whisper's tiny.en from a directory of model files."""
    whisper = Whisper.load(WHISPER, directory)

    def words(pcm: Floats) -> tuple[Words, float]:
        began = time.process_time()  # it computes in a thread of its own
        found = whisper.transcribe(soxr.resample(pcm, HOUSE_HZ, WHISPER_HZ), "en")
        took_s = time.process_time() - began
        sure = math.exp(found.log_probability)
        return Words(found.text, "en", sure, len(pcm) / HOUSE_HZ, found.refused), took_s

    return words


class TimedEars(Ears):
    """Answers when the words would have been there; time is told by `run`."""

    def __init__(  # without the process of `Ears`
        self, one: HeardCaller, words: Recognise | None, *, plan: bool = True
    ) -> None:
        self._one = one
        self._plan = plan
        self._words = words
        self._due: list[tuple[float, asyncio.Future[None]]] = []
        self.now = 0.0
        self.asked = 0
        self.early: EarlyHearing | None = None
        self.listening = Listening(self, self._tell)

    async def transcribe(
        self,
        pcm: Floats,
        language: str | None = "en",
        *,
        phrases: Sequence[str] = (),
        patient: bool = False,
    ) -> Words:
        if self._words is None:
            return NO_WORDS
        self.asked += 1
        if len(pcm) not in self._one.decoded:
            self._one.decoded[len(pcm)] = self._words(pcm)
        words, took_s = self._one.decoded[len(pcm)]
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._due.append((self.now + took_s + ON_ITS_WAY_S, there))
        await there
        return words

    def _tell(self, words: Words) -> None:
        """As the embedded engine does, or as the hall for an engine that does not."""
        if self._plan:
            early = early_hearing(words, answered=match(words, list(demo_phrases())).sure)
        else:
            early = told_by(words)
        if early is not None and self._words is not None:
            self.early, self.listening.open = early, early.state == "unfinished"

    async def run(self, now: float) -> None:
        """It is `now`: what is due is told."""
        self.now = now
        for due, answer in self._due:
            if due <= now and not answer.done():
                answer.set_result(None)
        for _ in range(4):  # the answer, the task that waits for it, and who is told
            await asyncio.sleep(0)

    async def hear(self, sound: Floats) -> None:
        self.listening.hear(sound, ())
        for _ in range(2):
            await asyncio.sleep(0)


async def turn(
    one: HeardCaller,
    rules: TurnRules,
    words: Recognise | None,
    *,
    over_us: bool = False,
    plan: bool = True,
) -> TurnOutcome:
    """One caller's turn, to its first end."""
    turns, engine = Turns(rules), TimedEars(one, words, plan=plan)
    spoken_s = float("inf")
    for at, (frame, judged) in enumerate(zip(one.frames, one.judged, strict=True)):
        now = (at + 1) * FRAME_S
        await engine.run(now)
        we_talk = over_us and spoken_s == float("inf")
        event = turns.hear(frame, judged, we_talk=we_talk, early=engine.early, knows_asides=words is not None)
        if event is not None or turns.frames_waiting >= APPEND_FRAMES or turns.pausing:
            sound = turns.take()
            if sound is not None:
                await engine.hear(sound)
        if event is TurnEvent.SPEECH:
            spoken_s = now - one.starts_s
        elif event in (TurnEvent.END, TurnEvent.TRIFLE):
            engine.listening.clear()
            wait_s = now - one.ends_s
            return TurnOutcome(wait_s < 0.0, wait_s, engine.asked, spoken_s)
    return TurnOutcome(False, AFTER_S, engine.asked, spoken_s)


def outcomes(
    judged: Sequence[HeardCaller], rules: TurnRules, words: Recognise | None, **how: bool
) -> list[TurnOutcome]:
    async def all_of_them() -> list[TurnOutcome]:
        return [await turn(one, rules, words, **how) for one in judged]

    return asyncio.run(all_of_them())


# ── the tables ───────────────────────────────────────────────────────────────────────────────────────────


def ends(kinds: dict[str, list[HeardCaller]], words: Recognise, only: str = "") -> None:
    """Prints the curve over the waits; the rows whose names hold `only`."""
    base = TurnRules()
    clock = [replace(base, plain_s=wait_s, trifle_s=wait_s) for wait_s in (0.2, 0.25, 0.35, 0.5, 0.7, 0.9)]
    ours = [base]
    ours += [replace(base, answered_s=wait_s) for wait_s in (0.15, 0.25)]
    ours += [replace(base, plain_s=wait_s) for wait_s in (0.35, 0.4, 0.6)]
    ours += [replace(base, unfinished_s=wait_s) for wait_s in (0.8, 1.0, 1.2)]
    click.echo(
        "| rule | numbers cut | sentences cut | all cut "
        "| wait, questions p50 / p90 | sentences | numbers | decodes |"
    )
    rows: list[tuple[str, TurnRules, Recognise | None, bool]] = []
    rows += [(f"clock {r.plain_s:.2f}", r, None, True) for r in clock]
    rows += [(f"words {_waits(r)}", r, words, True) for r in ours]
    halls = [base, *(replace(base, plain_s=wait_s) for wait_s in (0.35, 0.4, 0.45))]
    rows += [(f"no plan: words {_waits(r)}", r, words, False) for r in halls]
    for name, rules, by, plan in rows:
        if only and only not in name:
            continue
        found = {kind: outcomes(judged, rules, by, plan=plan) for kind, judged in kinds.items()}
        every = [one for each in found.values() for one in each]
        waits = {
            kind: [one.wait_s for one in each if not one.cut] or [np.nan] for kind, each in found.items()
        }
        click.echo(
            f"| {name} | {_share(found['dictated'])} | {_share(found['sentences'] + found['questions'])} "
            f"| {_share(every)} | {_two(waits['questions'])} | {_two(waits['sentences'])} "
            f"| {_two(waits['dictated'])} | {np.mean([one.asked for one in every]):.2f} |"
        )


def barges(said: list[HeardCaller], sentences: list[HeardCaller], words: Recognise) -> None:
    """Prints what cuts our voice, and how soon."""
    click.echo("| rule | asides that cut us | sentences that cut us | after, s p50 / p90 |")
    base = TurnRules()
    for name, rules, by in [
        ("clock 0.32", base, None),
        *((f"words, at most {s:.2f}", replace(base, barge_s=s), words) for s in (0.4, 0.48, 0.56, 0.64, 0.8)),
    ]:
        some = outcomes(said, rules, by, over_us=True)
        cuts = [one.spoken_s for one in outcomes(sentences, rules, by, over_us=True)]
        cut = [seconds for seconds in cuts if np.isfinite(seconds)]
        click.echo(
            f"| {name} | {sum(np.isfinite(one.spoken_s) for one in some)} of {len(some)} "
            f"| {len(cut)} of {len(cuts)} | {_two(cut)} |"
        )


def _waits(rules: TurnRules) -> str:
    return f"{rules.answered_s:.2f} / {rules.plain_s:.2f} / {rules.unfinished_s:.2f}"


def _share(found: list[TurnOutcome]) -> str:
    return f"{sum(one.cut for one in found) / max(1, len(found)):.1%}"


def _two(seconds: Sequence[float]) -> str:
    p50, p90 = np.percentile(seconds, (50, 90))
    return f"{p50:.2f} / {p90:.2f}"


def report(words: Recognise, count: int, only: str = "") -> None:
    """Prints both tables; with `only`, some rows of the first one."""
    made = {
        "dictated": list(dictated(count // 2)),
        "sentences": list(sentences(2 * count)),
        "questions": list(questions(count)),
    }
    kinds = {kind: heard(callers) for kind, callers in made.items()}
    click.echo(", ".join(f"{len(judged)} {kind}" for kind, judged in kinds.items()))
    ends(kinds, words, only)
    if only:
        return
    every = [one for judged in kinds.values() for one in judged]
    took = [seconds for one in every for _, seconds in one.decoded.values()]
    click.echo(f"a decode: {np.mean(took):.3f} CPU-s in the mean, p90 {np.percentile(took, 90):.3f}")
    barges(heard(list(asides())), kinds["sentences"], words)


@click.command()
@click.option("--count", default=80, show_default=True, help="half as many numbers, twice as many sentences")
@click.option("--models", type=click.Path(path_type=Path), help="model files, if not the data directory's")
@click.option("--only", default="", help='rows whose names hold this, as "no plan"')
def main(count: int, models: Path | None, only: str) -> None:
    """Ends of turns, and interruptions."""
    report(recogniser(models_dir(default_data_dir(), models)), count, only)


if __name__ == "__main__":
    main()
