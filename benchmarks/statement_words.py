"""How well statements are checked by ear: what people's prompts become, and which statements are taken.

    python -m benchmarks.statement_words [--speakers FOLDER] [--statements 4] [--jobs 2]

People: Debian's asterisk-core-sounds-{en,es,fr,it,ru}-wav (CC-BY-SA 3.0, Russian CC-BY 3.0; never committed).
English sentences have texts (`prompts/`); of the other languages no list of texts with a licence
is known, so digits are joined to numbers of four, whose texts their files' names say.

Statements are read by machines: no person's reading of one is at hand. espeak-ng (formants) and hibari are
on every machine that has the tests' packages; FOLDER is that of `benchmarks.synthetic_corpus`, whose
environment has SVOX Pico and Piper. Each statement is read as it is, at 16 kHz and over G.711, and twice with
one thing changed, at 16 kHz. What was heard stands in benchmarks/out. Needs
`voicegate models get whisper-base`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Final

import click
import numpy as np

from benchmarks import synthetic_speak
from benchmarks.consent_speakers import SOUNDS, over_g711
from consent.checks.sound import Floats, read
from consent.checks.words import HouseRecogniser, WordsUnknown
from consent.statements.comparison import HeardText, align, match
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import tokens
from consent.statements.statement import Statement, Terms, render
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
LINES: Final = ("16 kHz", "G.711")
GAP_S: Final = 0.25

VOICES: Final = (
    ("en", "hibari", "heart"), ("en", "piper", "joe"), ("en", "pico", "en-US"), ("de", "pico", "de-DE"),
    ("fr", "pico", "fr-FR"), ("es", "pico", "es-ES"), ("it", "pico", "it-IT"), ("en", "espeak-ng", "en-us"),
)  # fmt: skip
PEOPLE: Final = {
    "en": ("Jane Doe", "Thomas Baker", "Mary Williams", "Peter Novak"),
    "de": ("Anna Schmidt", "Thomas Becker", "Maria Weber", "Peter Novak"),
    "fr": ("Anne Martin", "Thomas Bernard", "Marie Dubois", "Pierre Laurent"),
    "es": ("Ana García", "Tomás Romero", "María López", "Pedro Navarro"),
    "it": ("Anna Rossi", "Tommaso Ferrari", "Maria Colombo", "Pietro Romano"),
}
COMPANIES: Final = ("Acme", "Delta Travel", "Atlas Energy", "Nova Bank")
USES: Final = {
    "en": ("answering questions about orders", "booking rooms"),
    "de": ("Auskünfte über Bestellungen", "das Buchen von Zimmern"),
    "fr": ("répondre aux questions sur les commandes", "réserver des chambres"),
    "es": ("responder preguntas sobre pedidos", "reservar habitaciones"),
    "it": ("rispondere a domande sugli ordini", "prenotare camere"),
}
ASIDE: Final = {
    "en": "All of this is just a joke.",
    "de": "Das alles ist bloß ein Scherz.",
    "fr": "Tout cela est une plaisanterie.",
    "es": "Todo esto es una broma.",
    "it": "Tutto questo è uno scherzo.",
}
CHANGES: Final = ("one word", "one digit", "digit twice", "two words swapped", "name", "aside", "left out")


@dataclass(frozen=True)
class ReadStatement:
    """One statement, as it was read and as it was heard."""

    language: str
    synthesizer: str
    voice: str
    line: str
    change: str
    """empty when it was read as it should be"""
    wanted: str
    spoken: str
    heard: HeardText
    verdict: str
    why: str
    seconds: float
    cpu_s: float


@cache
def recogniser() -> HouseRecogniser:
    return HouseRecogniser(model_files_dir(load_settings()))


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


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────


def statements(language: str, count: int) -> Iterator[tuple[Statement, str, str]]:
    """(the statement, what is changed, what is read): each as it is, and with two of `CHANGES`."""
    chance = random.Random(f"statements {language}")
    lexicon = LEXICA[language]
    for number in range(count):
        name, company = PEOPLE[language][number % 4], COMPANIES[number // 4 % 4]
        terms = Terms(
            name, company, ("orders", "rooms"), (language,), date(2027 + number % 4, 6, 30), spoken=language,
            uses=tuple(zip(("orders", "rooms"), USES[language], strict=True)),
        )  # fmt: skip
        words = chance.sample(lexicon.words, 4)
        digits = [chance.randrange(10) for _ in range(4)]
        wanted = render(terms, words, digits)
        yield wanted, "", wanted.text
        for change in [CHANGES[number * 2 % 7], CHANGES[(number * 2 + 1) % 7]]:
            yield wanted, change, changed(wanted, change, words, digits, chance)


def changed(
    wanted: Statement, change: str, words: list[str], digits: list[int], chance: random.Random
) -> str:
    """The statement's text with one thing other than it should be."""
    language = wanted.language
    lexicon = LEXICA[language]
    at = chance.randrange(4)
    other_words, other_digits = list(words), list(digits)
    text = wanted.text
    if change == "one word":
        other_words[at] = chance.choice([word for word in lexicon.words if word not in words])
    elif change == "two words swapped":
        other_words[0], other_words[3] = other_words[3], other_words[0]
    elif change == "one digit":
        other_digits[at] = (digits[at] + chance.randrange(1, 10)) % 10
    elif change == "digit twice":
        other_digits.insert(at, digits[at])
    elif change == "name":
        name = next(part.text for part in wanted.parts if part.critical)
        first, last = chance.choice([one for one in PEOPLE[language] if one != name]).split(" ", 1)
        text = text.replace(
            name, f"{first} {name.split(' ', 1)[1]}" if at % 2 else f"{name.split()[0]} {last}"
        )
    elif change == "aside":
        text = f"{text} {ASIDE[language]}"
    else:
        sentence = next(part.text for part in wanted.parts[at + 3 :] if len(part.text.split()) > 5)
        text = text.replace(sentence, "")
    said = [", ".join(words), ", ".join(lexicon.digits[digit] for digit in digits)]
    read_aloud = [", ".join(other_words), ", ".join(lexicon.digits[digit] for digit in other_digits)]
    for right, wrong in zip(said, read_aloud, strict=True):
        text = text.replace(right, wrong)
    return text


