"""How well statements are checked by ear: what people's prompts become, and which statements are taken.

    python -m benchmarks.statement_words [--speakers FOLDER] [--statements 4] [--changes 3] [--fit] [--jobs 2]

People: Debian's asterisk-core-sounds-{en,es,fr,it,ru}-wav (CC-BY-SA 3.0, Russian CC-BY 3.0; never committed).
English sentences have texts (`prompts/`); of the other languages no list of texts with a licence
is known, so digits are joined to numbers of four, whose texts their files' names say.

Statements are read by machines: no person's reading of one is at hand. espeak-ng (formants) and hibari are
on every machine that has the tests' packages; FOLDER is that of `benchmarks.synthetic_corpus`, whose
environment has SVOX Pico and Piper. Each statement is read as it is, at 16 kHz and over G.711, and
with one thing changed, at 16 kHz. Each reading is judged with and without the sound's own likelihoods, on the
same heard text. `--fit` looks through the bounds of `consent.statements.comparison.NEAR` on the tuning half.
Needs `voicegate models get whisper-base`.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Final

import click
import numpy as np

from benchmarks import statement_verdicts
from benchmarks.consent_speakers import SOUNDS, over_g711
from benchmarks.read_statements import VOICES
from benchmarks.statement_verdicts import LINES, Weighings
from consent.checks.sound import read
from consent.statements.comparison import align
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import tokens
from consent.whisper.whisper import MANY, Whisper
from gateway.config.paths import model_files_dir
from gateway.config.settings import load as load_settings

PROMPTS: Final = {
    "en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}  # fmt: skip
RUSSIAN: Final = ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"]
TEXTS: Final = Path(__file__).with_name("prompts") / "core-sounds-en.txt"
ODD: Final = frozenset("[]#*(<@&…")
"""Signs of a text that is not read as it is written."""
OUT: Final = Path(__file__).parent / "out" / "statement_words.jsonl"
GAP_S: Final = 0.25


@cache
def whisper() -> Whisper:
    return Whisper.load(MANY, model_files_dir(load_settings()))


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────


def sentences() -> list[tuple[Path, str]]:
    """Prompts of 4 to 40 words, and what they say."""
    found = []
    for line in sorted(TEXTS.read_text().splitlines()):
        name, _, text = line.partition(": ")
        path = SOUNDS / PROMPTS["en"] / f"{name.removesuffix('.wav')}.wav"
        if 4 <= len(text.split()) <= 40 and not ODD & set(text.replace("...", "…")) and path.exists():
            found.append((path, text))
    return found


def errors_of(line: str, every: int) -> str:
    """Word errors on every so many of the English sentences."""
    wrong = words = exact = count = 0
    for path, text in sentences()[::every]:
        at_16k = read(path).at_16k
        sound = over_g711(at_16k) if line == "G.711" else at_16k
        heard = tokens(whisper().transcribe(sound, "en").text, "en")
        wanted = tokens(text, "en")
        pairs = align(wanted, heard)
        slips = sum(a is None or b is None or wanted[a] != heard[b] for a, b in pairs)
        wrong, words, exact, count = wrong + slips, words + len(wanted), exact + (not slips), count + 1
    return f"people, en, {line}: {count} sentences, word errors {wrong / words:.1%}, {exact} exact"


def numbers_of(language: str, line: str, count: int) -> str:
    """How many numbers of four digits are heard exactly, each digit a recording of its own."""
    chance = random.Random(language)
    folder = SOUNDS / PROMPTS[language] / "digits"
    gap = np.zeros(round(GAP_S * 16_000), np.float32)
    right = 0
    for _ in range(count):
        digits = [chance.randrange(10) for _ in range(4)]
        at_16k = np.concatenate(
            [gap, *(part for digit in digits for part in (read(folder / f"{digit}.wav").at_16k, gap))]
        )
        sound = over_g711(at_16k) if line == "G.711" else at_16k
        heard = whisper().transcribe(sound, language).text
        if language in LEXICA:
            found = tokens(heard, language)
        else:
            words = heard.lower().replace(",", " ").replace(".", " ").split()
            found = list("".join(str(RUSSIAN.index(word)) if word in RUSSIAN else word for word in words))
        right += found == [str(digit) for digit in digits]
    return f"people, {language}, {line}: {right} of {count} numbers of four digits exact"


@click.command()
@click.option("--speakers", type=click.Path(path_type=Path, exists=True), help="Folder of the corpus.")
@click.option(
    "--statements", "count", default=4, show_default=True, help="Statements of each voice; 0: none."
)
@click.option("--changes", default=3, show_default=True, help="Changed readings of each statement.")
@click.option("--synthesizer", "only", multiple=True, help="Only these; else all.")
@click.option(
    "--fit", is_flag=True, help="Looks for the bounds, on the tuning half, and reports no verdicts."
)
@click.option("--numbers", default=50, show_default=True, help="Numbers of each person, by line; 0: none.")
@click.option(
    "--every", default=1, show_default=True, help="Every so many of the English sentences; 0: none."
)
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(
    speakers: Path | None,
    count: int,
    changes: int,
    only: tuple[str, ...],
    fit: bool,
    numbers: int,
    every: int,
    jobs: int,
) -> None:
    """Reports word errors on people's prompts, and what becomes of statements."""
    here = ("hibari", "espeak-ng")
    chosen = [voice for voice in VOICES if not only or voice.synthesizer in only]
    voices = [voice for voice in chosen if count and (voice.synthesizer in here or speakers is not None)]
    with ProcessPoolExecutor(jobs) as pool:
        if fit:
            tuning = [voice for voice in voices if voice.half == "tuning"]
            told = pool.map(
                partial(statement_verdicts.weighed, count=count, changes=changes, speakers=speakers), tuning
            )
            for line in statement_verdicts.fitted(Weighings(tuple(one for each in told for one in each))):
                click.echo(line)
            return
        people = [pool.submit(errors_of, line, every) for line in LINES if every]
        people += [
            pool.submit(numbers_of, each, line, numbers) for each in PROMPTS for line in LINES if numbers
        ]
        coming = pool.map(
            partial(statement_verdicts.readings, count=count, changes=changes, speakers=speakers), voices
        )
        for row in people:
            click.echo(row.result())
        found = [one for heard in coming for one in heard]
    if not found:
        return
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in found))
    for line in statement_verdicts.report(found):
        click.echo(line)


if __name__ == "__main__":
    main()
