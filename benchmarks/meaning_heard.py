"""What callers are taken to mean when they are heard over a telephone, beside the engine without weights.

    python -m benchmarks.meaning_heard [--sentences 40]

Synthetic callers say sentences of the one hand to heads that were fitted on the other's: espeak-ng in two
accents, hibari's voice, and flite's if that program is installed (Debian: flite). No constant of a head was
fitted on sound. Humans are the prompts of asterisk-core-sounds. They ask for nothing that the demo plan
knows: what is asked about or taken of them is a mistake. Some of them are then made answers of a plan
themselves, with their words as its only examples: what is lost there is lost by hearing. All of it comes over
G.711, once more with six people talking 15 dB below, is heard by Whisper's tiny.en and judged; the same sound
goes to pocketsphinx with the plan's phrases, which is the engine without weights.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr
from numpy.typing import NDArray

from benchmarks.ears_sounds import WHISPER_HZ, Babble, english
from benchmarks.meaning import (
    HANDS,
    HEADING,
    AskedSentences,
    Constants,
    Meant,
    chances,
    demo_plan,
    judged,
    measured,
    said_to,
)
from consent.whisper.whisper import ENGLISH, Whisper
from model.api import RATE_HZ, Floats
from model.ears.evidence import weigh
from model.ears.recogniser import Recogniser
from model.meaning.head import AnswerHead, plain
from model.meaning.heads import Examples, Heads
from tests.model.embedded.callers import LINE_HZ, espeak, hibari, telephone
from tests.needs import MODELS
from watermark.pcm import float_from_bytes

BABBLE_DB: Final = 15.0
EVERY_PROMPT: Final = 2
LISTED: Final = 3
"""Every so many-th of the prompts is an answer."""


@dataclass(frozen=True, slots=True)
class SpokenSentence:
    """Somebody says `text` on the telephone; `wanted` as `AskedSentences` has it."""

    text: str
    wanted: str
    pcm: Floats
    """24 kHz, after the line"""


def flite(text: str, voice: str) -> Floats:
    """float32 8 kHz"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "said.wav")
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        with wave.open(str(path)) as file:
            pcm = float_from_bytes(file.readframes(file.getnframes()))
            return soxr.resample(pcm, file.getframerate(), LINE_HZ).astype(np.float32)


def callers() -> dict[str, Callable[[str], Floats]]:
    """Who speaks: a text -> float32 8 kHz."""
    voices: dict[str, Callable[[str], Floats]] = {
        "espeak-ng, US": lambda text: espeak(text, "en-us"),
        "espeak-ng, GB": lambda text: espeak(text, "en-gb", 150),
        "hibari": hibari,
    }
    if shutil.which("flite") is None:
        print("flite is not installed: its voices do not call")
        return voices
    return {
        **voices,
        "flite, slt": lambda text: flite(text, "slt"),
        "flite, rms": lambda text: flite(text, "rms"),
    }


class TelephoneLine:
    """G.711 at some level and with some noise of the line; with people who talk beside, or without."""

    def __init__(self, babble: Babble | None) -> None:
        self._babble = babble

    def __call__(self, pcm: Floats, seed: str) -> Floats:
        """8 kHz -> 24 kHz"""
        sound = telephone(pcm, seed)
        if self._babble is None:
            return sound
        wide = soxr.resample(sound, RATE_HZ, WHISPER_HZ).astype(np.float32)
        noisy = self._babble(wide, np.random.default_rng(len(sound)))
        return soxr.resample(noisy, WHISPER_HZ, RATE_HZ).astype(np.float32)


def heard_by_whisper(whisper: Whisper, said: list[SpokenSentence]) -> list[str]:
    sounds = (soxr.resample(one.pcm, RATE_HZ, WHISPER_HZ).astype(np.float32) for one in said)
    return [whisper.transcribe(sound, "en").text for sound in sounds]


def by_meaning(
    heads: Heads, head: AnswerHead, said: list[SpokenSentence], texts: list[str]
) -> AskedSentences:
    """What was heard, for `judged`. A silence is a sentence without words."""
    return measured(heads, head, [plain(text) or "." for text in texts], [one.wanted for one in said])


def by_phrase(recogniser: Recogniser, answers: list[Examples], said: list[SpokenSentence]) -> Meant:
    """As the engine without weights hears it."""
    phrases = {phrase: answer.intent for answer in answers for phrase in answer.ask}
    found = [recogniser.align(one.pcm, list(phrases)) for one in said]
    hearings = [None if one is None else weigh(one) for one in found]
    taken = np.array([phrases[h.phrase] if h is not None and h.phrase else "" for h in hearings])
    sure = np.array([h is not None and h.sure for h in hearings])
    wanted = np.array([one.wanted for one in said])
    known, negative = np.isin(wanted, [answer.intent for answer in answers]), wanted == "-"

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
        return float(np.mean(of[among])) if among.any() else 0.0

    return Meant(
        int(known.sum()), share((taken == wanted) & sure, known), share((taken == wanted) & ~sure, known),
        share((taken != "") & (taken != wanted) & sure, known), share((taken != "") & sure, negative),
        share((taken != "") & ~sure, negative), 0.0, 0.0,
    )  # fmt: skip