def spoken(synthesizer: str, voice: str, texts: list[str], speakers: Path | None) -> list[Floats]:
    """The texts read by a machine, float32 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        if synthesizer == "espeak-ng":
            for number, text in enumerate(texts):
                argv = ["espeak-ng", "-v", voice, "-s", "150", "-w", f"{folder}/{number}.wav", text]
                subprocess.run(argv, check=True)
        else:
            python = sys.executable if synthesizer == "hibari" else f"{speakers}/env/bin/python"
            argv = [python, synthetic_speak.__file__, synthesizer, voice, folder]
            subprocess.run(argv, input=json.dumps(texts), text=True, check=True)
        return [read(Path(folder) / f"{number}.wav").at_16k for number in range(len(texts))]


def judged(wanted: Statement, at_16k: Floats) -> tuple[HeardText, str, str]:
    """What was heard, the verdict of the check, and why."""
    try:
        heard = recogniser().transcribe(at_16k, wanted.language)
    except WordsUnknown as unknown:
        return HeardText(""), "held", str(unknown)
    found = match(wanted, heard)
    return (
        heard,
        "refused" if not found.said else "held" if found.doubt else "passed",
        found.why or found.doubt,
    )


def readings(voice: tuple[str, str, str], count: int, speakers: Path | None) -> list[ReadStatement]:
    """One voice's statements, heard."""
    language, synthesizer, name = voice
    made = list(statements(language, count))
    sounds = spoken(synthesizer, name, [text for _, _, text in made], speakers)
    out = []
    for (wanted, change, text), wide in zip(made, sounds, strict=True):
        for line, sound in (("16 kHz", wide), *(() if change else (("G.711", over_g711(wide)),))):
            began = time.process_time()
            heard, verdict, why = judged(wanted, sound)
            out.append(ReadStatement(
                language, synthesizer, name, line, change, wanted.text, text, heard, verdict, why,
                len(sound) / 16_000, time.process_time() - began,
            ))  # fmt: skip
    return out


def shares(found: list[ReadStatement]) -> str:
    count = Counter(reading.verdict for reading in found)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in ("passed", "held", "refused"))


def row_of(found: list[ReadStatement]) -> str:
    """One voice's line of the report."""
    one, true = found[0], [reading for reading in found if not reading.change]
    wide, narrow = ([reading for reading in true if reading.line == line] for line in LINES)
    return (
        f"{one.language} {one.synthesizer} {one.voice}: true, 16 kHz: {shares(wide)}; "
        f"true, G.711: {shares(narrow)}; changed: {shares([each for each in found if each.change])}"
    )


@click.command()
@click.option("--speakers", type=click.Path(path_type=Path, exists=True), help="Folder of the corpus.")
@click.option(
    "--statements", "count", default=4, show_default=True, help="Statements of each voice; 0: none."
)
@click.option("--numbers", default=50, show_default=True, help="Numbers of each person, by line; 0: none.")
@click.option(
    "--every", default=1, show_default=True, help="Every so many of the English sentences; 0: none."
)
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(speakers: Path | None, count: int, numbers: int, every: int, jobs: int) -> None:
    """Reports word errors on people's prompts, and what becomes of statements."""
    here = ("hibari", "espeak-ng")
    voices = [voice for voice in VOICES if count and (voice[1] in here or speakers is not None)]
    with ProcessPoolExecutor(jobs) as pool:
        people = [pool.submit(errors_of, line, every) for line in LINES if every]
        people += [
            pool.submit(numbers_of, each, line, numbers) for each in PROMPTS for line in LINES if numbers
        ]
        coming = pool.map(partial(readings, count=count, speakers=speakers), voices)
        for row in people:
            click.echo(row.result())
        heard = []
        for found in coming:
            heard.append(found)
            click.echo(row_of(found))
    if not heard:
        return
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for found in heard for one in found)
    )
    all_of_them = [reading for found in heard for reading in found]
    for change in CHANGES:
        click.echo(f"{change}: {shares([reading for reading in all_of_them if reading.change == change])}")
    cpu = sum(reading.cpu_s for reading in all_of_them) / sum(reading.seconds for reading in all_of_them)
    click.echo(f"CPU {cpu:.3f} s per second of statement")


if __name__ == "__main__":
    main()
