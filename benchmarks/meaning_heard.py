"""What callers are taken to mean when they are heard over a telephone, beside the engine without weights.

    python -m benchmarks.meaning_heard [--sentences 40] [--speakers FOLDER]
    python -m benchmarks.meaning_heard --misheard --speakers FOLDER    makes prompts/library-misheard.tsv

Synthetic callers say sentences of the one hand to heads that were fitted on the other's: flite, festival,
Piper, espeak-ng and hibari; those that are not installed are left out (Debian: flite, festival,
festvox-kallpc16k, festvox-us-slt-hts). Piper and Pico need the environment in `FOLDER/env` that
`benchmarks.synthetic_corpus` makes. No constant of a head was fitted on their sound: what doubtful words are
worth was fitted on Pico, which said other sentences (`--misheard`). Words that are wrong stand beside each
voice, because no meaning is found in words that were not heard.

Humans are the prompts of asterisk-core-sounds. They ask for nothing that the demo plan
knows: what is asked about or taken of them is a mistake. Some of them are then made answers of a plan
themselves, with their words as its only examples: what is lost there is lost by hearing. All of it comes over
G.711, once more with six people talking 15 dB below, is heard by Whisper's tiny.en and judged; the same sound
goes to pocketsphinx with the plan's phrases, which is the engine without weights.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr
from numpy.typing import NDArray

from benchmarks.ears_sounds import WHISPER_HZ, Babble, english, words, wrong_words
from benchmarks.meaning import (
    ANNOUNCED,
    HANDS,
    HEADING,
    MISHEARD,
    AskedSentences,
    Constants,
    Meant,
    chances,
    demo_plan,
    judged,
    measured,
    said_to,
    taken_for_sure,
    written_by,
)
from benchmarks.read_statements import spoken
from consent.checks.sound import read
from consent.whisper.whisper import ENGLISH, Whisper
from model.api import RATE_HZ, Floats
from model.ears.evidence import weigh
from model.ears.recogniser import Recogniser
from model.meaning.head import AnswerHead, plain
from model.meaning.heads import Examples, Heads
from tests.model.embedded.callers import LINE_HZ, espeak, hibari, telephone
from tests.needs import MODELS

BABBLE_DB: Final = 15.0
KEPT: Final = 40
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


Speak = Callable[[list[str]], list[Floats]]
"""Texts -> float32 8 kHz each."""


def by_program(argv: Callable[[str, Path], list[str]]) -> Speak:
    """A synthesizer that is a program: `argv` for a text and the WAV file that it writes."""

    def speak(texts: list[str]) -> list[Floats]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "said.wav")
            sounds = []
            for text in texts:
                subprocess.run(argv(text, path), check=True)
                sounds.append(_narrow(read(path).at_16k))
            return sounds

    return speak


def flite(voice: str) -> Speak:
    return by_program(lambda text, path: ["flite", "-voice", voice, "-t", text, "-o", str(path)])


def festival(voice: str) -> Speak:
    def argv(text: str, path: Path) -> list[str]:
        synthesize = f'(set! said (Utterance Text "{text}"))(utt.synth said)'
        return ["festival", "-b", f'(begin ({voice}){synthesize}(utt.save.wave said "{path}" \'riff))']

    return by_program(argv)


def packaged(synthesizer: str, voice: str, speakers: Path) -> Speak:
    """One of `benchmarks.synthetic_speak`."""
    return lambda texts: [_narrow(sound) for sound in spoken(synthesizer, voice, texts, speakers)]


def _narrow(at_16k: Floats) -> Floats:
    return soxr.resample(at_16k, WHISPER_HZ, LINE_HZ).astype(np.float32)


def callers(speakers: Path | None) -> dict[str, Speak]:
    """Who speaks."""
    voices: dict[str, Speak] = {
        "hibari": lambda texts: [hibari(text) for text in texts],
        "espeak-ng, US": lambda texts: [espeak(text, "en-us") for text in texts],
        "espeak-ng, GB": lambda texts: [espeak(text, "en-gb", 150) for text in texts],
    }
    programs = {
        "flite, slt": ("flite", lambda: flite("slt")),
        "flite, rms": ("flite", lambda: flite("rms")),
        "festival, kal": ("festival", lambda: festival("voice_kal_diphone")),
        "festival, slt": ("festival", lambda: festival("voice_cmu_us_slt_arctic_hts")),
    }
    for name, (program, speak) in programs.items():
        if shutil.which(program) is None:
            print(f"{program} is not installed: {name} does not call")
            continue
        try:
            speak()(["hello"])
        except subprocess.CalledProcessError:
            print(f"{program} does not have the voice: {name} does not call")
        else:
            voices[name] = speak()
    if speakers is None:
        print("without --speakers, Piper does not call")
    else:
        voices["Piper, joe"] = packaged("piper", "joe", speakers)
    return voices


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


def heard_by_whisper(whisper: Whisper, said: list[SpokenSentence]) -> list[tuple[str, float]]:
    """The words of each sound, and the confidence in them."""
    sounds = (soxr.resample(one.pcm, RATE_HZ, WHISPER_HZ).astype(np.float32) for one in said)
    found = [whisper.transcribe(sound, "en") for sound in sounds]
    return [(one.text, min(1.0, math.exp(one.log_probability)) if one.text else 0.0) for one in found]


def by_meaning(
    heads: Heads, head: AnswerHead, said: list[SpokenSentence], heard: list[tuple[str, float]]
) -> AskedSentences:
    """What was heard, for `judged`. A silence is a sentence without words."""
    return measured(
        heads, head, [plain(text) or "." for text, _ in heard], [one.wanted for one in said],
        [confidence for _, confidence in heard],
    )  # fmt: skip


def words_wrong(said: list[SpokenSentence], heard: list[tuple[str, float]]) -> float:
    """The share of the words that were said."""
    pairs = [(words(one.text), words(text)) for one, (text, _) in zip(said, heard, strict=True)]
    return sum(wrong_words(*pair) for pair in pairs) / sum(len(wanted) for wanted, _ in pairs)


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
        yield (
            f"{fitted_on} -> {asked_with}",
            heads.fit(demo_plan(), [fitted_on, ANNOUNCED[fitted_on]]),
            [*some[0], *some[1]],
        )


def misheard(heads: Heads, whisper: Whisper, speakers: Path) -> None:
    """Makes `MISHEARD`: every second sentence that no caller says below, by two voices of Pico in turn."""
    kept = {text for _, _, some in sentences(heads, KEPT) for text, _ in some}
    texts = []
    for hand in HANDS:
        wanted = [(plain(text), wanted) for text, wanted in written_by(demo_plan(), hand)]
        known = [text for text, want in wanted if not want.startswith(("-", "~")) and text not in kept]
        negative = [text for text, want in wanted if want == "-" and text not in kept]
        texts += [*known[::2], *negative[::2]]
    line = TelephoneLine(None)
    halves = [packaged("pico", voice, speakers)(texts[k::2]) for k, voice in enumerate(("en-GB", "en-US"))]
    said = [
        SpokenSentence(text, "", line(halves[k % 2][k // 2], f"tune{text}")) for k, text in enumerate(texts)
    ]
    found = heard_by_whisper(whisper, said)
    rows = [
        f"{one.text}\t{text.strip()}\t{sure:.3f}\n" for one, (text, sure) in zip(said, found, strict=True)
    ]
    MISHEARD.write_text("".join(rows), "utf-8")
    print(f"{words_wrong(said, found):.1%} of the words wrong")


@click.command()
@click.option("--sentences", "count", default=KEPT, help="how many sentences each caller says of each hand")
@click.option("--speakers", type=click.Path(path_type=Path), help="where synthetic_corpus keeps its programs")
@click.option("--misheard", "mishearing", is_flag=True, help="make the tuning half's heard words anew")
def main(count: int, speakers: Path | None, mishearing: bool) -> None:
    """What callers are taken to mean over a telephone."""
    begun = time.process_time()
    heads, recogniser = Heads.load(MODELS), Recogniser()
    whisper = Whisper.load(ENGLISH, MODELS)
    if mishearing:
        if speakers is None:
            raise click.UsageError("--misheard needs --speakers, a folder of benchmarks.synthetic_corpus")
        misheard(heads, whisper, speakers)
        return
    plan = demo_plan()
    voices = callers(speakers)
    ways = list(sentences(heads, count))
    print(HEADING)
    for name, head, some in ways:
        said = [SpokenSentence(text, wanted, np.empty(0, np.float32)) for text, wanted in some]
        texts = by_meaning(heads, head, said, [(text, 1.0) for text, _ in some])
        print(judged(texts, Constants.shipped()).row(f"{name}: as text"))
    for line_name, line in (
        ("G.711", TelephoneLine(None)),
        (f"babble {BABBLE_DB:g} dB", TelephoneLine(Babble(BABBLE_DB))),
    ):
        for voice_name, voice in voices.items():
            for name, head, some in ways:
                sounds = voice([text for text, _ in some])
                said = [
                    SpokenSentence(text, wanted, line(sound, voice_name + text))
                    for sound, (text, wanted) in zip(sounds, some, strict=True)
                ]
                found = heard_by_whisper(whisper, said)
                heard = by_meaning(heads, head, said, found)
                row = judged(heard, Constants.shipped()).row(f"{line_name}, {voice_name}, {name}")
                print(f"{row}  {words_wrong(said, found):.1%} of the words wrong", flush=True)
                print(by_phrase(recogniser, plan, said).row("  phrases alone"), flush=True)
        head = heads.fit(plan)
        prompts = english(EVERY_PROMPT)
        sounds = [_narrow(one.pcm) for one in prompts]
        said = [
            SpokenSentence(" ".join(one.said), "-", line(sound, one.name))
            for one, sound in zip(prompts, sounds, strict=True)
        ]
        written = by_meaning(heads, head, said, [(one.text, 1.0) for one in said])
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


def _verdicts(some: AskedSentences) -> list[tuple[str, bool]]:
    by = Constants.shipped()
    each = chances(some, by)
    best = [name if chance >= by.possible else "" for name, chance in zip(
        np.array(some.names)[each.argmax(axis=1)], each.max(axis=1), strict=True)]  # fmt: skip
    return list(zip(best, taken_for_sure(some, by).tolist(), strict=True))


if __name__ == "__main__":
    main()