def sentences(heads: Heads, count: int) -> Iterator[tuple[str, AnswerHead, list[tuple[str, str]]]]:
    """Each way: its name, the head of the one hand, and `count` sentences of the other."""
    for fitted_on, asked_with in (HANDS, HANDS[::-1]):
        every = said_to(heads, demo_plan(), fitted_on, asked_with)
        known = [(t, w) for t, w in zip(every.texts, every.wanted, strict=True) if w in every.names]
        negative = [(t, w) for t, w in zip(every.texts, every.wanted, strict=True) if w == "-"]
        some = [
            pool[:: max(1, len(pool) // size)][:size]
            for pool, size in ((known, count), (negative, count // 2))
        ]
        yield f"{fitted_on} -> {asked_with}", heads.fit(demo_plan(), [fitted_on]), [*some[0], *some[1]]


@click.command()
@click.option("--sentences", "count", default=40, help="how many sentences each caller says of each hand")
def main(count: int) -> None:
    """What callers are taken to mean over a telephone."""
    begun = time.process_time()
    heads, recogniser = Heads.load(MODELS), Recogniser()
    whisper = Whisper.load(ENGLISH, MODELS)
    plan = demo_plan()
    voices = callers()
    ways = list(sentences(heads, count))
    print(HEADING)
    for name, head, some in ways:
        said = [SpokenSentence(text, wanted, np.empty(0, np.float32)) for text, wanted in some]
        texts = by_meaning(heads, head, said, [text for text, _ in some])
        print(judged(texts, Constants.shipped()).row(f"{name}: as text"))
    for line_name, line in (
        ("G.711", TelephoneLine(None)),
        (f"babble {BABBLE_DB:g} dB", TelephoneLine(Babble(BABBLE_DB))),
    ):
        for voice_name, voice in voices.items():
            for name, head, some in ways:
                said = [
                    SpokenSentence(text, wanted, line(voice(text), voice_name + text))
                    for text, wanted in some
                ]
                heard = by_meaning(heads, head, said, heard_by_whisper(whisper, said))
                print(
                    judged(heard, Constants.shipped()).row(f"{line_name}, {voice_name}, {name}"), flush=True
                )
                print(by_phrase(recogniser, plan, said).row("  phrases alone"), flush=True)
        head = heads.fit(plan)
        prompts = english(EVERY_PROMPT)
        sounds = [soxr.resample(one.pcm, WHISPER_HZ, LINE_HZ).astype(np.float32) for one in prompts]
        said = [
            SpokenSentence(" ".join(one.said), "-", line(sound, one.name))
            for one, sound in zip(prompts, sounds, strict=True)
        ]
        written = by_meaning(heads, head, said, [one.text for one in said])
        heard = by_meaning(heads, head, said, heard_by_whisper(whisper, said))
        print(judged(written, Constants.shipped()).row("human prompts as text (of the plan: nothing)"))
        print(judged(heard, Constants.shipped()).row(f"{line_name}, human prompts"))
        print(by_phrase(recogniser, plan, said).row("  phrases alone"), flush=True)
        print(f"{'':46s} judged as their text is: {agreeing(written, heard):.1%}")
        listed = [replace(one, wanted=f"p{k}") for k, one in enumerate(said) if k % LISTED == 0]
        own = [Examples(one.wanted, (one.text,)) for one in listed]
        head = heads.fit(own)
        heard = by_meaning(heads, head, listed, heard_by_whisper(whisper, listed))
        print(judged(heard, Constants.shipped()).row(f"{line_name}, humans who say a plan's examples"))
        print(by_phrase(recogniser, own, listed).row("  phrases alone"), flush=True)
    print(f"{time.process_time() - begun:.0f} s of CPU")


def agreeing(written: AskedSentences, heard: AskedSentences) -> float:
    """How many are judged the same, heard and written."""
    same = [_verdicts(one) for one in (written, heard)]
    return float(np.mean([a == b for a, b in zip(*same, strict=True)]))


def _verdicts(some: AskedSentences) -> list[tuple[str | None, bool]]:
    by = Constants.shipped()
    verdicts: list[tuple[str | None, bool]] = []
    for each in chances(some, by):
        best = int(each.argmax())
        if each[best] < by.possible:
            verdicts.append((None, False))
        else:
            verdicts.append((some.names[best], bool(each[best] >= by.sure)))
    return verdicts


if __name__ == "__main__":
    main()
