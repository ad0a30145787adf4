"""How well a caller's language is told: `python -m benchmarks.languages [--every 1] [--tune]`.

Callers are Debian's recorded prompts (asterisk-core-sounds), five speakers in as many languages, over G.711
with some noise. They go through the hall's own judge of speech and its turns, and `whisper-base` hears them
once so much speech is there: of one utterance from its beginning, or of several short ones together. What it
finds is taken as calls take it (`model.ears.language_choice`), for a plan with all five languages and for all
with two, whose callers speak one of the two or a third. Half of the callers, by a hash, are what constants
are fitted on (`--tune` prints what others would do); the table shows the other half.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr

from consent.data_dir import default_data_dir
from consent.models.model_files import models_dir
from consent.whisper.features import RATE_HZ as WHISPER_HZ
from consent.whisper.whisper import MANY, Whisper
from gateway.hall.dialogue.caller_language import ENOUGH_S, MORE_S
from gateway.hall.media.audio import HOUSE_HZ, Floats, VoiceActivity
from gateway.hall.media.turns import TurnEvent, Turns
from model.ears import language_choice
from model.ears.language_choice import chosen
from tests.model.embedded.callers import LANGUAGES, Utterance, prompts

AFTER_S: Final = (ENOUGH_S, 2.0, MORE_S)
FRAME: Final = HOUSE_HZ // 50
PAUSE_S: Final = 0.8
SHORTEST_S: Final = 0.4
SPEAKERS: Final = {folder[:2]: folder for folder in LANGUAGES}
Found = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class PromptSpeaker:
    """Somebody, and what was found after so much speech (s); nothing where they had said less."""

    who: str
    language: str
    several: bool
    """their utterances were short ones"""
    found: dict[float, Found]


def heard_after(utterances: Sequence[Floats], activity: VoiceActivity) -> dict[float, Floats]:
    """The sound that a hall has collected after `AFTER_S` of speech, float32 24 kHz."""
    turns, pieces, before_s = Turns(), [], 0.0
    rows = np.zeros(1, np.intp)
    activity.reset(0)
    wanted, found = list(AFTER_S), {}
    pause = np.zeros(round(PAUSE_S * HOUSE_HZ), np.float32)
    sound = np.concatenate([np.concatenate((one, pause)) for one in utterances])
    narrow = soxr.resample(sound, HOUSE_HZ, 8_000).astype(np.float32)
    for at in range(len(sound) // FRAME):
        judged = activity.judge(rows, narrow[None, at * 160 : (at + 1) * 160]).get(0)
        event = turns.hear(sound[at * FRAME : (at + 1) * FRAME], judged, we_talk=False)
        if turns.frames_waiting or event is not None:
            taken = turns.take()
            if taken is not None:
                pieces.append(taken)
        spoken_s = before_s + (turns.speech_s if turns.speaking or event is TurnEvent.END else 0.0)
        while wanted and spoken_s >= wanted[0]:
            found[wanted.pop(0)] = np.concatenate(pieces)
        if event is TurnEvent.END:
            before_s = spoken_s
    return found


def said(language: str, every: int) -> Iterator[tuple[str, bool, list[Floats]]]:
    """(who, several, utterances): each long prompt alone, and the short ones together."""
    short: list[Utterance] = []
    for at, prompt in enumerate(prompts(SPEAKERS[language])):
        seconds = len(prompt.pcm) / HOUSE_HZ - 0.6
        if seconds >= ENOUGH_S:
            if at % every == 0:
                yield prompt.who, False, [prompt.pcm]
        elif seconds >= SHORTEST_S:
            short.append(prompt)
    random.Random(language).shuffle(short)
    for number, at in enumerate(range(0, len(short) - 5, 6)):
        if number % every == 0:
            together = short[at : at + 6]
            yield together[0].who, True, [one.pcm for one in together]


def tuned_on(who: str) -> bool:
    return zlib.crc32(who.encode()) % 2 == 0


def callers(whisper: Whisper, every: int, tuning: bool) -> Iterator[PromptSpeaker]:
    """Those of one half; with `tuning`, of the other."""
    activity = VoiceActivity(1)
    spent_s, asked = 0.0, 0
    for language in SPEAKERS:
        for who, several, utterances in said(language, every):
            if tuned_on(who) is not tuning:
                continue
            sounds = heard_after(utterances, activity)
            before = time.process_time()
            found = {
                after: whisper.languages(soxr.resample(pcm, HOUSE_HZ, WHISPER_HZ))
                for after, pcm in sounds.items()
            }
            spent_s, asked = spent_s + time.process_time() - before, asked + len(found)
            if found:
                yield PromptSpeaker(who, language, several, found)
    print(f"{asked} questions, {spent_s / max(1, asked):.3f} s of a core each")


def verdict(name: str, among: Sequence[str], language: str) -> str:
    """Right, open or wrong; a stranger is right who is taken for any."""
    if not name:
        return "open"
    return "right" if name == language or (name not in among and language not in among) else "wrong"


def after_all(found: dict[float, Found], among: Sequence[str]) -> str:
    """As a call has it: what leads somewhere after `ENOUGH_S`, else what is found with more."""
    first, _ = chosen(found[ENOUGH_S], among)
    if first in among:
        return first
    return chosen(found[MORE_S], among)[0] if MORE_S in found else ""


def plans() -> dict[str, list[tuple[str, ...]]]:
    five = tuple(SPEAKERS)
    return {"five languages": [five], "two languages": list(itertools.combinations(five, 2))}


def table(people: Sequence[PromptSpeaker]) -> None:
    for kind, several in (("one utterance", False), ("short ones together", True)):
        some = [one for one in people if one.several is several]
        two = plans()["two languages"]
        for title, among in (*plans().items(), ("two languages, and they speak a third", two)):
            stranger = "third" in title
            print(f"\n{kind}, a plan with {title}")
            print(f"  {'after':>8s}{'cases':>8s}{'right':>8s}{'open':>8s}{'wrong':>8s}   wrong by language")
            for after in (*AFTER_S, None):
                count: Counter[str] = Counter()
                wrongs: Counter[str] = Counter()
                for one, plan in itertools.product(some, among):
                    if (one.language in plan) is stranger or (after or ENOUGH_S) not in one.found:
                        continue
                    if after is None:
                        name = after_all(one.found, plan)
                    else:
                        name, _ = chosen(one.found[after], plan)
                    how = verdict(name, plan, one.language)
                    count[how] += 1
                    wrongs[one.language] += how == "wrong"
                total = max(1, count.total())
                shares = "".join(f"{count[how] / total:8.1%}" for how in ("right", "open", "wrong"))
                which = ", ".join(f"{name} {number}" for name, number in wrongs.items() if number)
                told = "a call" if after is None else f"{after:.1f} s"
                print(f"  {told:>8s}{count.total():8d}{shares}   {which}", flush=True)


def tune(people: Sequence[PromptSpeaker]) -> None:
    """What other constants would do, as calls have it."""
    print("\n    sure   least  stranger |  known: right   open  wrong | strangers: right   open  wrong")
    pairs = plans()["two languages"]
    tried = itertools.product((0.9, 0.95, 0.98, 0.99), (0.0, 0.1, 0.2, 0.3), (10.0, 30.0))
    for sure, least, stranger in tried:
        choice = language_choice
        choice.SURE, choice.LEAST, choice.STRANGER = sure, least, stranger  # type: ignore[misc]  # tried out
        line = f"  {sure:6.2f}{least:8.1f}{stranger:10.0f} |"
        for known in (True, False):
            hows: Iterable[str] = (
                verdict(after_all(one.found, plan), plan, one.language)
                for one, plan in itertools.product(people, pairs)
                if (one.language in plan) is known and ENOUGH_S in one.found
            )
            count = Counter(hows)
            line += " " * 10 + "".join(
                f"{count[how] / count.total():7.2%}" for how in ("right", "open", "wrong")
            )
        print(line, flush=True)


@click.command()
@click.option("--every", default=1, help="only every n-th caller")
@click.option("--tune", "tuning", is_flag=True, help="what other constants would do, on the other half")
def main(every: int, tuning: bool) -> None:
    """Right, left open and wrong, after so much speech."""
    data_dir = Path(os.environ.get("VOICEGATE_DATA_DIR") or default_data_dir())
    named = os.environ.get("VOICEGATE_MODELS")
    whisper = Whisper.load(MANY, models_dir(data_dir, Path(named) if named else None))
    people = list(callers(whisper, every, tuning))
    (tune if tuning else table)(people)


if __name__ == "__main__":
    main()
